package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/collect"
	"naru/internal/collect/native"
	"naru/internal/dedupe"
	"naru/internal/event"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/pipeline"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/rejection"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
)

// Where things lie, as internal/app has it.
const (
	dataDir = "/data"
	logDir  = "/data/log"
	lakeDir = "/data/lake"
	idsDir  = "/data/dedupe"
)

// settings are what may be set in naru.yaml.
type settings struct {
	log      seglog.Config
	lake     iceberg.Config
	pipeline pipeline.Config
	collect  collect.Config
	dedupe   dedupe.Config
	hotRows  int64 // of a finished file of the hot tail
	version  int   // of the contracts
}

// smallSettings are of a naru that does everything often.
func smallSettings(rng *rand.Rand) settings {
	s := settings{log: seglog.DefaultConfig(), lake: iceberg.DefaultConfig(), pipeline: pipeline.DefaultConfig(), collect: collect.DefaultConfig(), dedupe: dedupe.DefaultConfig()}
	s.dedupe.Index = quantity.MiB
	s.log.Segment = quantity.Bytes([]int{16, 24, 32, 64}[rng.IntN(4)]) * quantity.KiB
	s.log.RetainAge, s.log.Reserve = 0, 0
	s.log.RetainBytes = []quantity.Bytes{0, 2 * s.log.Segment, 4 * s.log.Segment}[rng.IntN(3)]
	s.log.Recycle = []quantity.Bytes{0, 2 * s.log.Segment}[rng.IntN(2)]
	s.log.Promise = quantity.Duration(time.Millisecond)
	s.lake.CommitRate = []float64{2, 1000}[rng.IntN(2)]
	s.lake.MaxTables = []int{3, 1000}[rng.IntN(2)]
	s.lake.OpenWriters = 1 + rng.IntN(8)
	s.lake.Memory = quantity.MiB
	s.lake.ExpireEvery, s.lake.KeepSnapshots, s.lake.GCDelay = 1+rng.IntN(4), 1+rng.IntN(3), 0
	s.pipeline.CommitInterval = quantity.Duration([]int{1, 3}[rng.IntN(2)]) * quantity.Duration(time.Millisecond)
	s.pipeline.CommitBytes = quantity.Bytes([]int{100, 1000, 10000}[rng.IntN(3)])
	s.pipeline.ReadBytes = 64 * quantity.KiB
	s.pipeline.BackoffMin, s.pipeline.BackoffMax = 1, quantity.Duration(time.Millisecond)
	s.collect.Partitions = int32(1 + 2*rng.IntN(2))
	s.hotRows = []int64{0, 1, 2, 7}[s.lake.OpenWriters%4]
	return s
}

func (s settings) String() string {
	return fmt.Sprintf("segment %s, retain %s, tables %d, rate %g, expire every %d keeping %d, commit every %s or %s, partitions %d",
		s.log.Segment, s.log.RetainBytes, s.lake.MaxTables, s.lake.CommitRate, s.lake.ExpireEvery, s.lake.KeepSnapshots,
		s.pipeline.CommitInterval, s.pipeline.CommitBytes, s.collect.Partitions)
}

var quiet = slog.New(slog.DiscardHandler)

