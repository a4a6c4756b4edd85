// Package table is the sink of the default pipeline: the events of one stream
// become rows of tables, one table for each type. Positions live in each
// table's own commit, so reading again is exact: a table skips what it has.
package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// Log tells what the log still has and how far it goes: a table that was
// rolled back, or is ahead of the log, can only be judged by it.
type Log interface {
	Stat(ctx context.Context, stream string) (stream.Stat, error)
	// Progress is the watermark, by which an older copy of the lake is known.
	Progress(ctx context.Context, reader string) (stream.Progress, error)
}

// Tables opens the sinks of all streams over one lake. Safe for concurrent use.
type Tables struct {
	lake   *iceberg.Lake
	log    Log
	logger *slog.Logger
	now    func() time.Time

	mu struct {
		sync.Mutex
		status   map[string][]Status    // by stream
		failures map[lake.Ident]int     // commits that failed one after the other: see isolate
		began    map[string]stream.Stat // by stream: what the log had, until its sink was opened once
	}
}

// New makes Tables.
func New(l *iceberg.Lake, log Log, logger *slog.Logger) *Tables {
	t := &Tables{lake: l, log: log, logger: logger, now: time.Now}
	t.mu.status, t.mu.failures, t.mu.began = map[string][]Status{}, map[lake.Ident]int{}, map[string]stream.Stat{}
	return t
}

// Begin notes how far each stream goes. It belongs before the first append: of a
// table that is ahead of the log, only the end that the log was opened with tells,
// because what comes then gets offsets that the table covers.
func (t *Tables) Begin(ctx context.Context, streams []string) error {
	for _, name := range streams {
		st, err := t.log.Stat(ctx, name)
		if err != nil {
			return fmt.Errorf("stat %s: %w", name, err)
		}
		t.mu.Lock()
		t.mu.began[name] = st
		t.mu.Unlock()
	}
	return nil
}

// Status is what a sink shows of one table.
type Status struct {
	Table lake.Ident `json:"table"`
	// Rows, Bytes and Since (of the oldest) tell of rows not yet committed.
	Rows  int64     `json:"pending_rows"`
	Bytes int64     `json:"pending_bytes"`
	Since time.Time `json:"pending_since,omitzero"`
	// Rescued values, UnfitNumbers, Unpromoted and ClampedTimes are counted
	// since the sink was opened.
	Rescued      int64 `json:"rescued"`
	UnfitNumbers int64 `json:"unfit_numbers"`
	Unpromoted   int64 `json:"unpromoted"`
	ClampedTimes int64 `json:"clamped_times"`
	// Error is why the table takes no rows, with the cure in Hint. The stream's
	// watermark waits for it.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Status lists the tables of all open sinks, by name.
func (t *Tables) Status() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Status
	for _, s := range slices.Sorted(maps.Keys(t.mu.status)) {
		all = append(all, t.mu.status[s]...)
	}
	return all
}

// Sink is the tables of one stream.
type Sink struct {
	tables *Tables
	lake   *iceberg.Lake
	stream string
	leave  func()
	dec    recordbatch.Decoder

	types  map[string]*target // by type, of events without a contract that names a table
	last   []byte             // type of the event before, and the hash of its contract
	judged []byte
	names  map[string]*target // by table name
	end    event.Positions    // of everything written so far
	lives  map[int32][]event.Incarnation
	resume event.Positions // nil, or from where has to be read again
	behind event.Positions // nil, or where the lake ends, which is an older copy
	gaps   []event.Span    // of what came since: the log has it no more
	until  event.Positions // while all of the log is loaded again: up to where

	batch   int64     // counts Write
	touched []*target // by the current batch
	pending int64     // bytes of all targets
	memory  int64     // told to the lake
	over    int64     // by how much the lake's memory was exceeded then
	shown   time.Time
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Resumer = (*Sink)(nil)
	_ sink.Drainer = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
)

