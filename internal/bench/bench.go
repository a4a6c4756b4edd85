// Package bench measures a machine as naru would use it: the disk's syncs, a
// server that takes events in, loads them and answers queries, and how fresh
// its answers are. From the figures follows advice.
package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"naru/internal/bench/load"
	"naru/internal/config"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// Options say what to measure.
type Options struct {
	Folder   config.Folder // on the disk to measure; its settings hold
	Settings config.Config
	Beside   bool          // a server runs on the folder
	Binary   string        // naru itself
	Version  string        // of it
	Duration time.Duration // of all of it, roughly
	FS       vfs.FS
	// Progress is told what is being done and how much time of all has gone, some
	// times a second, from one goroutine. nil: nobody.
	Progress func(step string, done, all time.Duration)
}

// Shortest and longest Duration.
const (
	Shortest = time.Second
	Longest  = time.Hour
)

// Parts of the duration. The rest goes to starts, stops and last commits.
const (
	diskPart      = 0.13
	batchPart     = 0.15
	singlePart    = 0.12
	warmPart      = 0.02 // before each of the flows
	loadPart      = 0.20
	queryPart     = 0.07
	freshnessPart = 0.15
)

// views are how many different events are sent, again and again.
const views = 100_000

// mostLoaded bounds the events of the load for a minute, and with them the disk.
const mostLoaded = 20_000_000

// bench is one run.
type bench struct {
	Options
	scratch *scratch
	step    atomic.Pointer[string]
	lines   [][]byte
	report  *Report
}

// Run measures. It leaves nothing behind, also when ctx ends it.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Duration < Shortest || o.Duration > Longest {
		return nil, fmt.Errorf("measure for %s: want %s to %s", o.Duration, Shortest, Longest)
	}
	b := &bench{Options: o, report: &Report{Version: o.Version, Started: time.Now().UTC().Truncate(time.Second), Machine: machine()}}
	r, c := b.report, o.Settings
	r.Settings = Settings{
		Segment: c.Log.Segment, Recycle: c.Log.Recycle, RetainBytes: c.Log.RetainBytes, Reserve: c.Log.Reserve, Queue: c.Log.Queue,
		InFlight: c.Collect.InFlight, LakeMemory: c.Lake.Memory, CommitInterval: c.Pipelines.CommitInterval, QueryMemory: c.Query.Memory,
		HotTailMemory: c.HotTail.Memory,
	}
	dir, err := place(o.FS, o.Folder)
	if err != nil {
		return nil, err
	}
	if r.Disk.Kind, err = vfs.KindOf(dir); err != nil {
		return nil, err
	}
	if b.scratch, err = newScratch(o.FS, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.scratch.remove()) }()
	free, err := o.FS.Free(dir)
	if err != nil {
		return nil, err
	}
	r.Folder = Folder{Dir: string(o.Folder), Beside: o.Beside, Free: free, Log: sizeOf(o.FS, o.Folder.Log())}
	if err := checkRoom(free, c, dir, o.Duration); err != nil {
		return nil, err
	}

	began := time.Now()
	stop := b.show(began)
	defer stop()
	if err := b.measure(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err() // what broke off because of it is no news
		}
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	r.Advice = Advise(r)
	return r, nil
}

// show tells Progress until the returned function is called.
func (b *bench) show(began time.Time) (stop func()) {
	if b.Progress == nil {
		return func() {}
	}
	b.doing("starting")
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			// It takes as long as it takes: the bar stops just before its end.
			b.Progress(*b.step.Load(), min(time.Since(began), b.Duration*99/100), b.Duration)
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}

func (b *bench) doing(step string) { b.step.Store(&step) }

// part of the duration.
func (b *bench) part(p float64) time.Duration { return time.Duration(p * float64(b.Duration)) }

