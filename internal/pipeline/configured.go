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

	"naru/internal/pipeline/definition"
	"naru/internal/problem"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/transform"
	"naru/internal/vfs"
)

// Deps are what configured pipelines work with.
type Deps struct {
	FS       vfs.FS
	Folder   string // pipelines/
	StateDir string // data/pipelines
	Log      stream.Log
	Raw      stream.Log // the same without the judge of duplicates, whom reports do not wait for; nil: Log
	Engine   transform.Engine
	Kinds    []sink.Kind
	Env      sink.Env // what all sinks have in common
	Logger   *slog.Logger
}

// Configured runs the pipelines of a folder, and takes over its changes. What is
// broken is refused: the pipelines in force go on, and State says why.
type Configured struct {
	cfg  Config
	deps Deps
	ctx  context.Context // of Run: what it starts ends with it
	end  context.CancelCauseFunc

	sinks       atomic.Int64  // that run: they share limits
	every       time.Duration // looks at the folder
	taken, seen string        // stamps of it
	looked      chan struct{} // closed behind the first look

	mu struct {
		sync.Mutex
		running map[string]*running
		broken  map[string]error    // by pipeline; "" is the folder
		times   map[place]time.Time // of receipt, for reports
	}
}

// NewConfigured makes the set. It starts nothing.
func NewConfigured(cfg Config, deps Deps) *Configured {
	c := &Configured{cfg: cfg, deps: deps, every: LookEvery, looked: make(chan struct{})}
	c.mu.running, c.mu.broken, c.mu.times = map[string]*running{}, map[string]error{}, map[place]time.Time{}
	return c
}

// Looked is closed when Run has brought the pipelines of the folder to work, or knows
// why not.
func (c *Configured) Looked() <-chan struct{} { return c.looked }

// LookEvery is how often the folder is looked at for changes, which are taken over when
// two looks agree: by then nobody is writing any more.
const LookEvery = time.Second

// Run works until ctx ends and all sinks have drained.
func (c *Configured) Run(ctx context.Context) error {
	c.ctx, c.end = context.WithCancelCause(ctx)
	defer c.end(nil)
	c.seen, c.taken = unread, unread
	c.look(c.ctx, true)
	close(c.looked)
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for c.ctx.Err() == nil {
		select {
		case <-tick.C:
			c.look(c.ctx, false)
			c.tidy(c.ctx)
		case <-c.ctx.Done():
		}
	}
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.mu.running))
	c.mu.Unlock()
	var stopping sync.WaitGroup
	errs := make([]error, len(all))
	for i, r := range all {
		stopping.Go(func() { errs[i] = r.stop() })
	}
	stopping.Wait()
	if ctx.Err() == nil {
		errs = append(errs, context.Cause(c.ctx))
	}
	return errors.Join(errs...)
}

// unread is no stamp of a folder.
const unread = "?"

// fail ends Run: the log is poisoned or closed.
func (c *Configured) fail(err error) { c.end(err) }

// look takes over the folder if it has changed.
func (c *Configured) look(ctx context.Context, first bool) {
	stamp, err := c.stamp()
	if err == nil && stamp == c.taken {
		return
	}
	if err == nil && stamp != c.seen && !first {
		c.seen = stamp
		return
	}
	var defs map[string]*definition.Definition
	var wrong problem.List
	if err == nil {
		c.seen, c.taken = stamp, stamp
		defs, wrong, err = definition.Load(c.deps.FS, c.deps.Folder, c.deps.Kinds)
	}
	if err != nil {
		c.taken = unread
		c.refuse("", err)
		return
	}
	c.cure("")
	bad := map[string]problem.List{}
	for _, p := range wrong {
		name, _ := definition.Pipeline(filepath.Base(p.File))
		bad[name] = append(bad[name], p)
	}
	for name, def := range defs {
		more := c.deps.Engine.Check(ctx, "pipelines/"+name+".yaml", def.Program(), transform.Input{Stream: def.From.Stream, Types: def.From.Types})
		if len(more) > 0 {
			bad[name] = append(bad[name], more...)
		}
	}
	for name, list := range bad {
		c.refuse(name, list.Sorted())
	}
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if bad[name] != nil {
			continue
		}
		if err := c.take(ctx, defs[name]); err != nil {
			if ctx.Err() != nil {
				return
			}
			c.taken = unread // it may work next time
			c.refuse(name, err)
			continue
		}
		c.cure(name)
	}
	c.leave(ctx, defs, bad)
}

// take brings a definition into force.
func (c *Configured) take(ctx context.Context, def *definition.Definition) error {
	c.mu.Lock()
	r := c.mu.running[def.Name]
	c.mu.Unlock()
	if r != nil {
		return r.change(def)
	}
	r, err := c.openRunning(ctx, def)
	if r != nil {
		c.mu.Lock()
		c.mu.running[def.Name] = r
		c.mu.Unlock()
	}
	return err
}

