// Package app puts naru together: what starts when, what stops when, and why
// in that order.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"naru/internal/collect"
	"naru/internal/collect/native"
	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/duck"
	"naru/internal/fault"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/pipeline"
	"naru/internal/sink/table"
	"naru/internal/vfs"
	"naru/internal/web"
)

// answerTime is how long requests in flight may take when the server stops.
const answerTime = 10 * time.Second

// Options of a server.
type Options struct {
	Folder    config.Folder
	Config    config.Config
	Pipelines bool   // load tables
	Version   string // of the binary
	Logger    *slog.Logger
	FS        vfs.FS // nil: the machine's; SQLite and DuckDB go past it
	// Watch shows events while they come; nil: nobody looks on.
	Watch *collect.Watch
	// Ready is called once, when events are taken, with the server's address.
	Ready func(url string)
}

// Serve runs the server until ctx ends, then stops it in order. It returns nil
// after a clean stop, and fault.ErrPoisoned when the log has failed.
func Serve(ctx context.Context, o Options) (err error) {
	logger := o.Logger
	fsys := o.FS
	if fsys == nil {
		fsys = vfs.OS()
	}
	var opened closers
	defer func() { err = errors.Join(err, opened.close()) }()

	// The port first, because a taken one should cost nothing: nothing in the
	// folder has been touched. Who connects now waits until the door opens.
	ln, err := listen(o.Config.Listen.HTTP)
	if err != nil {
		return err
	}
	opened.add("listener", onlyOnce(ln.Close))

	// The folder before anything in it: two servers on one folder, or one on a
	// copy, would destroy each other's files.
	folder, err := hold(fsys, o.Folder)
	if err != nil {
		return err
	}
	opened.add("folder", folder.Close)
	o.Config.Place(folder.Folder)
	// Every path is checked against the folder that is held: it may be moved, and
	// another be put in its place, while this process runs.
	guarded, err := guard(fsys, folder)
	if err != nil {
		return err
	}
	fsys = guarded

	registry := obs.NewRegistry()
	health := newHealth()

	// The log before all others, because it is the truth: what it recovers
	// decides what everything behind it has still to do.
	if o.Pipelines {
		o.Config.Log.Expect = pipeline.Reader
	}
	log, err := openLog(fsys, folder.Folder, o.Config.Log, registry, health, logger)
	if err != nil {
		return err
	}
	opened.add("log", log.Close) // last but the folder: the promise frame goes behind everything

	// The lake before queries and pipelines, because both read and write it.
	lake, err := iceberg.Open(ctx, o.Config.Lake, fsys, folder.Data(), logger)
	if err != nil {
		return err
	}
	opened.add("lake", lake.Close)

	// The judge of duplicates before the door opens, because what comes from then on
	// is judged; before the pipelines and queries, because they ask it.
	judge, readable, err := openJudge(ctx, fsys, folder.Folder, o, log, logger)
	if err != nil {
		return err
	}

	// Pipelines behind all that they read and write; before the door opens, so
	// that a reader's place is known before retention could pass it.
	tables := table.New(lake, log, logger)
	streams, err := log.Streams(ctx)
	if err != nil {
		return fmt.Errorf("list streams: %w", err)
	}
	if err := tables.Begin(ctx, streams); err != nil {
		return err
	}
	pipelines := pipeline.NewSet(o.Config.Pipelines, readable, tables.Open, logger)

	// Queries before the door, because a server that is ready answers them.
	var committing *pipeline.Set
	if o.Pipelines {
		committing = pipelines
	}
	read, err := openReading(o.Config.HotTail, fsys, folder.Folder, readable.Impatient(patience), lake, committing, logger)
	if err != nil {
		return err
	}
	read.register(registry)
	engine, err := duck.New(o.Config.Query.Config, read, logger)
	if err != nil {
		return fmt.Errorf("configure query: %w", err)
	}
	if err := engine.Open(); err != nil {
		return fmt.Errorf("open query engine: %w", err)
	}
	opened.add("query engine", engine.Close)

	// Contracts before the door, because no event may get in unjudged. There is no
	// older state to go on with, so mistakes in them end the start.
	keys, err := contract.LoadKeys(fsys, string(folder.Folder), o.Config.PII, os.Getenv, []byte(folder.ID))
	if err != nil {
		return err
	}
	contracts, err := openContracts(fsys, folder.Folder, keys, lake, registry, logger)
	if err != nil {
		return err
	}

	// Configured pipelines behind the lake, which their steps read and their tables
	// are in, and the contracts, which name those tables.
	steps, err := openSteps(o.Config.Steps, lake, read, contracts.Set, logger)
	if err != nil {
		return err
	}
	opened.add("steps", steps.Close)
	configured := openPipelines(o.Config.Pipelines, fsys, folder.Folder, readable, log, tables, steps, logger)

	// The door behind the log that it writes to.
	events, err := collect.New(o.Config.Collect, collect.Deps{Log: log, Contracts: contracts.Set, Keys: keys, Watch: o.Watch, Registry: registry, Logger: logger})
	if err != nil {
		return err
	}
	door, err := native.New(events)
	if err != nil {
		return err
	}

	// Rejections behind the queries that find them and the door that judges again.
	closing := make(chan struct{})
	rejected, err := openRejected(o.Config.Rejected, log, readable, read, engine, door, configured, contracts, closing, registry, logger)
	if err != nil {
		return err
	}

	f := faces{
		options: o, folder: folder, fs: fsys, log: log, lake: lake, engine: engine, door: door, rejected: rejected, health: health, contracts: contracts,
		registry: registry, closing: closing, started: time.Now().UTC().Truncate(time.Second), url: "http://" + ln.Addr().String(),
	}
	if o.Pipelines {
		f.pipelines, f.configured, f.tables, f.judge = pipelines, configured, tables, judge
	}
	server := web.NewServer(o.Config.Collect.Config, f.routes(), logger)
	server.Quick(native.Path)

	// What runs by itself. Each part has its own end, because they stop one
	// behind the other.
	failed := make(chan error, 6)
	watching := start("folder", failed, guarded.watch)
	keeping := start("lake upkeep", failed, lake.Run)
	reading := start("contracts", failed, contracts.Run)
	warming := start("hot tail", failed, read.run)
	judging := start("judge of duplicates", failed, func(ctx context.Context) error {
		if judge == nil {
			return nil
		}
		return judge.Run(ctx)
	})
	loading := start("pipelines", failed, func(ctx context.Context) error {
		if !o.Pipelines {
			return pipelines.Hold(ctx)
		}
		return runPipelines(ctx, pipelines, configured)
	})
	serving := start("server", failed, func(context.Context) error { return server.Serve(ln) })

	if o.Pipelines {
		// Pipelines before the word that events are taken: one that begins with the latest
		// event gets all that come from then on.
		select {
		case <-configured.Looked():
		case <-ctx.Done():
		case <-health.poisoned:
		}
	}
	logger.Info("ready", slog.String("url", f.url), slog.String("folder", string(folder.Folder)), slog.String("version", o.Version))
	o.Ready(f.url)

	select {
	case <-ctx.Done():
		logger.Info("stopping")
	case err = <-failed:
		logger.Error("stopping", slog.Any("error", err))
	case <-health.poisoned:
		err = health.reason()
		server.Because(err)
		logger.Error("stopping", slog.Any("error", err))
	}

	// Stop, from the outside in. First nothing new comes in, and what is in
	// flight is answered: its clients wait for it. Readers that follow a stream
	// would wait for ever, so they are told.
	close(f.closing)
	answered, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	if derr := server.Drain(answered); derr != nil {
		logger.Warn("requests were cut off", slog.Any("error", derr))
	}
	serving.stop()
	reading.stop()
	// Then the tables commit what they hold and the watermarks are appended,
	// while the log can still take them. A poisoned log takes nothing: there the
	// pipelines find out by themselves.
	loading.stop()
	// The judge behind those who ask it.
	judging.stop()
	keeping.stop()
	warming.stop()
	watching.stop()
	// The rest closes from the last opened to the first.
	for len(failed) > 0 {
		err = errors.Join(err, <-failed)
	}
	return guarded.explain(err)
}