// logger is quiet unless NARU_SIMULATION_LOG is set.
func logger() *slog.Logger {
	if os.Getenv("NARU_SIMULATION_LOG") == "" {
		return quiet
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// process is one naru at work.
type process struct {
	m        *machine
	log      stream.Log
	seen     *watched
	lake     *iceberg.Lake
	tables   *table.Tables
	set      *pipeline.Set
	judge    *dedupe.Judge
	rest     func() error // stops it
	door     http.Handler
	native   *native.Door
	rejected *rejection.Rejections
	loose    atomic.Bool // the contracts have been loosened
	version  int         // of the contracts
	recovery seglog.Recovery
	clock    *clock
	keepLog  bool         // the log outlives the process
	jumps    bool         // clients set the clock now and then
	removed  atomic.Int64 // files that the lake's garbage collection took
}

// start opens everything in the order of internal/app. The caller closes it,
// also after an error. log may be nil: then it is a seglog on the machine's disk.
func start(m *machine, cfg settings, wall *clock, log stream.Log) (p *process, err error) {
	p = &process{m: m, clock: wall, log: log, keepLog: log != nil}
	fs := disk{m}
	if err := fs.MkdirAll(logDir); err != nil {
		return p, err
	}
	if log == nil {
		m.flight.in(flyLogOpen)
		cfg.log.Listener.Recovered = func(r seglog.Recovery) { p.recovery = r }
		cfg.log.Clock = wall.now
		cfg.log.Expect = pipeline.Reader // as internal/app has it
		l, err := seglog.Open(fs, logDir, cfg.log, logger())
		if err != nil {
			return p, fmt.Errorf("open log: %w", err)
		}
		p.log = l
	}
	m.flight.in(flyLakeOpen)
	if p.lake, err = iceberg.Open(context.Background(), cfg.lake, fs, dataDir, logger(), iceberg.WithCatalog(catalog{m}), iceberg.WithClock(wall.now)); err != nil {
		return p, fmt.Errorf("open lake: %w", err)
	}
	p.judge = dedupe.New(cfg.dedupe, dedupe.Deps{FS: fs, Dir: idsDir, Log: p.log, Logger: logger(), Now: wall.now, Pause: time.Millisecond, Sync: int64(cfg.log.Segment) / 4, Partitions: cfg.collect.Partitions})
	if err := p.judge.Open(context.Background()); err != nil {
		return p, err
	}
	judging, rest := context.WithCancel(context.Background())
	judged := make(chan error, 1)
	go func() { judged <- p.judge.Run(judging) }()
	p.rest = func() error { rest(); return <-judged }
	p.seen = watch(p.judge.Log(), m)
	p.version = cfg.version
	if err := p.lake.KeepShapes(shapesOf(theContracts()[cfg.version], looseContracts()[cfg.version])); err != nil {
		return p, err
	}
	engine, err := collect.New(cfg.collect, collect.Deps{Log: p.log, Contracts: p.contracts, Keys: theKeys(), Registry: obs.NewRegistry(), Logger: quiet, Now: wall.now})
	if err != nil {
		return p, err
	}
	if p.native, err = native.New(engine); err != nil {
		return p, err
	}
	p.door = p.native
	p.rejected, err = rejection.New(rejection.Config{Page: quantity.KiB, Memory: quantity.MiB}, rejection.Deps{Log: p.log, Store: inLog{p.log}, Logger: quiet, Now: wall.now,
		Door: func(ctx context.Context, name string) (rejection.Door, error) { return p.native.Replay(ctx, name) }})
	if err != nil {
		return p, err
	}
	p.tables = table.New(p.lake, p.log, logger())
	streams, err := p.log.Streams(context.Background())
	if err != nil {
		return p, err
	}
	if err := p.tables.Begin(context.Background(), streams); err != nil {
		return p, err
	}
	p.set = pipeline.NewSet(cfg.pipeline, p.seen, p.tables.Open, logger())
	m.flight.in("")
	return p, nil
}

// close releases everything, from the last opened to the first.
func (p *process) close() error {
	var errs []error
	if p.rest != nil {
		errs = append(errs, p.rest())
	}
	if p.lake != nil {
		errs = append(errs, p.lake.Close())
	}
	if p.log != nil && !p.keepLog {
		errs = append(errs, p.log.Close())
	}
	return errors.Join(errs...)
}

// work is a process whose pipelines and upkeep run.
type work struct {
	p      *process
	cancel context.CancelFunc
	all    sync.WaitGroup
	set    error
}

func (p *process) run() *work {
	ctx, cancel := context.WithCancel(context.Background())
	w := &work{p: p, cancel: cancel}
	w.all.Go(func() { w.set = p.set.Run(ctx) })
	w.all.Go(func() { _ = p.lake.Run(ctx) })
	return w
}

// stop drains and waits.
func (w *work) stop() error {
	w.p.m.flight.in(flyDrain)
	w.cancel()
	w.all.Wait()
	return w.set
}

// collect removes files whose time has come.
func (p *process) collect() { p.removed.Add(int64(p.lake.CollectGarbage())) }

// poisoned is closed when the process is to end by itself.
func (p *process) poisoned() <-chan struct{} {
	if l, ok := p.log.(*seglog.Log); ok {
		return l.Poisoned()
	}
	return nil
}

// answer is what the door says.
type answer struct {
	Accepted  int `json:"accepted"`
	Rejected  []struct{ Index int }
	Count     int `json:"rejected_count"`
	Positions []struct {
		Stream      string
		Partition   int32
		First, Last int64
	} `json:"positions"`
}

// send posts a shipment. ok is true when the client was told that it is stored.
func (p *process) send(s shipment) (a answer, status int) {
	text, media := s.body()
	target := "/v1/events?stream=" + s.stream
	if !s.cloud {
		target += "&id_field=k"
	}
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(text))
	r.Header.Set("Content-Type", media)
	w := httptest.NewRecorder()
	p.door.ServeHTTP(w, r)
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			panic(err)
		}
	}
	return a, w.Code
}