// leave stops the pipelines whose file is gone, and forgets their readers: they would
// hold retention back for ever.
func (c *Configured) leave(ctx context.Context, defs map[string]*definition.Definition, bad map[string]problem.List) {
	c.mu.Lock()
	var gone []*running
	for name, r := range c.mu.running {
		if defs[name] == nil && bad[name] == nil {
			gone = append(gone, r)
			delete(c.mu.running, name)
		}
	}
	for name := range c.mu.broken {
		if name != "" && defs[name] == nil && bad[name] == nil {
			delete(c.mu.broken, name)
		}
	}
	c.mu.Unlock()
	for _, r := range gone {
		if err := r.stop(); err != nil {
			c.deps.Logger.Warn("stop pipeline", slog.String("pipeline", r.flow.name), slog.Any("error", err))
		}
		if err := r.abandon(ctx); err != nil {
			c.deps.Logger.Warn("give up backfills", slog.String("pipeline", r.flow.name), slog.Any("error", err))
		}
		if err := c.deps.FS.Remove(c.stateFile(r.flow.name)); err != nil {
			c.deps.Logger.Warn("remove what a pipeline has kept", slog.String("pipeline", r.flow.name), slog.Any("error", err))
		}
	}
	if err := c.forget(ctx, func(name string) bool { return defs[name] != nil || bad[name] != nil }); err != nil && ctx.Err() == nil {
		c.deps.Logger.Warn("forget readers", slog.Any("error", err))
	}
}

// forget removes readers of pipelines and sinks that left the configuration. What is
// broken has not left it: its sinks are those in force.
func (c *Configured) forget(ctx context.Context, there func(name string) bool) error {
	known, ok := c.deps.Log.(stream.Readers)
	f, can := c.deps.Log.(stream.Forgetter)
	if !ok || !can {
		return nil
	}
	readers, err := known.Readers(ctx)
	if err != nil {
		return err
	}
	for _, reader := range slices.Sorted(maps.Keys(readers)) {
		name, of := ownerOf(reader)
		if name == "" || c.fills(reader) {
			continue
		}
		c.mu.Lock()
		r := c.mu.running[name]
		c.mu.Unlock()
		if r == nil && there(name) || r != nil && (of == "" || !strings.HasPrefix(reader, stream.BackfillReader) && slices.ContainsFunc(r.def.Load().To, func(s *definition.Sink) bool { return s.Name == of })) {
			continue
		}
		c.deps.Logger.Warn("reader left the configuration; its positions are removed", slog.String("reader", reader))
		if err := f.Forget(ctx, reader); err != nil {
			return fmt.Errorf("forget reader %s: %w", reader, err)
		}
	}
	return nil
}

// fills tells whether a reader is that of a backfill which goes on.
func (c *Configured) fills(reader string) bool {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.mu.running))
	c.mu.Unlock()
	for _, r := range all {
		if r.flow.fills(reader) {
			return true
		}
	}
	return false
}

// ownerOf gives the pipeline, and the sink if any, that a reader belongs to; "" for
// readers of others.
func ownerOf(reader string) (pipeline, sink string) {
	for _, prefix := range []string{stream.RefusedReader, stream.ReplayReader} {
		if rest, ok := strings.CutPrefix(reader, prefix); ok {
			return rest, ""
		}
	}
	rest, ok := strings.CutPrefix(reader, stream.PipelineReader)
	if !ok {
		rest, ok = strings.CutPrefix(reader, stream.BackfillReader)
	}
	if !ok {
		return "", ""
	}
	pipeline, sink, _ = strings.Cut(rest, "/")
	return pipeline, sink
}

// tidy lets all pipelines forget what their sinks have passed.
func (c *Configured) tidy(ctx context.Context) {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.mu.running))
	c.mu.Unlock()
	for _, r := range all {
		if err := r.tidy(ctx); err != nil && ctx.Err() == nil {
			r.flow.logger.Warn("tidy up", slog.Any("error", err))
		}
	}
}

func (c *Configured) refuse(name string, err error) {
	c.mu.Lock()
	was := c.mu.broken[name]
	c.mu.broken[name] = err
	c.mu.Unlock()
	if was == nil || was.Error() != err.Error() {
		c.deps.Logger.Error("pipeline refused: what was in force before goes on", slog.String("pipeline", name), slog.Any("error", err),
			slog.String("hint", "naru check names what is wrong"))
	}
}

func (c *Configured) cure(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.broken, name)
}

func (c *Configured) stateFile(name string) string {
	return filepath.Join(c.deps.StateDir, name+".json")
}

// stamp tells the files of the folder by name, size and time.
func (c *Configured) stamp() (string, error) {
	names, err := c.deps.FS.List(c.deps.Folder)
	if err != nil {
		if _, serr := c.deps.FS.Stat(c.deps.Folder); serr != nil {
			return "", nil // there is no such folder
		}
		return "", err
	}
	var b strings.Builder
	for _, name := range names {
		if _, ok := definition.Pipeline(name); !ok {
			continue
		}
		if info, err := c.deps.FS.Stat(filepath.Join(c.deps.Folder, name)); err == nil {
			fmt.Fprintf(&b, "%s\x00%d\x00%d\n", name, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String(), nil
}
