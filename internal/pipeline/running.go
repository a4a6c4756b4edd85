package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/transform"
)

// running is a configured pipeline at work.
type running struct {
	all  *Configured
	flow *flow
	def  atomic.Pointer[definition.Definition] // in force

	// changing is held over one whole change: of the file, of the state, or the end. A
	// change waits for sinks that stop, so nothing that only looks may take it.
	changing sync.Mutex
	stuck    bool // a rewind was begun and could not be done yet: no sink runs; with changing held
	ended    bool // it left the configuration, or the server stops; with changing held
	unsure   bool // the file may have another state than this: with changing held

	mu struct {
		sync.Mutex
		sinks map[string]*sinkRun
		fills map[string]*fillRun // by sink
	}
}

// errLeft: the pipeline left the configuration, or the server stops.
var errLeft = errors.New("the pipeline has ended")

// sinkRun is one sink at work.
type sinkRun struct {
	def      *definition.Sink
	pipeline *Pipeline
	cancel   context.CancelFunc
	done     chan struct{}
}

// openRunning brings a pipeline to work, as its state says.
func (c *Configured) openRunning(ctx context.Context, def *definition.Definition) (*running, error) {
	r := &running{all: c}
	r.def.Store(def)
	r.mu.sinks, r.mu.fills = map[string]*sinkRun{}, map[string]*fillRun{}
	f := &flow{name: def.Name, stream: def.From.Stream, log: c.deps.Log, engine: c.deps.Engine,
		logger: c.deps.Logger.With(slog.String("pipeline", def.Name)), now: time.Now, most: int64(c.cfg.ReadBytes), cached: int64(c.cfg.Shared), shares: c.sinks.Load}
	f.mu.steps = map[string]transform.Transform{}
	f.mu.passed = r.passed
	f.reads = func() int { return len(r.def.Load().To) + len(f.mu.state.Backfills) }
	f.sinks = func() (names []string) {
		for _, s := range r.def.Load().To {
			names = append(names, s.Name)
		}
		return names
	}
	f.save = r.keep
	r.flow = f
	st, err := readState(c.deps.FS, c.stateFile(def.Name))
	if err != nil {
		return nil, err
	}
	known := st != nil
	if !known {
		st = &state{Versions: []version{{From: event.Positions{}, Hash: def.Hash(), Text: string(def.Text())}}}
	}
	f.mu.state = st
	if err := r.finish(ctx); err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if err := f.open(ctx); err != nil {
		return nil, err
	}
	if !known {
		if err := st.write(c.deps.FS, c.stateFile(def.Name)); err != nil {
			return nil, err
		}
	}
	return r, r.change(def)
}

// load reads the definitions of all versions.
func (r *running) load() error {
	f := r.flow
	f.mu.defs = map[string]*definition.Definition{}
	name := r.def.Load().Name
	for _, v := range f.mu.state.Versions {
		def, wrong := definition.Parse("pipelines/"+name+".yaml", name, []byte(v.Text), r.all.deps.Kinds)
		if len(wrong) > 0 && v.Hash != def.Hash() {
			return fmt.Errorf("read a former version of pipeline %s: %w", name, wrong)
		}
		f.mu.defs[v.Hash] = def
	}
	return nil
}

// change brings another form of the pipeline's file into force. Steps change at the
// place up to which they have been computed, for all sinks; sinks whose settings
// have not changed go on.
func (r *running) change(def *definition.Definition) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	f := r.flow
	if r.ended {
		return errLeft
	}
	if def.From.Stream != f.stream {
		return fmt.Errorf("pipeline %s reads stream %s and cannot change to %s: its positions would mean nothing; give the file another name", def.Name, f.stream, def.From.Stream)
	}
	if err := r.version(def); err != nil {
		return err
	}
	r.def.Store(def)
	if err := r.welcome(); err != nil {
		return err
	}
	r.adjust()
	return nil
}

