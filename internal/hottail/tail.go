package hottail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// Log is what the hot tail needs of the log.
type Log interface {
	Read(ctx context.Context, stream string, from event.Position, max stream.Bytes) (*event.Batch, error)
	Stat(ctx context.Context, stream string) (stream.Stat, error)
	Streams(ctx context.Context) ([]string, error)
	Progress(ctx context.Context, reader string) (stream.Progress, error)
}

// Deps are what a Tail works with.
type Deps struct {
	FS   vfs.FS
	Dir  string // of the small files; emptied at Open
	Log  Log
	Lake *iceberg.Lake
	// Reader names the loader of a stream in the log: its watermark.
	Reader func(stream string) string
	// Flush asks the loader of a stream to commit what it holds, and waits for it.
	Flush  func(ctx context.Context, stream string) error
	Logger *slog.Logger
	// FileRows is how many rows finish a file; 0: the default. Tests lower it.
	FileRows int64
}

// Tail is the tables of a lake with their hot tails. Safe for concurrent use.
type Tail struct {
	cfg    Config
	log    Log
	lake   *iceberg.Lake
	reader func(string) string
	flush  func(context.Context, string) error
	logger *slog.Logger
	folder *folder
	rows   int64        // of a finished file
	stages atomic.Int64 // bytes of all column buffers
	counts Counts

	mu struct {
		sync.Mutex
		tables map[lake.Ident]*table
		types  map[string]*types // by stream
	}
}

// Counts are what a Tail has done since it was made.
type Counts struct {
	Rows    atomic.Int64 // read from the log for queries
	Files   atomic.Int64 // written
	Flushes atomic.Int64 // commits asked for, for want of memory
	Behind  atomic.Int64 // queries that saw less than all, since the loader was too far behind
	Failed  atomic.Int64 // queries that saw less than all, since files could not be written
}

var _ lake.Tables = (*Tail)(nil)

// New makes a tail; Open makes it usable.
func New(cfg Config, d Deps) *Tail {
	h := &Tail{cfg: cfg, log: d.Log, lake: d.Lake, reader: d.Reader, flush: d.Flush, logger: d.Logger, folder: &folder{fs: d.FS, dir: d.Dir}}
	if h.rows = d.FileRows; h.rows <= 0 {
		h.rows = sealRows
	}
	h.mu.tables, h.mu.types = map[lake.Ident]*table{}, map[string]*types{}
	return h
}

// Open empties the folder of the files.
func (h *Tail) Open() error { return h.folder.empty() }

// Counts is what has been done so far.
func (h *Tail) Counts() *Counts { return &h.counts }

// Bytes is the memory held: column buffers and files.
func (h *Tail) Bytes() int64 { return h.stages.Load() + h.folder.bytes.Load() }

// idle is how long the tail of a table stays without a query.
const idle = 30 * time.Second

// Run lets go what no query has asked for in a while, until ctx ends.
func (h *Tail) Run(ctx context.Context) error {
	tick := time.NewTicker(idle / 3)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			h.rest(now.Add(-idle))
		case <-ctx.Done():
			h.rest(time.Now().Add(idle))
			return nil
		}
	}
}

// rest lets go of tails that were last used before then and are not in use now.
func (h *Tail) rest(then time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, t := range h.mu.tables {
		if !t.tryLock() {
			continue
		}
		if t.used.Before(then) {
			t.reset()
			t.gone = true
			delete(h.mu.tables, id)
		}
		t.unlock()
	}
}

// table is the tail of a table, locked for the caller.
func (h *Tail) table(ctx context.Context, id lake.Ident) (*table, error) {
	for {
		h.mu.Lock()
		t := h.mu.tables[id]
		if t == nil {
			t = newTable(h, id)
			h.mu.tables[id] = t
		}
		h.mu.Unlock()
		if err := t.lock(ctx); err != nil {
			return nil, err
		}
		if !t.gone {
			return t, nil
		}
		t.unlock()
	}
}

// List implements lake.Tables.
func (h *Tail) List(ctx context.Context) ([]lake.Ident, error) { return h.lake.List(ctx) }