// Open opens the sink of one stream: it loads where each of its tables stands.
func (t *Tables) Open(ctx context.Context, streamName string) (sink.Sink, error) {
	if streamName == "" || strings.ContainsAny(streamName, "./\\") {
		return nil, fault.WithHint(fmt.Errorf("open tables of stream %q: not a namespace", streamName), "use letters, digits, - and _ in names of streams")
	}
	s := &Sink{tables: t, lake: t.lake, stream: streamName, types: map[string]*target{}, names: map[string]*target{},
		end: event.Positions{}, lives: map[int32][]event.Incarnation{}}
	st, err := t.log.Stat(ctx, streamName)
	if err != nil && !errors.Is(err, stream.ErrNoStream) {
		return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
	}
	t.mu.Lock()
	began, first := t.mu.began[streamName]
	t.mu.Unlock()
	if first {
		// Nobody else writes to these tables, so they have nothing that came since.
		st = began
	}
	if err := s.older(ctx, st); err != nil {
		return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
	}
	if err := s.reload(ctx, st); err != nil {
		return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
	}
	if s.behind != nil {
		if s.resume == nil {
			s.resume = event.Positions{}
		}
		lower(s.resume, s.behind)
	}
	list, err := t.lake.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
	}
	for _, id := range list {
		if id.Namespace != streamName {
			continue
		}
		x, err := s.open(ctx, id.Name, st)
		if err != nil {
			return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
		}
		if _, x.start, err = t.lake.Claim(ctx, id, nil); err != nil { // the catalog has it, so it has its place
			return nil, fmt.Errorf("open tables of stream %s: %w", streamName, err)
		}
	}
	t.mu.Lock()
	delete(t.mu.began, streamName) // from now on they may have what came since
	t.mu.Unlock()
	s.leave = t.lake.Join()
	s.show()
	return s, nil
}

// reload asks for all that the log has when the lake is new to the stream or a
// table has to be loaded anew.
func (s *Sink) reload(ctx context.Context, st stream.Stat) error {
	if err := s.lake.ReloadDropped(ctx, s.stream); err != nil {
		return err
	}
	starts, ends := event.Positions{}, event.Positions{}
	for _, r := range st.Ranges {
		if r.End > r.Start {
			starts.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start})
			ends.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.End})
		}
	}
	until, err := s.lake.Reload(ctx, s.stream, ends)
	if err != nil || len(until) == 0 {
		return err
	}
	// What retention has dropped since cannot come any more.
	for inc, parts := range until {
		for partition, off := range parts {
			if start, ok := starts.Get(inc, partition); !ok || start >= off {
				delete(parts, partition)
			}
		}
		if len(parts) == 0 {
			delete(until, inc)
		}
	}
	if len(until) == 0 {
		return s.lake.Reloaded(s.stream)
	}
	s.tables.logger.Info("stream is loaded again from the start of the log; tables skip what they have",
		slog.String("stream", s.stream), slog.String("up_to", until.String()))
	s.until, s.resume = until, starts
	return nil
}

// Resume implements sink.Resumer. It asks for something only when a table was
// rolled back, the lake is older than the watermark, or all is loaded again: else the pipeline's watermark says where to start, because all
// rows below it are committed, and each table skips what it has.
func (s *Sink) Resume(_ context.Context, streamName string) (event.Positions, error) {
	if streamName != s.stream || s.resume == nil {
		return nil, nil
	}
	return s.resume.Clone(), nil
}

// Write implements sink.Sink.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	if b.Stream != s.stream {
		return fmt.Errorf("write tables of stream %s: batch of stream %s", s.stream, b.Stream)
	}
	if lives := s.lives[b.Partition]; len(lives) == 0 || lives[len(lives)-1] != b.Incarnation {
		s.lives[b.Partition] = append(lives, b.Incarnation)
	}
	now := s.tables.now()
	s.batch++
	s.touched = s.touched[:0]
	var t *target // of the event before
	s.last, s.judged = s.last[:0], s.judged[:0]
	err := s.dec.EachIn(b, func(e *event.Event) error {
		typ := e.Type
		if s.stream == event.RejectedStream {
			typ = nil // one table, whatever the type
		}
		if t == nil || string(s.last) != string(typ) || !bytes.Equal(s.judged, e.Contract.Hash) { // events of a type mostly come together
			var err error
			if t, err = s.route(ctx, typ, e.Contract.Hash); err != nil {
				return err
			}
			s.last, s.judged = append(s.last[:0], typ...), append(s.judged[:0], e.Contract.Hash...)
		}
		if t.batch != s.batch {
			t.begin(s, b)
		}
		return t.append(s, e, b, now)
	})
	if err != nil {
		return err
	}
	s.end.Advance(b.End())
	s.account(s.touched)
	if now.Sub(s.shown) >= showInterval {
		s.show()
	}
	return nil
}