// adjust stops the sinks that are not to run, or not so, and starts those that are.
// With changing held.
func (r *running) adjust() {
	defer r.adjustFills()
	def := r.def.Load()
	wanted := map[string]*definition.Sink{}
	if !r.flow.paused() && !r.stuck {
		for _, s := range def.To {
			wanted[s.Name] = s
		}
		for _, b := range r.flow.backfills() {
			if b.Phase == swapping { // its target and its positions are changing
				delete(wanted, b.Sink)
			}
		}
	}
	var leaving []*sinkRun
	r.mu.Lock()
	for name, s := range r.mu.sinks {
		if w := wanted[name]; w == nil || !w.Same(s.def) {
			leaving = append(leaving, s)
			s.cancel()
		}
	}
	r.mu.Unlock()
	for _, s := range leaving { // not under the lock: a sink that hangs takes its time
		<-s.done
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range leaving {
		delete(r.mu.sinks, s.def.Name)
	}
	for name, s := range wanted {
		if r.mu.sinks[name] == nil {
			r.mu.sinks[name] = r.start(def, s)
		}
	}
}

// version makes def the newest version, if its rows differ.
func (r *running) version(def *definition.Definition) error {
	f := r.flow
	f.mu.Lock()
	defer f.mu.Unlock() // across the writes: nothing may be computed until it is known by what
	newest := f.mu.state.Versions[len(f.mu.state.Versions)-1]
	if newest.Hash == def.Hash() {
		if r.unsure || newest.Text != string(def.Text()) {
			// The text says which sinks there have been: see program.
			next := *f.mu.state
			next.Versions = slices.Clone(next.Versions)
			next.Versions[len(next.Versions)-1].Text = string(def.Text())
			if err := r.keep(&next); err != nil {
				return err
			}
		}
		f.mu.defs[newest.Hash] = def
		return nil
	}
	from := f.mu.judged.Positions.Clone()
	for k, l := range f.mu.lanes {
		from.Advance(event.Position{Incarnation: k.inc, Partition: k.partition, Offset: l.front})
	}
	next := *f.mu.state
	next.Versions = append(append([]version(nil), next.Versions...), version{From: from, Hash: def.Hash(), Text: string(def.Text())})
	next.prune(f.mu.passed)
	if err := r.keep(&next); err != nil {
		return err
	}
	f.mu.defs[def.Hash()] = def
	f.logger.Info("steps changed", slog.String("from", from.String()), slog.String("version", def.Hash()))
	return nil
}

// keep makes next the state. After an error the file may have it nevertheless, so the
// next change writes it in any case. With changing and f.mu held.
func (r *running) keep(next *state) error {
	r.unsure = true
	if err := next.write(r.all.deps.FS, r.all.stateFile(r.flow.name)); err != nil {
		return fault.Transient(fmt.Errorf("keep the state of pipeline %s: %w", r.flow.name, err))
	}
	r.unsure = false
	r.flow.mu.state = next
	return nil
}

// start runs a sink.
func (r *running) start(def *definition.Definition, s *definition.Sink) *sinkRun {
	c := r.all
	cfg := c.cfg
	cfg.CommitInterval = definition.DefaultEvery
	if s.Kind.Name == "table" {
		cfg.CommitInterval = c.cfg.CommitInterval // the node's commits of tables are bounded
	}
	if s.Every > 0 {
		cfg.CommitInterval = s.Every
	}
	if s.Bytes > 0 {
		cfg.CommitBytes = s.Bytes
	}
	p := New(sinkReader(def.Name, s.Name), def.From.Stream, cfg, c.deps.Log, r.opener(s), c.deps.Logger)
	p.source = tap{r.flow, s.Name, tabular(s)}
	p.first = func(ctx context.Context) (stream.Progress, error) { return r.first(ctx, s.Name, def.From.Start) }
	ctx, cancel := context.WithCancel(c.ctx)
	c.sinks.Add(1)
	run := &sinkRun{def: s, pipeline: p, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		defer c.sinks.Add(-1)
		if err := r.await(ctx); err != nil {
			return
		}
		if err := p.Run(ctx); err != nil {
			c.fail(fmt.Errorf("pipeline %s, sink %s: %w", def.Name, s.Name, err))
		}
	}()
	return run
}

// opener makes the sink of an entry of `to:`.
func (r *running) opener(s *definition.Sink) Opener {
	return func(ctx context.Context, _ string) (sink.Sink, error) {
		return s.Settings.Open(ctx, r.envOf(s.Name))
	}
}

// envOf is what a sink gets of its pipeline.
func (r *running) envOf(name string) sink.Env {
	f, env := r.flow, r.all.deps.Env
	env.Pipeline, env.Stream, env.Logger = f.name, f.stream, f.logger.With(slog.String("sink", name))
	env.Name, env.Reader = name, sinkReader(f.name, name)
	env.State = filepath.ToSlash(filepath.Join(r.all.deps.StateDir, f.name, name))
	return env
}

// await waits for the first event of the stream: until then there is nothing to read.
func (r *running) await(ctx context.Context) error {
	for {
		changed := r.all.deps.Log.Changed()
		_, err := r.all.deps.Log.Stat(ctx, r.flow.stream)
		if !errors.Is(err, stream.ErrNoStream) {
			return nil // what else is wrong, the pipeline itself tells
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// passed is the first offset of a lane that some sink of the file, or a backfill, has not
// passed; those that do not run for now count by their positions in the log. With f.mu
// held.
func (r *running) passed(k lane) int64 {
	var readers []string
	for _, s := range r.def.Load().To {
		readers = append(readers, sinkReader(r.flow.name, s.Name))
	}
	for _, b := range r.flow.mu.state.Backfills {
		if b.Phase == filling || b.Phase == swapping {
			readers = append(readers, backfillReader(r.flow.name, b.Sink))
		}
	}
	low := int64(-1)
	for _, reader := range readers {
		at, err := r.all.deps.Log.Progress(context.Background(), reader)
		if err != nil {
			return 0
		}
		off, _ := at.Positions.Get(k.inc, k.partition)
		if low < 0 || off < low {
			low = off
		}
	}
	return max(low, 0)
}

// stop ends all sinks and releases the steps.
func (r *running) stop() error {
	r.mu.Lock()
	for _, s := range r.mu.sinks {
		s.cancel() // at once: a change may have begun
	}
	for _, x := range r.mu.fills {
		x.cancel()
	}
	r.mu.Unlock()
	r.changing.Lock()
	defer r.changing.Unlock()
	r.ended = true
	r.stopFills()
	r.mu.Lock()
	all := r.mu.sinks
	r.mu.sinks = map[string]*sinkRun{}
	r.mu.Unlock()
	for _, s := range all {
		s.cancel()
	}
	for _, s := range all {
		<-s.done
	}
	return r.flow.close()
}

// SinkStatus is what a sink of a configured pipeline shows.
type SinkStatus struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Guarantee string `json:"guarantee"`
	Status
}

// Status lists the sinks of all configured pipelines, by name of their readers.
func (c *Configured) Status() []SinkStatus {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.mu.running))
	c.mu.Unlock()
	var out []SinkStatus
	for _, r := range all {
		r.mu.Lock()
		for _, s := range r.mu.sinks {
			out = append(out, SinkStatus{Name: s.def.Name, Kind: s.def.Kind.Name, Guarantee: s.def.Kind.Guarantee, Status: s.pipeline.Status()})
		}
		r.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b SinkStatus) int { return strings.Compare(a.Status.Name, b.Status.Name) })
	return out
}