// Cut implements lake.Tables: each table's snapshot, and what the log has behind
// it, up to the end that was synced when the cut was made.
func (h *Tail) Cut(ctx context.Context, tables []lake.Ident) ([]*lake.View, error) {
	flushed := false
	for try := 0; ; try++ {
		views, err := h.cut(ctx, tables, hopes{commit: !flushed, again: try < maxTrimmed})
		if errors.Is(err, errTrimmed) {
			continue
		}
		var full *fullError
		if !errors.As(err, &full) {
			if why := context.Cause(ctx); err != nil && why != nil && !errors.Is(err, why) {
				err = fmt.Errorf("%w: %w", why, err) // what was under way knows only that it is over
			}
			return views, err
		}
		// More than the memory holds: it is time to commit.
		flushed = true
		h.counts.Flushes.Add(1)
		short, cancel := context.WithTimeout(ctx, flushWait)
		err = h.flush(short, full.stream)
		cancel()
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// errTrimmed: retention has dropped what was just being read. It was committed
// since, so another look at the tables finds it there.
var errTrimmed = errors.New("retention was faster")

// maxTrimmed is how often that is tried again.
const maxTrimmed = 5

// hopes are what a cut may still end with so that another one sees more.
type hopes struct {
	commit bool // a fullError
	again  bool // errTrimmed
}

// flushWait bounds how long a query waits for a commit.
const flushWait = 2 * time.Second

// fullError asks for a commit.
type fullError struct{ stream string }

func (e *fullError) Error() string { return "the hot tail of " + e.stream + " is full" }

func (h *Tail) cut(ctx context.Context, tables []lake.Ident, may hopes) (views []*lake.View, err error) {
	defer func() {
		if err != nil {
			for _, v := range views {
				v.Release()
			}
			views = nil
		}
	}()
	byStream := map[string][]int{}
	for i, t := range tables {
		byStream[t.Namespace] = append(byStream[t.Namespace], i)
	}
	// The order is what makes it exact. The watermark first: what lies below it is
	// in every snapshot that is taken later. Then the snapshots, then the end of the
	// log, which no snapshot is ahead of.
	marks := map[string]event.Positions{}
	for name := range byStream {
		p, err := h.log.Progress(ctx, h.reader(name))
		if err != nil {
			return nil, fmt.Errorf("load watermark of %s: %w", name, err)
		}
		marks[name] = p.Positions
	}
	states := make([]*iceberg.State, len(tables))
	for i, t := range tables {
		v, state, err := h.lake.ViewState(ctx, t)
		if errors.Is(err, lake.ErrNoTable) {
			v, state, err = &lake.View{Ident: t, Release: func() {}}, &iceberg.State{}, nil
		}
		if err != nil {
			return views, &lake.CutError{Table: t, Err: err}
		}
		views, states[i] = append(views, v), state
	}
	for i, v := range views {
		// What is not loaded, for the table is ahead of the log, is not shown either:
		// it would be a table with a gap.
		refused, err := h.lake.Refusal(v.Ident)
		if err != nil {
			return views, &lake.CutError{Table: v.Ident, Err: err}
		}
		if len(refused) > 0 {
			states[i] = nil
		}
	}
	missed := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(byStream)) {
		if missed[name], err = h.warm(ctx, name, marks[name], byStream[name], views, states, may); err != nil {
			return views, err
		}
	}
	for i, v := range views {
		if states[i] == nil || states[i].Exists || v.Hot != nil {
			continue
		}
		err := lake.ErrNoTable
		if why := missed[v.Ident.Namespace]; why != nil { // it may be that the log alone has it
			err = fault.WithHint(&fault.RetryAfter{Err: fmt.Errorf("its first rows are not committed yet: %w", why), After: flushWait},
				"ask again when they are: pipelines.commit_interval, and naru status")
		}
		return views, &lake.CutError{Table: v.Ident, Err: err}
	}
	return views, nil
}

// errBehind and errCold are why a query does not see all. The log tells more of
// the second: what the error names is nobody's business who asks.
var (
	errBehind = errors.New("more than hot_tail.events or hot_tail.memory allows is not committed")
	errCold   = errors.New("rows that are not committed cannot be shown now, the server's log says why")
)

// warm adds the hot tails of one stream's tables to their views. What goes wrong
// with the log or the small files does not fail a query: it sees what is committed,
// and missed tells why.
func (h *Tail) warm(ctx context.Context, name string, mark event.Positions, which []int, views []*lake.View, states []*iceberg.State, may hopes) (missed, err error) {
	st, err := h.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil, nil
	}
	if err != nil {
		return errCold, h.cold(ctx, name, err)
	}
	wanted := make([][]event.Span, len(which))
	for n, i := range which {
		var trimmed bool
		if wanted[n], trimmed = spans(st, mark, views[i].Positions); trimmed {
			// What is gone may have been committed since the watermark was read.
			p, err := h.log.Progress(ctx, h.reader(name))
			if err == nil && !p.Positions.Equal(mark) {
				err = stream.ErrTrimmed
			}
			if may.again && errors.Is(err, stream.ErrTrimmed) {
				return nil, errTrimmed
			}
			if err != nil {
				return errCold, h.cold(ctx, name, err)
			}
		}
		if length(wanted[n]) > h.cfg.Events {
			h.counts.Behind.Add(1)
			return errBehind, nil
		}
	}
	hot := make([]*lake.Hot, len(which))
	read := make([][]event.Span, len(which)) // of the spans, as far as they are there
	var leases [][]*file
	defer func() {
		for _, files := range leases {
			release(files)
		}
	}()
	short := false
	for n, i := range which {
		leases = append(leases, nil)
		if states[i] == nil || len(wanted[n]) == 0 {
			continue // a table that takes no rows gets nothing from the log
		}
		t, err := h.table(ctx, views[i].Ident)
		if err != nil {
			return nil, err
		}
		full, err := t.bring(ctx, states[i], wanted[n])
		if err == nil && full && may.commit {
			err = &fullError{name}
		}
		if err == nil {
			read[n], err = t.read(wanted[n])
		}
		if err == nil {
			hot[n], leases[n] = t.view(read[n])
		}
		t.unlock()
		if errors.As(err, new(*fullError)) {
			return nil, err
		}
		if may.again && errors.Is(err, stream.ErrTrimmed) {
			return nil, fmt.Errorf("%w: %w", errTrimmed, err)
		}
		if err != nil {
			return errCold, h.cold(ctx, name, err)
		}
		short = short || full
	}
	if short {
		missed = errBehind
		h.counts.Behind.Add(1)
		level(read)
	}
	for n, i := range which {
		if hot[n] == nil {
			continue
		}
		before, files := views[i].Release, leases[n]
		leases[n] = nil
		views[i].Hot = hot[n]
		views[i].Release = sync.OnceFunc(func() { release(files); before() })
	}
	return missed, nil
}