// drained waits until the pipelines have taken everything that the log has. The
// last of it is then committed by stop.
func (p *process) drained() error {
	for {
		names, err := p.log.Streams(context.Background())
		if err != nil {
			return err
		}
		waiting := 0
		for _, name := range names {
			if event.Internal(name) {
				continue
			}
			st, err := p.log.Stat(context.Background(), name)
			if err != nil {
				return err
			}
			for _, r := range st.Ranges {
				if r.Incarnation != st.Incarnation || r.Start == r.End {
					continue
				}
				p.seen.mu.Lock()
				at, ok := p.seen.asked[name][r.Partition]
				p.seen.mu.Unlock()
				if !ok || at.Incarnation != r.Incarnation || at.Offset < r.End {
					waiting++
				}
			}
		}
		if waiting == 0 {
			return nil
		}
		select {
		case <-p.seen.news:
		case <-p.m.down:
			return errDown
		case <-p.poisoned():
			return errors.New("poisoned")
		case <-time.After(time.Minute):
			return fmt.Errorf("stuck: %d partitions are not read to their end; pipelines %+v, tables %+v", waiting, p.set.Status(), p.tables.Status())
		}
	}
}

// stored is what the log has: the keys of the events by stream and place, and
// which of them are refused ones.
func stored(l stream.Log) (map[string]map[place]string, error) {
	ctx := context.Background()
	names, err := l.Streams(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]map[place]string{}
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		out[name] = map[place]string{}
		st, err := l.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		var d recordbatch.Decoder
		for _, r := range st.Ranges {
			at := event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start}
			for at.Offset < r.End {
				b, err := l.Read(ctx, name, at, 1<<20)
				if err != nil {
					return nil, fmt.Errorf("read %s at %s: %w", name, at, err)
				}
				err = d.EachIn(b, func(e *event.Event) error {
					if bytes.Contains(e.Data, []byte("PERSONAL")) || bytes.Contains(e.Violations, []byte("PERSONAL")) {
						return fmt.Errorf("personal data was stored: %s", e.Data)
					}
					out[name][place{b.Incarnation, b.Partition, e.Offset}] = keyOf(e.Data)
					return nil
				})
				if err != nil {
					return nil, err
				}
				if at = b.End(); at.Incarnation != r.Incarnation {
					break
				}
			}
		}
	}
	return out, nil
}

// clients lets clients send for a while, side by side. ack is told of each
// request what the client was told.
func (p *process) clients(rng *rand.Rand, all []*client, requests, most int, sent func(shipment), ack func(shipment, answer)) {
	var running sync.WaitGroup
	for _, c := range all {
		pause := rand.New(rand.NewPCG(rng.Uint64(), 7))
		running.Go(func() {
			for range requests {
				if p.m.isDown() {
					return
				}
				s := c.next(most)
				sent(s)
				a, status := p.send(s)
				if status == http.StatusOK {
					ack(s, a)
				}
				yield(pause.IntN(400))
				if pause.IntN(5) == 0 {
					p.collect()
				}
				if p.jumps && pause.IntN(4) == 0 {
					p.clock.jumpAnywhere(pause)
				}
			}
		})
	}
	running.Wait()
}

// yield gives others their turn, n times; where there is one core alone, or a busy one,
// each turn may take long.
func yield(n int) {
	for begun := time.Now(); n > 0 && time.Since(begun) < 10*time.Millisecond; n-- {
		runtime.Gosched()
	}
}