// listen binds the address.
func listen(addr string) (net.Listener, error) {
	if err := config.CheckAddress(addr); err != nil {
		return nil, fault.WithHint(fmt.Errorf("listen: %w", err), "take --listen 127.0.0.1:8080, or port 0 for a free one")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("listen on %s: %w", addr, err),
			"another program may have the port: take another with --listen 127.0.0.1:0, or set listen.http in naru.yaml")
	}
	return ln, nil
}

// Tune sets the process's behaviour, before anything else is done: memory, threads,
// encoders that stay. What the environment
// says (GOGC, GOMEMLIMIT, GOMAXPROCS) goes first.
func Tune(p config.Process, getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(p.GCPercent)
	}
	if getenv("GOMAXPROCS") == "" {
		// One more than cores: a thread in fdatasync keeps its place for up to 10 ms
		// although its core has nothing to do, and requests wait for that.
		threads := p.Threads
		if threads == 0 {
			threads = runtime.GOMAXPROCS(0) + 1 // the cores that this process may use
		}
		runtime.GOMAXPROCS(threads)
	}
	if getenv("GOMEMLIMIT") == "" && p.MemoryLimit > 0 {
		debug.SetMemoryLimit(int64(p.MemoryLimit))
	}
	columnar.KeepEncoders()
}

// part is a goroutine that runs one component.
type part struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start runs a component until stop; an error goes to failed.
func start(what string, failed chan<- error, run func(context.Context) error) *part {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{cancel: cancel}
	p.done.Go(func() {
		if err := run(ctx); err != nil {
			failed <- fmt.Errorf("run %s: %w", what, err)
		}
	})
	return p
}

// stop ends the component and waits for it.
func (p *part) stop() {
	p.cancel()
	p.done.Wait()
}

// closers close in the opposite order of opening.
type closers []func() error

func (c *closers) add(what string, close func() error) {
	*c = append(*c, func() error {
		if err := close(); err != nil {
			return fmt.Errorf("close %s: %w", what, err)
		}
		return nil
	})
}

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}

// onlyOnce makes closing a listener twice no error: the server closes it too.
func onlyOnce(close func() error) func() error {
	return func() error {
		if err := close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

var _ io.Closer = (*holding)(nil)