// level cuts the spans of a stream's tables, of which some are not complete, at
// one place: the lowest that one of them has got to, with rows there or without.
func level(tables [][]event.Span) {
	type part struct {
		life      event.Incarnation
		partition int32
	}
	lowest := map[part]int64{}
	for _, spans := range tables {
		for _, s := range spans {
			p := part{s.Incarnation, s.Partition}
			if to, ok := lowest[p]; !ok || s.To < to {
				lowest[p] = s.To
			}
		}
	}
	for _, spans := range tables {
		for i := range spans {
			s := &spans[i]
			s.To = max(s.From, lowest[part{s.Incarnation, s.Partition}])
		}
	}
}

// cold is a query that goes on without the hot tail of a stream.
func (h *Tail) cold(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	h.counts.Failed.Add(1)
	h.logger.Warn("hot tail cannot be read; queries see what is committed", slog.String("stream", name), slog.Any("error", err))
	return nil
}

// covered is up to where a table's snapshot goes; nil when there is none.
func (h *Tail) covered(ctx context.Context, id lake.Ident) (event.Positions, error) {
	v, err := h.lake.View(ctx, id)
	if errors.Is(err, lake.ErrNoTable) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read hot tail beside %s: %w", id, err)
	}
	defer v.Release()
	return v.Positions, nil
}

// sortIdents sorts by namespace and name.
func sortIdents(tables []lake.Ident) {
	slices.SortFunc(tables, func(a, b lake.Ident) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// crowded tells whether the memory is used up, after letting go of tables that
// nobody is asking for now.
func (h *Tail) crowded(besides *table) bool {
	if h.Bytes() < int64(h.cfg.Memory) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, t := range h.mu.tables {
		if h.Bytes() < int64(h.cfg.Memory) {
			return false
		}
		if t != besides && t.tryLock() {
			t.reset()
			t.gone = true
			delete(h.mu.tables, id)
			t.unlock()
		}
	}
	return h.Bytes() >= int64(h.cfg.Memory)
}
