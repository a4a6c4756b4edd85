package table

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// Kind is `table: NAME` in `to:` of a pipeline, over this lake. Its tables stand in
// the namespace of the pipeline's name.
func (t *Tables) Kind() sink.Kind {
	return sink.Kind{Name: "table", Short: "table", Settings: func() sink.Settings { return &Settings{tables: t} },
		Guarantee: "exactly once: positions are part of each commit of the table"}
}

// Settings of the sink.
type Settings struct {
	Table string `yaml:"table"`

	tables *Tables
}

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	switch {
	case s.Table == "":
		return errors.New("table: is missing")
	case lake.TableName(s.Table) != s.Table || strings.HasPrefix(s.Table, "_"):
		return fmt.Errorf("table: %q is no name of a table: lower case letters of any script, digits and _, not _ first; write %s", s.Table, strings.TrimLeft(lake.TableName(s.Table), "_"))
	case strings.HasSuffix(s.Table, shadowSuffix), strings.HasSuffix(s.Table, formerSuffix):
		return fmt.Errorf("table: names that end with %s or %s are those of backfills", shadowSuffix, formerSuffix)
	}
	return nil
}

// Owns says what only one sink may write to.
func (s *Settings) Owns(pipeline string) string {
	return "table " + lake.Ident{Namespace: Namespace(pipeline), Name: s.Table}.String()
}

// Namespace is where the tables of a pipeline stand.
func Namespace(pipeline string) string { return strings.ReplaceAll(pipeline, "-", "_") }

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	t := s.tables
	id := lake.Ident{Namespace: Namespace(env.Pipeline), Name: s.Table}
	if _, err := t.log.Stat(ctx, id.Namespace); err == nil || event.RejectedStream == id.Namespace || event.RejectedStates == id.Namespace {
		return nil, fault.WithHint(fmt.Errorf("open table %s: a stream has that name, and its tables that namespace", id), "give the pipeline's file another name")
	}
	handle := t.lake.Table(id)
	state, err := handle.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	st, err := t.log.Stat(ctx, env.Stream)
	if err != nil && !errors.Is(err, stream.ErrNoStream) {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	for _, r := range st.Ranges {
		if off, ok := state.Positions.Get(r.Incarnation, r.Partition); ok && r.Incarnation == st.Incarnation && off > r.End {
			return nil, fault.WithHint(fmt.Errorf("%w: table %s has events up to %d of partition %d, the log ended at %d", ErrAhead, id, off, r.Partition, r.End),
				"the log was reset or comes from an older backup: bring back the log that belongs to this table, or rewind the pipeline: naru pipeline rewind %s", env.Pipeline)
		}
	}
	at, err := t.log.Progress(ctx, env.Reader)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", id, err)
	}
	single := &Single{fresh: at.Counts.Written == 0, lake: t.lake, now: t.now, stream: env.Stream, to: &target{ident: id, stream: env.Stream, handle: handle, state: state, oldest: event.Positions{}, blocked: event.Positions{}, tally: &lake.Tally{}},
		end: event.Positions{}, log: st, shapes: map[string][]byte{}}
	single.leave = t.lake.Join()
	return single, nil
}

// Single is the sink of one table of a configured pipeline.
type Single struct {
	lake   *iceberg.Lake
	now    func() time.Time
	stream string
	to     *target
	leave  func()
	dec    recordbatch.Decoder
	end    event.Positions
	fresh  bool        // nothing was ever written by this pipeline
	log    stream.Stat // when it was opened
	shapes map[string][]byte
	data   []byte // of a row
	rows   int64
	bytes  int64
	memory int64
	over   int64
}

var (
	_ sink.Sink    = (*Single)(nil)
	_ sink.Resumer = (*Single)(nil)
	_ sink.Drainer = (*Single)(nil)
	_ sink.Pending = (*Single)(nil)
)

// Resume implements sink.Resumer: a table that lost rows, or is not there, takes them
// again from where it stands.
func (s *Single) Resume(_ context.Context, streamName string) (event.Positions, error) {
	if streamName != s.stream || s.fresh || s.to.state.Exists && s.to.state.RolledBack == nil {
		return nil, nil // the watermark is not ahead of it
	}
	from := s.to.state.Positions.Clone()
	for _, r := range s.log.Ranges {
		if _, ok := from.Get(r.Incarnation, r.Partition); !ok {
			from.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start})
		}
	}
	return from, nil
}

