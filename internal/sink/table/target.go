package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/stream"
)

// target is one table that rows go to.
type target struct {
	ident   lake.Ident
	stream  string // of its positions, where it is not the namespace
	handle  *iceberg.Table
	state   *iceberg.State
	start   event.Positions   // rows below belong into _other: see iceberg.Lake.Claim
	builder *columnar.Builder // nil while there are no rows

	batch int64 // of the sink: what follows holds for it
	first int64 // offsets below belong into _other
	floor int64 // offsets below are in the table
	noted bool  // oldest or blocked knows the batch's partition

	rows   int64
	tally  *lake.Tally     // of the rows since the last commit, where they are counted
	bytes  int64           // of data
	held   int64           // memory of the builder, as told to the lake
	oldest event.Positions // of the rows in the builder
	since  time.Time       // when the oldest came
	idle   time.Time       // when the builder was first seen without rows

	before   columnar.Counters // of builders that are gone
	reported map[string]int64  // rescued paths of this builder that are committed

	stopped  error           // with the cure; the table takes no rows
	blocked  event.Positions // the first events that it did not take
	judged   time.Time       // when it was last looked at
	patience time.Duration   // until it is looked at again, when more than usual
}

// Errors that stop one table; each comes with its cure.
var (
	// ErrAhead: the table has rows that the log does not have any more.
	ErrAhead = errors.New("table is ahead of the log")
	// ErrRolledBack: somebody rolled the table back, and the log no longer has
	// the rows that were taken away.
	ErrRolledBack = errors.New("table was rolled back behind what the log still has")
)

// open loads where a table stands and judges it by what the log has.
func (s *Sink) open(ctx context.Context, name string, st stream.Stat) (*target, error) {
	t := &target{ident: s.ident(name), oldest: event.Positions{}, blocked: event.Positions{}}
	t.handle = s.lake.Table(t.ident)
	state, err := t.handle.Load(ctx)
	if err == nil {
		t.state = state
		err = s.judge(t.ident, state, st)
	}
	if err == nil && state.RolledBack != nil {
		s.tables.logger.Warn("table was rolled back: its rows are read from the log again", slog.String("table", t.ident.String()),
			slog.String("from", state.Positions.String()), slog.String("to", state.RolledBack.String()))
	}
	if err != nil {
		// A file that cannot be read is the matter of its table alone, too.
		var io *fs.PathError
		if !errors.Is(err, iceberg.ErrUnfit) && !errors.Is(err, ErrAhead) && !errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrOlder) && !errors.As(err, &io) {
			return nil, err
		}
		if fault.HintOf(err) == "" {
			err = fault.WithHint(err, "make the file readable again; the other tables go on, and this one is looked at again by itself")
		}
		s.stop(t, err)
	}
	s.names[name] = t
	return t, nil
}

// judge tells why a table may not be written to, and notes what has to be read
// again of one that was rolled back.
func (s *Sink) judge(id lake.Ident, state *iceberg.State, st stream.Stat) error {
	ranges := map[event.Incarnation]map[int32]stream.Range{}
	for _, r := range st.Ranges {
		if ranges[r.Incarnation] == nil {
			ranges[r.Incarnation] = map[int32]stream.Range{}
		}
		ranges[r.Incarnation][r.Partition] = r
	}
	if err := s.judgeAhead(id, state, st.Incarnation, ranges[st.Incarnation]); err != nil {
		return err
	}
	if err := s.judgeOlder(state, st); err != nil {
		return err
	}
	if state.RolledBack == nil {
		return nil
	}
	again := event.Positions{}
	for inc, parts := range state.RolledBack {
		for partition, upTo := range parts {
			r, ok := ranges[inc][partition]
			from, known := state.Positions.Get(inc, partition)
			if !known {
				from = 0
			}
			if first, ok := state.RolledBackFrom.Get(inc, partition); ok {
				from = max(from, first)
			}
			if !ok || r.Start > from {
				return fault.WithHint(fmt.Errorf("%w: events %d to %d of partition %d are missing", ErrRolledBack, from, upTo, partition),
					"set the table's current snapshot forward again, or accept the gap by removing the table property naru.positions; then restart")
			}
			again.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: from})
		}
	}
	if s.resume == nil {
		s.resume = event.Positions{}
	}
	lower(s.resume, again)
	return nil
}

