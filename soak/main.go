// Command soak runs the real binary under a steady load for as long as it is
// told, kills it every minute at a random moment, and proves at the end that
// nothing was lost, doubled or torn: every acknowledged event is in its table
// or in `rejected` once, a request without an answer is there whole or not at
// all. Memory, goroutines and descriptors must not grow, and a commit adds at
// most one file to a day of a table.
//
// Run it through `make soak`. The client's ledger is in memory; the lake is
// read with none of naru's code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	set := settings{config: config}
	flag.StringVar(&set.Naru, "naru", "bin/naru", "the binary to test")
	base := flag.String("dir", os.TempDir(), "`folder` to work under, on a real disk with some 10 GB free; the run's own folder in it is removed when nothing was found")
	flag.DurationVar(&set.Duration, "duration", 5*time.Minute, "how long the server is killed again and again")
	flag.DurationVar(&set.Calm, "calm", -1, "how long its last life goes on under load (default a fifth of -duration, at least 1m)")
	flag.DurationVar(&set.Every, "every", time.Minute, "one kill in each such time")
	flag.Float64Var(&set.Rate, "rate", 50_000, "events a second")
	flag.IntVar(&set.Connections, "connections", 8, "connections, at most 90")
	flag.IntVar(&set.Batch, "batch", 500, "events of a request, on average")
	flag.Uint64Var(&set.Seed, "seed", 0, "of all that is random (default: another one each time)")
	asJSON := flag.String("json", "", "write the outcome with all readings to this `file`")
	markdown := flag.String("summary", "", "write the summary to this `file` too")
	keep := flag.Bool("keep", false, "keep the folder in any case")
	flag.Parse()
	if flag.NArg() > 0 || set.Connections < 1 || set.Connections > 90 || set.Rate <= 0 || set.Batch < 1 || set.Batch > 10_000 || set.Every <= 0 {
		return errors.New("see -help: -connections 1 to 90, -batch 1 to 10000, -rate and -every above 0")
	}
	if set.Seed == 0 {
		set.Seed = uint64(time.Now().UnixNano())
	}
	if set.Calm < 0 {
		set.Calm = max(set.Duration/5, time.Minute)
	}
	if set.Naru, err = filepath.Abs(set.Naru); err != nil {
		return err
	}
	if set.Dir, err = os.MkdirTemp(*base, "naru-soak-"); err != nil {
		return err
	}
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
	}
	say("SEED=%d; %v with a kill every %v, then %v without; %.0f events/s; folder %s", set.Seed, set.Duration, set.Every, set.Calm, set.Rate, set.Dir)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	s := newSoak(set, say)
	stopped := s.run(ctx)
	if stopped == nil {
		checkRate(s.load.sent.Load(), s.load.skipped.Load(), &s.found)
	}
	out := s.summary(stopped)
	out.write(os.Stdout)
	if *asJSON != "" {
		err = errors.Join(err, out.writeJSON(*asJSON))
	}
	if *markdown != "" {
		err = errors.Join(err, writeSummary(out, *markdown))
	}
	switch {
	case stopped != nil:
		err = errors.Join(err, stopped)
	case len(out.Violations) > 0:
		err = errors.Join(err, errViolated)
	}
	fmt.Printf("\nSEED=%d, %v in all\n", set.Seed, time.Since(began).Round(time.Second))
	if err != nil || *keep {
		fmt.Println("kept:", set.Dir)
		return err
	}
	return os.RemoveAll(set.Dir)
}

func writeSummary(out summary, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out.write(f)
	return f.Close()
}