// Write implements sink.Sink.
func (s *Single) Write(_ context.Context, b *event.Batch) error {
	t := s.to
	floor, _ := t.state.Positions.Get(b.Incarnation, b.Partition)
	hash, err := s.shape(b.Columns)
	if err != nil {
		return err
	}
	if t.builder == nil {
		t.build(s.lake)
	}
	if err := s.append(b, floor, hash); err != nil {
		return fmt.Errorf("append to %s: %w", t.ident, err)
	}
	s.end.Advance(b.End())
	s.account()
	return nil
}

// append adds the rows at or behind floor. Those that are columns already stay so.
func (s *Single) append(b *event.Batch, floor int64, hash []byte) error {
	add := func(e *event.Event, cells *columnar.Frame, row int) error {
		if hash != nil {
			e.Contract.Hash, e.JSONStrings = hash, nil
		}
		if s.rows == 0 {
			s.to.since = s.now()
		}
		s.rows++
		at := e.Place(event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset})
		s.to.tally.Add(at)
		e.Offset = at.Offset
		if cells != nil {
			size, err := s.to.builder.AppendCells(e, cells, row, at.Incarnation, at.Partition)
			s.bytes += int64(rowBytes + size)
			return err
		}
		s.bytes += int64(rowBytes + len(e.Data))
		return s.to.builder.Append(e, at.Incarnation, at.Partition)
	}
	if b.Rows == nil {
		return s.dec.EachIn(b, func(e *event.Event) error {
			if e.Offset < floor {
				return nil
			}
			of := *e
			return add(&of, nil, 0)
		})
	}
	var e event.Event
	for i, r := range b.Rows.List {
		if r.Offset < floor || r.Offset < b.From {
			continue
		}
		var err error
		if framed, ok := b.Rows.Frames[r.Frame].(columnar.Framed); ok {
			e.Contract.Hash = nil // which the row before had; so it need not all be cleared
			b.Rows.Head(i, &e)
			err = add(&e, framed.Cells(), int(r.At))
		} else {
			s.data = b.Rows.Event(i, &e, s.data)
			err = add(&e, nil, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// account tells the lake how much memory the builder holds now.
func (s *Single) account() {
	held := int64(0)
	if s.to.builder != nil {
		held = s.to.builder.Bytes()
	}
	s.over = s.lake.HoldMemory(held - s.memory)
	s.memory = held
}

// shape makes the types of columns known to the lake, by a hash that the rows then
// name as their contract's.
func (s *Single) shape(columns []event.Column) ([]byte, error) {
	if len(columns) == 0 {
		return nil, nil
	}
	shape := &lake.Shape{}
	for _, c := range columns {
		if !event.InEnvelope(c.Name) {
			shape.Columns = append(shape.Columns, lake.ShapeColumn{Path: c.Name, Kind: string(c.Type), UTC: true})
		}
	}
	text, err := json.Marshal(shape)
	if err != nil {
		return nil, err
	}
	if hash, ok := s.shapes[string(text)]; ok {
		return hash, nil
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:8])
	if err := s.lake.KeepShapes(map[string]*lake.Shape{hash: shape}); err != nil {
		return nil, fmt.Errorf("keep column types of %s: %w", s.to.ident, err)
	}
	s.shapes[string(text)] = []byte(hash)
	return []byte(hash), nil
}

// PendingBytes implements sink.Pending.
func (s *Single) PendingBytes() int64 {
	if s.over > 0 && s.memory > s.lake.FairShare() {
		return 1 << 62
	}
	return s.bytes
}

// Commit implements sink.Sink, within the node's commit rate.
func (s *Single) Commit(ctx context.Context) (event.Positions, error) {
	if s.rows > 0 && !s.lake.Rate.Take(s.to.ident, s.to.since, s.now()) && s.over <= 0 {
		return s.to.state.Positions.Clone(), nil // the rest waits for its turn
	}
	return s.Drain(ctx)
}

// Drain implements sink.Drainer.
func (s *Single) Drain(ctx context.Context) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.rows == 0 && s.to.state.RolledBack == nil {
		return s.end.Clone(), nil // a table without new rows does not commit
	}
	s.to.rows = s.rows
	if err := s.to.commit(ctx, s.lake, s.end); err != nil {
		return nil, err
	}
	if s.rows <= fewRows || s.over > 0 {
		s.to.release() // buffers of its own for each of many small tables would add up
	}
	s.rows, s.bytes = 0, 0
	s.account()
	return s.end.Clone(), nil
}

// fewRows are so few that the buffers for the next ones are made anew.
const fewRows = 4096

// Close implements sink.Sink.
func (s *Single) Close() error {
	s.lake.HoldMemory(-s.memory)
	s.memory = 0
	s.leave()
	return s.to.close(s.lake)
}