// judgeAhead refuses a table that has events which the log does not have. A
// refusal lasts although the log goes on: what it gets at these offsets from
// then on are other events, and the table would skip them. Ahead of a closed
// life of the log is no fault: its rows stay, they were cut there.
func (s *Sink) judgeAhead(id lake.Ident, state *iceberg.State, inc event.Incarnation, ranges map[int32]stream.Range) error {
	if inc.IsZero() || !state.Exists {
		return nil // one that was dropped is loaded anew: iceberg.Lake.ReloadDropped
	}
	refused, err := s.lake.Refusal(id)
	if err != nil {
		return err
	}
	var ahead error
	ends := event.Positions{}
	for _, positions := range []event.Positions{state.Positions, state.RolledBack} {
		for life, parts := range positions {
			for partition, off := range parts {
				end := int64(math.MaxInt64)
				if life == inc {
					end = ranges[partition].End
				}
				// What was refused stays so when that life of the log is closed, as in
				// a backup: the events behind are no less others than those in the table.
				if was, ok := refused.Get(life, partition); ok {
					end = min(end, was)
				}
				if off > end {
					ends.Advance(event.Position{Incarnation: life, Partition: partition, Offset: end})
					ahead = fmt.Errorf("%w: it has events up to %d of partition %d, the log ended at %d", ErrAhead, off, partition, end)
				}
			}
		}
	}
	if len(ends) > 0 || len(refused) > 0 {
		if err := s.lake.Refuse(id, ends); err != nil {
			return err
		}
	}
	if ahead == nil {
		return nil
	}
	return fault.WithHint(ahead, "the log was reset or comes from an older backup: bring back the log that belongs to this table and remove lake/%s from the data folder; or load the table anew from what the log has: stop the server and run naru table reload %s",
		iceberg.RefusedFile, id)
}

// lower moves positions down to others where those are smaller or alone.
func lower(p, to event.Positions) {
	for inc, parts := range to {
		for partition, off := range parts {
			if have, ok := p.Get(inc, partition); ok && have <= off {
				continue
			}
			if p[inc] == nil {
				p[inc] = map[int32]int64{}
			}
			p[inc][partition] = off
		}
	}
}

// stop keeps the table from taking rows. Others go on; the stream's watermark
// waits at the table's first event that is not in it.
func (s *Sink) stop(t *target, err error) {
	s.tables.logger.Error("table stopped", slog.String("table", t.ident.String()), slog.Any("error", err), slog.String("hint", fault.HintOf(err)))
	t.stopped, t.judged = err, s.tables.now()
	lower(t.blocked, t.oldest)
	s.pending -= t.bytes
	t.rows, t.bytes, t.oldest = 0, 0, event.Positions{}
	s.lake.Rate.Forget(t.ident)
	if t.builder != nil {
		if err := t.builder.Reset(nil); err != nil {
			s.tables.logger.Warn("remove files of uncommitted rows", slog.String("table", t.ident.String()), slog.Any("error", err))
		}
		t.builder = nil
	}
}

// begin looks up once a batch what would else be looked up for each event.
func (t *target) begin(s *Sink, b *event.Batch) {
	t.batch, t.floor, t.noted = s.batch, 0, false
	t.first, _ = t.start.Get(b.Incarnation, b.Partition)
	s.touched = append(s.touched, t)
	if t.stopped != nil {
		_, t.noted = t.blocked.Get(b.Incarnation, b.Partition)
		return
	}
	t.floor, _ = t.state.Positions.Get(b.Incarnation, b.Partition)
	_, t.noted = t.oldest.Get(b.Incarnation, b.Partition)
}

// append adds an event as a row, unless the table has it.
func (t *target) append(s *Sink, e *event.Event, b *event.Batch, now time.Time) error {
	if e.Offset < t.first {
		other := s.names[lake.OtherTable]
		if other == nil {
			return nil // it was dropped, with all its rows
		}
		if other.batch != s.batch {
			other.begin(s, b)
		}
		return other.append(s, e, b, now)
	}
	if e.Offset < t.floor {
		return nil
	}
	if !t.noted {
		first := t.oldest
		if t.stopped != nil {
			first = t.blocked
		}
		first.Advance(event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset})
		t.noted = true
	}
	if t.stopped != nil {
		return nil
	}
	if t.builder == nil {
		t.build(s.lake)
	}
	if t.rows == 0 {
		t.since = now
	}
	size := rowBytes + int64(len(e.Data))
	if e.Refusal != nil {
		size += int64(len(e.Refusal.Original))
	}
	t.rows, t.bytes, s.pending = t.rows+1, t.bytes+size, s.pending+size
	if err := t.builder.Append(e, b.Incarnation, b.Partition); err != nil {
		return fmt.Errorf("append to %s: %w", t.ident, err)
	}
	return nil
}

// rowBytes stands for an event's envelope in PendingBytes. With it the default of
// pipelines.commit_bytes is no more than a million events, however small: as many as
// the hot tail shows (hot_tail.events).
const rowBytes = 256

