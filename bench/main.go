// Command bench measures rows of the performance table: the server and the
// load generator on one machine, naru and its nearest peer in turn, the median
// of several runs. It prints the file system, the fsyncs beside the
// acknowledgements, and one table: target, ours, peer, ratio. With --full it
// takes longer runs and writes bench/RESULTS.md.
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
	"time"
)

func main() {
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is a line of the performance table.
type row struct {
	number   int
	scenario string
	target   string // in words, as it stands in the table
	rate     float64
	cpu      float64 // µs an event
	ours     func(settings) (measure, error)
	peer     func(settings) (measure, error)
	// What was measured, run by run.
	naru, bento []measure
}

func table() []*row {
	return []*row{
		{number: 1, scenario: "HTTP, 500-event bodies, 8 connections, acknowledged on disk (no pipelines)",
			target: "≥ 1 M events/s, ≤ 1.1 µs, fsync", rate: 1e6, cpu: 1.1, ours: naruBatches, peer: bentoBatches},
		{number: 3, scenario: "HTTP → rows committed in Iceberg, typed columns, zstd Parquet",
			target: "≥ 550 k events/s, ≤ 3 µs", rate: 550e3, cpu: 3, ours: naruRows, peer: bentoRows},
	}
}

func bench() error {
	s := settings{}
	full := flag.Bool("full", false, "longer runs; write bench/RESULTS.md")
	only := flag.Int("row", 0, "only this `row` of the table")
	flag.StringVar(&s.naru, "naru", "bin/naru", "the binary to measure")
	flag.StringVar(&s.dir, "dir", ".cache/bench", "`folder` for data, on a real disk")
	events := flag.Int("events", 0, "size of the corpus (default 500,000, with --full 2,000,000)")
	runs := flag.Int("runs", 0, "runs of each row (default 3, with --full 5)")
	flag.Parse()
	for _, p := range []*string{&s.naru, &s.dir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	s.bento = os.Getenv("BENTO")
	if s.bento == "" {
		s.bento, _ = exec.LookPath("bento")
	}
	s.events, s.warm, s.last, s.rounds, s.runs = 500_000, time.Second, 4*time.Second, 2, 3
	if *full {
		s.events, s.warm, s.last, s.rounds, s.runs = 2_000_000, 2*time.Second, 10*time.Second, 3, 5
	}

	s.events, s.runs = cmp.Or(*events, s.events), cmp.Or(*runs, s.runs)

	fs, err := fileSystem(s.dir)
	if err != nil {
		return err
	}
	var origin string
	if s.corpus, origin, err = corpus(s.dir, s.events); err != nil {
		return err
	}
	fmt.Printf("file system: %s; corpus: %d page views (%s); runs: %d\n", fs, s.events, origin, s.runs)
	if s.bento == "" {
		fmt.Println("Bento is not installed (BENTO=/path/to/bento): no peer beside it")
	}
	rows := table()
	if *only != 0 {
		rows = slices.DeleteFunc(rows, func(r *row) bool { return r.number != *only })
	}
	for _, r := range rows {
		if err := r.take(s); err != nil {
			return fmt.Errorf("row %d: %w", r.number, err)
		}
	}
	printTable(os.Stdout, rows)
	if *full && *only == 0 {
		return writeResults("bench/RESULTS.md", rows, s, fs, origin)
	}
	return nil
}

// take measures naru and its peer in turn, so that both meet the same machine.
func (r *row) take(s settings) error {
	for range s.runs {
		m, err := r.ours(s)
		if err != nil {
			return err
		}
		report(r, m)
		r.naru = append(r.naru, m)
		if s.bento == "" {
			continue
		}
		if m, err = r.peer(s); err != nil {
			return err
		}
		report(r, m)
		r.bento = append(r.bento, m)
	}
	return nil
}

func report(r *row, m measure) {
	fsyncs := "none told"
	if m.Syncs >= 0 {
		fsyncs = fmt.Sprint(m.Syncs)
	}
	fmt.Printf("row %d  %-16s %9.0f events/s  %5.2f µs CPU/event  %4d MB  p50 %.1f ms  p99 %.1f ms  fsyncs %s for %d acknowledgements\n",
		r.number, m.System, m.Rate, m.CPU, m.Memory>>20, m.P50, m.P99, fsyncs, m.Answers)
}

// median is the middle of each figure by itself: a run that was disturbed in one
// of them does not speak for the others.
func median(all []measure) measure {
	m := all[0]
	m.Events = middle(all, func(m measure) int64 { return m.Events })
	m.Rate = middle(all, func(m measure) float64 { return m.Rate })
	m.CPU = middle(all, func(m measure) float64 { return m.CPU })
	m.Memory = middle(all, func(m measure) int64 { return m.Memory })
	m.Answers = middle(all, func(m measure) int64 { return m.Answers })
	m.Syncs = middle(all, func(m measure) int64 { return m.Syncs })
	m.P50 = middle(all, func(m measure) float64 { return m.P50 })
	m.P99 = middle(all, func(m measure) float64 { return m.P99 })
	m.Wall = middle(all, func(m measure) float64 { return m.Wall })
	return m
}

func middle[T cmp.Ordered](all []measure, figure func(measure) T) T {
	values := make([]T, len(all))
	for i, m := range all {
		values[i] = figure(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