// showInterval bounds how old a Status may be between commits.
const showInterval = 250 * time.Millisecond

// route finds the target of an event, by its type and the contract that it was
// judged by: what the record says, so it goes to the same table whenever it is read.
func (s *Sink) route(ctx context.Context, typ, judged []byte) (*target, error) {
	if s.stream == event.RejectedStream {
		return s.named(ctx, event.RejectedStream)
	}
	if asked := s.lake.Shape(judged).Name(); asked != "" {
		return s.named(ctx, asked)
	}
	if t := s.types[string(typ)]; t != nil {
		return t, nil
	}
	t, err := s.named(ctx, lake.TableName(string(typ)))
	if err != nil {
		return nil, fmt.Errorf("route type %q: %w", typ, err)
	}
	if len(s.types) >= maxTypes {
		clear(s.types) // only a cache
	}
	s.types[string(typ)] = t
	return t, nil
}

// maxTypes bounds the cache of types.
const maxTypes = 10_000

// named gives the target of a table, or _other in its place.
func (s *Sink) named(ctx context.Context, name string) (*target, error) {
	if t := s.names[name]; t != nil {
		return t, nil
	}
	t, err := s.first(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", s.ident(name), err)
	}
	return t, nil
}

// first opens a table that the sink has no rows for yet, or _other in its place.
func (s *Sink) first(ctx context.Context, name string) (*target, error) {
	st, err := s.tables.log.Stat(ctx, s.stream)
	if err != nil {
		return nil, err
	}
	other := s.names[lake.OtherTable]
	var covered event.Positions // by _other, now or before it was rolled back
	if other != nil {
		if other.stopped != nil {
			return other, nil // nobody knows what it has
		}
		covered = other.state.Positions.Clone()
		for inc, parts := range other.state.RolledBack {
			for partition, off := range parts {
				covered.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	own, start, err := s.lake.Claim(ctx, s.ident(name), covered)
	if err != nil {
		return nil, err
	}
	if !own {
		if other != nil {
			return other, nil
		}
		s.tables.logger.Warn("limit of tables reached; further types go to "+lake.OtherTable,
			slog.String("stream", s.stream), slog.Int("max_tables", s.lake.Config().MaxTables))
		name = lake.OtherTable
	}
	t, err := s.open(ctx, name, st)
	if err != nil {
		return nil, err
	}
	t.start = start
	return t, nil
}

func (s *Sink) ident(name string) lake.Ident { return lake.Ident{Namespace: s.stream, Name: name} }

// account tells the lake how much memory the builders hold now.
func (s *Sink) account(changed []*target) {
	before := s.memory
	for _, t := range changed {
		held := int64(0)
		if t.builder != nil {
			held = t.builder.Bytes()
		}
		s.memory += held - t.held
		t.held = held
	}
	s.over = s.lake.HoldMemory(s.memory - before)
}

// PendingBytes implements sink.Pending: the data of the events that are not yet
// committed. When the node's memory is exceeded and this sink holds more than
// its share of it, it asks for a commit whatever the limit.
func (s *Sink) PendingBytes() int64 {
	if s.over > 0 && s.memory > s.lake.FairShare() {
		return math.MaxInt64
	}
	return s.pending
}

// Close implements sink.Sink: what was not committed is forgotten.
func (s *Sink) Close() error {
	var errs []error
	for _, t := range s.names {
		errs = append(errs, t.close(s.lake))
	}
	s.names, s.types = nil, nil
	s.lake.HoldMemory(-s.memory)
	s.memory = 0
	s.leave()
	s.tables.mu.Lock()
	delete(s.tables.mu.status, s.stream)
	s.tables.mu.Unlock()
	return errors.Join(errs...)
}

// show publishes the state of the tables.
func (s *Sink) show() {
	list := make([]Status, 0, len(s.names))
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		list = append(list, s.names[name].status())
	}
	s.shown = s.tables.now()
	s.tables.mu.Lock()
	s.tables.mu.status[s.stream] = list
	s.tables.mu.Unlock()
}