// FirstSchema has the columns of a table before its first event.
func FirstSchema(id lake.Ident) *columnar.Schema {
	switch {
	case id.Namespace == event.RejectedStream:
		return columnar.NewRejectedSchema()
	case id.Name == lake.OtherTable:
		return columnar.NewWholeSchema()
	}
	return columnar.NewSchema()
}

func (t *target) build(l *iceberg.Lake) {
	schema := t.state.Schema
	if schema == nil {
		schema = FirstSchema(t.ident)
	}
	made := t.state // Path is called by the encoder; the folder stays the same
	t.builder = columnar.NewBuilder(l.FS(), schema, columnar.Options{
		Path:           func(folder string) string { return t.handle.DataPath(made, folder) },
		Create:         l.CreateFile,
		AllowPromotion: func(id int) bool { return t.handle.AllowPromotion(t.state, id) },
		Writers:        l.Writers,
		Shape:          l.Shape,
		Arrangement:    t.state.Arrangement,
		MaxPartitions:  l.Config().MaxPartitions,
	})
	t.reported = map[string]int64{}
}

// caughtUp tells whether a table that was rolled back has got to where it was,
// without a row of its own at the end. Only a commit keeps the next start from
// reading all that again.
func (t *target) caughtUp(end event.Positions) bool {
	if t.stopped != nil || t.state.RolledBack == nil || t.rows > 0 {
		return false
	}
	for inc, parts := range t.state.RolledBack {
		for partition, upTo := range parts {
			if off, ok := end.Get(inc, partition); !ok || off < upTo {
				return false
			}
		}
	}
	return true
}

// commit writes the rows' files and adds them to the table.
func (t *target) commit(ctx context.Context, l *iceberg.Lake, end event.Positions) error {
	if t.builder == nil {
		t.build(l)
	}
	var files []columnar.DataFile
	asked := t.builder.Asked()
	if t.rows > 0 {
		var err error
		if files, err = t.builder.Finish(ctx); err != nil {
			return fmt.Errorf("write files of %s: %w", t.ident, err)
		}
	}
	positions := t.state.Positions.Clone()
	for inc, parts := range end {
		for partition, off := range parts {
			positions.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	rescued, seen := t.newRescued()
	state, err := t.handle.Commit(ctx, iceberg.Commit{Base: t.state, Files: files, Schema: t.builder.Schema().Clone(),
		Positions: positions, Asked: asked, Rescued: rescued, Stream: t.stream, Rows: t.tally})
	if err != nil {
		return err
	}
	t.state, t.reported = state, seen
	if t.tally != nil {
		*t.tally = lake.Tally{}
	}
	t.rows, t.since, t.oldest = 0, time.Time{}, event.Positions{}
	if !t.builder.Schema().Equal(state.Schema) {
		if err := t.builder.Reset(state.Schema); err != nil {
			return fmt.Errorf("adopt columns of %s: %w", t.ident, err)
		}
	}
	return nil
}

// newRescued are the counts of rescued paths since the last commit.
func (t *target) newRescued() (fresh []lake.PathCount, seen map[string]int64) {
	seen = map[string]int64{}
	for _, p := range t.builder.TopRescued() {
		seen[p.Path] = p.Count
		if n := p.Count - t.reported[p.Path]; n > 0 {
			fresh = append(fresh, lake.PathCount{Path: p.Path, Count: n})
		}
	}
	return fresh, seen
}

// release frees the builder's memory; there must be no rows in it.
func (t *target) release() {
	if t.builder == nil || t.rows > 0 {
		return
	}
	t.before = t.counters()
	t.builder = nil
}

func (t *target) counters() columnar.Counters {
	c := t.before
	if t.builder != nil {
		b := t.builder.Counters()
		c.Rows += b.Rows
		c.Rescued += b.Rescued
		c.UnfitNumbers += b.UnfitNumbers
		c.Unpromoted += b.Unpromoted
		c.ClampedTimes += b.ClampedTimes
		c.NotJSON += b.NotJSON
	}
	return c
}

func (t *target) status() Status {
	c := t.counters()
	s := Status{Table: t.ident, Rows: t.rows, Bytes: t.bytes, Since: t.since, Rescued: c.Rescued,
		UnfitNumbers: c.UnfitNumbers, Unpromoted: c.Unpromoted, ClampedTimes: c.ClampedTimes}
	if t.stopped != nil {
		s.Error, s.Hint = t.stopped.Error(), fault.HintOf(t.stopped)
	}
	return s
}

func (t *target) close(l *iceberg.Lake) error {
	l.Rate.Forget(t.ident)
	if t.builder == nil {
		return nil
	}
	if err := t.builder.Reset(nil); err != nil {
		return fmt.Errorf("forget rows of %s: %w", t.ident, err)
	}
	return nil
}
