// Command bench measures rows of the performance table: the server and the
// load generator on one machine, naru and its nearest peer in turn. It prints
// the file system, the fsyncs beside the acknowledgements, and one table:
// target, ours, peer, ratio. With --full it takes longer runs and keeps them in
// bench/RESULTS.md.
//
// Run it through ./bench/run. No test calls it: tests never time anything.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const resultsFile = "bench/RESULTS.md"

func run() error {
	b := &bench{}
	flag.StringVar(&b.naru, "naru", "bin/naru", "the binary to measure")
	flag.StringVar(&b.dir, "dir", ".cache/bench", "`folder` for data, on a real disk")
	flag.BoolVar(&b.full, "full", false, "longer runs, kept in "+resultsFile)
	write := flag.Bool("write", false, "keep the runs in "+resultsFile+", in place of those of the same rows")
	only := flag.String("row", "", "only these `rows`, with commas: 1, 2, 3, 4, 5, 6, 7, 8, 12, share")
	events := flag.Int("events", 0, "size of the corpus (default 500,000, with --full 2,000,000; of row 4 always 2,000,000)")
	runs := flag.Int("runs", 0, "runs of rows 1 to 3, 5 and 12 (default 3, with --full 5)")
	steady := flag.Duration("duration", 0, "of row 7 (default 1m, with --full 30m)")
	stretch := flag.Duration("stretch", 0, "of rows 1, 2 and 5, behind a warm-up (default 4s, with --full 10s)")
	flag.IntVar(&b.rate, "rate", 100_000, "events a second of rows 6 and 7")
	alone := flag.Bool("alone", false, "leave the peers out")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("what is %q? rows are named by --row", flag.Arg(0))
	}
	b.events, b.whole, b.warm, b.last, b.rounds, b.runs, b.steady = 500_000, 2_000_000, time.Second, 4*time.Second, 6, 3, time.Minute
	b.startSizes, b.shareRounds = []int64{2e8, 1e9}, 2
	if b.full {
		b.events, b.warm, b.last, b.rounds, b.runs, b.steady = 2_000_000, 2*time.Second, 10*time.Second, 3, 5, 30*time.Minute
		b.startSizes, b.shareRounds = []int64{1e9, 5e9}, 4
	}
	if *events > 0 {
		b.events, b.whole = *events, *events
	}
	b.runs, b.steady, b.last = cmp.Or(*runs, b.runs), cmp.Or(*steady, b.steady), cmp.Or(*stretch, b.last)

	rows := table()
	if *only != "" {
		names := strings.Split(*only, ",")
		for _, name := range names {
			if !slices.ContainsFunc(rows, func(r *row) bool { return r.name == name }) {
				return fmt.Errorf("there is no row %q; see --help", name)
			}
		}
		rows = slices.DeleteFunc(rows, func(r *row) bool { return !slices.Contains(names, r.name) })
	}
	m, err := b.prepare(*alone)
	if err != nil {
		return err
	}
	for _, r := range rows {
		b.row = r.name
		if err := r.take(b); err != nil {
			return fmt.Errorf("row %s: %w", r.name, err)
		}
		if *write || b.full { // row by row: a later one that breaks loses none
			if err := keep(resultsFile, b.raw, m); err != nil {
				return err
			}
		}
	}
	fmt.Println()
	fmt.Print(tableText(b.raw))
	return nil
}

// prepare finds the binaries and makes the corpus.
func (b *bench) prepare(alone bool) (m machine, err error) {
	for _, p := range []*string{&b.naru, &b.dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return m, err
		}
	}
	if _, err := os.Stat(b.naru); err != nil {
		return m, fmt.Errorf("%w; run: make build", err)
	}
	if !alone {
		b.bento = peer("BENTO", "bento", "bento")
		b.duckdb = peer("DUCKDB_PYTHON", "duckdb/bin/python", "")
	}
	b.commit = version(b.naru)
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return m, err
	}
	if m, err = lookAround(b.dir); err != nil {
		return m, err
	}
	if b.corpus, m.Corpus, err = corpus(b.dir, b.events); err != nil {
		return m, err
	}
	if b.wholeCorpus, _, err = corpus(b.dir, b.whole); err != nil {
		return m, err
	}
	fmt.Printf("%s\nfile system: %s; corpus: %s; load average before: %s\n", b.commit, m.FileSystem, m.Corpus, loadAverage())
	for name, path := range map[string]string{"Bento": b.bento, "DuckDB": b.duckdb} {
		if path == "" && !alone {
			fmt.Printf("%s is not installed (bench/peers/install): no peer beside its rows\n", name)
		}
	}
	return m, nil
}

// peer finds a peer's binary: by the environment, where bench/peers/install put
// it, or in PATH.
func peer(variable, installed, name string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	if path, err := filepath.Abs(filepath.Join(".cache/bench/peers", installed)); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(cmp.Or(name, "-"))
	if err != nil {
		return ""
	}
	return path
}