// measure goes from the inside out: the disk, the door, the tables, queries.
func (b *bench) measure(ctx context.Context) (err error) {
	b.doing("disk")
	kind := b.report.Disk.Kind
	if b.report.Disk, err = newProbe(b.FS, b.scratch.dir).measure(ctx, b.part(diskPart)); err != nil {
		return err
	}
	b.report.Disk.Kind = kind
	b.lines = load.PageViews(views)
	if err := b.ingest(ctx); err != nil {
		return fmt.Errorf("measure ingest: %w", err)
	}
	if err := b.load(ctx); err != nil {
		return fmt.Errorf("measure load: %w", err)
	}
	return nil
}

// settings are the folder's, changed where a bench must not do as they say: its
// log stays small, and it logs only what is wrong.
func (b *bench) settings() config.Config {
	c := b.Settings
	c.Logging = config.Default().Logging
	c.Logging.Level = "warn"
	if small := 4 * c.Log.Segment; c.Log.RetainBytes == 0 || c.Log.RetainBytes > small {
		c.Log.RetainBytes = small
	}
	return c
}

// with runs a server on a scratch folder while use works with it, and stops it.
func (b *bench) with(ctx context.Context, dir string, use func(s *server) error, args ...string) error {
	s, err := launch(ctx, b.Binary, dir, args...)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := use(s); err != nil {
		return s.explain(ctx, err)
	}
	return s.stop(ctx)
}

// ingest measures the door alone: no tables are loaded, as in the peaks that a
// log takes in and that are loaded later.
func (b *bench) ingest(ctx context.Context) (err error) {
	c := b.settings()
	c.Log.DropUnread = true // nobody is going to read it
	dir, err := b.scratch.sub("ingest", c)
	if err != nil {
		return err
	}
	cores := b.report.Machine.Cores
	err = b.with(ctx, dir, func(s *server) error {
		b.doing("ingest, 500 events a request")
		batches := flow{perRequest: batchSize, connections: max(8, 2*cores), bodies: load.Bodies(b.lines, batchSize), kind: "application/x-ndjson"}
		if b.report.Batches, err = b.flow(ctx, s, batches, load.Until{Time: b.part(batchPart)}, nil); err != nil {
			return err
		}
		b.doing("ingest, one event a request")
		single := flow{perRequest: 1, connections: max(32, 8*cores), bodies: b.lines, kind: "application/json"}
		b.report.Single, err = b.flow(ctx, s, single, load.Until{Time: b.part(singlePart)}, nil)
		return err
	}, "--no-pipelines")
	return errors.Join(err, vfs.RemoveAll(b.FS, dir)) // the next needs the room
}

// load measures until all rows are committed, queries over them, and then how
// fresh answers are.
func (b *bench) load(ctx context.Context) error {
	c := b.settings()
	// Short, so that the wait for the last commit is no large part of the time.
	c.Pipelines.CommitInterval = min(c.Pipelines.CommitInterval, quantity.Duration(min(max(b.Duration/60, 100*time.Millisecond), time.Second)))
	dir, err := b.scratch.sub("load", c)
	if err != nil {
		return err
	}
	// So many that they take about the time, if loading costs as much again as
	// taking in; a number, because how long the rest takes is part of it.
	events := min(b.report.Batches.Rate*b.part(loadPart).Seconds()/2, mostLoaded*b.Duration.Minutes())
	until := load.Until{Requests: max(int64(events)/batchSize, 10)}
	f := flow{perRequest: batchSize, connections: b.report.Batches.Connections, bodies: load.Bodies(b.lines, batchSize), kind: "application/x-ndjson"}
	err = b.with(ctx, dir, func(s *server) error {
		b.doing("load into tables")
		if b.report.Load, err = b.flow(ctx, s, f, until, func() error { return s.allWritten(ctx) }); err != nil {
			return err
		}
		b.report.Load.CommitInterval = c.Pipelines.CommitInterval
		b.doing("queries")
		return b.queries(ctx, s)
	})
	if err != nil {
		return err
	}
	b.doing("freshness")
	if err := b.scratch.settings(dir, b.settings()); err != nil {
		return err
	}
	return b.with(ctx, dir, func(s *server) error { return b.freshness(ctx, s) })
}
