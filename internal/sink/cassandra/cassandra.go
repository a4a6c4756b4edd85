package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// What one request has at most. Cassandra warns at 5 KiB of a batch and refuses
// 50 KiB (batch_size_fail_threshold).
const (
	requestRows  = 50
	requestBytes = 16 << 10
	waitingBytes = 4 << 20 // of rows, before they are sent
)

// Sink writes into one table. Rows are sent when enough wait, and at Commit.
type Sink struct {
	cfg    *Settings
	writer string // begins the keys of the clocks
	db     database
	dec    recordbatch.Decoder

	end     event.Positions
	table   []column
	shapes  []*shape         // of the rows that wait
	clocks  map[string]int64 // bases, by incarnation and partition
	rows    []pending
	bytes   int64
	broken  bool
	waiting []sink.Refusal // of what was written since the last commit
	refused []sink.Refusal // not yet told to the pipeline
}

// pending is a row that waits.
type pending struct {
	at             event.Position
	row            int32
	shape          *shape
	values         []any // with the timestamp
	size           int
	place, primary string // partition and primary key
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
	_ sink.Refuser = (*Sink)(nil)
)

func open(ctx context.Context, cfg *Settings, env sink.Env, db database) (_ *Sink, err error) {
	s := &Sink{cfg: cfg, db: db, writer: fmt.Sprintf("%s:%s:%d", env.Reader, env.Stream, cfg.Generation), end: event.Positions{}, clocks: map[string]int64{}}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	own, err := db.Columns(ctx, clocks)
	if err == nil && len(own) == 0 {
		err = db.Define(ctx, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s (writer text PRIMARY KEY, base bigint)", quote(cfg.Keyspace), clocks))
	}
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("open keyspace %s: %w", cfg.Keyspace, err),
			"the keyspace must exist, and the table %s in it, or the right to make it: writer text PRIMARY KEY, base bigint", clocks)
	}
	if s.table, err = db.Columns(ctx, s.cfg.Table); err != nil {
		return nil, err
	}
	if len(s.table) == 0 && !cfg.Create {
		return nil, fault.WithHint(fmt.Errorf("open table %s.%s: it does not exist", cfg.Keyspace, cfg.Table), "create it, or set create: true")
	}
	return s, nil
}

var errBroken = errors.New("write to cassandra: the sink has failed before")

// Write implements sink.Sink.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	if s.broken {
		return errBroken
	}
	if err := s.write(ctx, b); err != nil {
		s.broken = true
		return err
	}
	s.end.Advance(b.End())
	return nil
}

func (s *Sink) write(ctx context.Context, b *event.Batch) error {
	var sh *shape
	last := int64(-1)
	return s.dec.EachIn(b, func(e *event.Event) (err error) {
		if sh == nil { // a batch may be without rows, and then need no columns
			if sh, err = s.shapeOf(ctx, b.Columns); err != nil {
				return err
			}
		}
		// Rows of one event stay together: of those under one key the last counts.
		if e.Offset != last && (len(s.rows) >= s.cfg.Batch || s.bytes >= waitingBytes) {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		last = e.Offset
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		return s.add(ctx, sh, at, e)
	})
}

func (s *Sink) add(ctx context.Context, sh *shape, at event.Position, e *event.Event) error {
	values, size, place, primary, why := sh.values(e, at.Partition, string(sink.AppendKey(nil, e.Place(at), e.Row)))
	if why != "" {
		s.refuse(at, e.Row, why)
		return nil
	}
	base, err := s.clock(ctx, at)
	if err != nil {
		return err
	}
	p := pending{at: at, row: e.Row, shape: sh, values: append(values, base+at.Offset), size: size, place: place, primary: primary}
	for i := len(s.rows) - 1; i >= 0 && s.rows[i].at == at; i-- {
		if s.rows[i].primary == primary { // they have one timestamp: it would not say who is the later
			s.rows[i] = p
			return nil
		}
	}
	s.rows = append(s.rows, p)
	s.bytes += int64(size)
	return nil
}

// clock gives the base of the timestamps of a partition of the log: a row's is base
// and offset, in microseconds. It is fixed when the first row comes, so that this row
// is written as of then: earlier ones are as of before, later ones as of after, and
// what others write or delete by their clock falls into its place.
func (s *Sink) clock(ctx context.Context, at event.Position) (int64, error) {
	key := fmt.Sprintf("%s:%s/%d", s.writer, at.Incarnation, at.Partition)
	if base, ok := s.clocks[key]; ok {
		return base, nil
	}
	base, err := s.db.Clock(ctx, key, time.Now().UnixMicro()-at.Offset)
	if err != nil {
		return 0, err
	}
	s.clocks[key] = base
	return base, nil
}

// shapeOf lays the columns of a batch over the table, which is made or gets columns
// if it may.
func (s *Sink) shapeOf(ctx context.Context, columns []event.Column) (*shape, error) {
	if len(columns) == 0 {
		return nil, fault.WithHint(fmt.Errorf("write to table %s: the rows have no columns", s.cfg.Table), "let the last step select some")
	}
	if n := len(s.shapes); n > 0 && slices.Equal(s.shapes[n-1].columns, columns) {
		return s.shapes[n-1], nil
	}
	for again := false; ; again = true {
		var missing []event.Column
		if len(s.table) > 0 {
			var sh *shape
			sh, missing = newShape(s.cfg, slices.Clone(columns), s.table)
			if err := sh.writable(); err != nil {
				return nil, fault.WithHint(fmt.Errorf("write to table %s: %w", s.cfg.Table, err), "leave the column out in the last step")
			}
			if len(missing) == 0 {
				s.shapes = append(s.shapes, sh)
				return sh, nil
			}
		}
		switch {
		case again:
			return nil, fmt.Errorf("write to table %s: it still has no column %s", s.cfg.Table, missing[0].Name)
		case !s.cfg.Create:
			return nil, fault.WithHint(fmt.Errorf("write to table %s: it has no column %s", s.cfg.Table, missing[0].Name),
				"add the column, leave it out in the last step, or set create: true")
		}
		if err := s.define(ctx, columns, missing); err != nil {
			return nil, err
		}
	}
}

func (s *Sink) define(ctx context.Context, columns, missing []event.Column) (err error) {
	var statements []string
	if len(s.table) == 0 {
		create, err := createTable(s.cfg, columns)
		if err != nil {
			return fault.WithHint(err, "correct partition or cluster of the sink, or what the last step selects")
		}
		statements = append(statements, create)
	}
	for _, c := range missing {
		statements = append(statements, fmt.Sprintf("ALTER TABLE %s.%s ADD %s %s", quote(s.cfg.Keyspace), quote(s.cfg.Table), quote(c.Name), typeOf(c.Type)))
	}
	var failed error
	for _, st := range statements {
		failed = errors.Join(failed, s.db.Define(ctx, st))
	}
	if s.table, err = s.db.Columns(ctx, s.cfg.Table); err != nil {
		return errors.Join(failed, err)
	}
	// Another writer may have made the column a moment before: what counts is that
	// the table has it now.
	_, missing = newShape(s.cfg, columns, s.table)
	if len(s.table) == 0 || len(missing) > 0 {
		return errors.Join(failed, fmt.Errorf("change table %s: it is without a column that rows have", s.cfg.Table))
	}
	return nil
}

// flush sends the rows that wait: those of one partition together, several
// partitions at a time. Their order does not matter, since each has its timestamp.
func (s *Sink) flush(ctx context.Context) error {
	groups := s.groups()
	work := make(chan []int)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []int // rows that the cluster does not take
	why := map[int]string{}
	for range min(s.cfg.InFlight, len(groups)) {
		wg.Go(func() {
			for g := range work {
				err := s.insert(ctx, g, func(i int, text string) {
					mu.Lock()
					defer mu.Unlock()
					bad = append(bad, i)
					why[i] = text
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, g := range groups {
		select {
		case work <- g:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(bad) > 0 {
		if err := s.unchanged(ctx, why[bad[0]]); err != nil {
			return err
		}
	}
	slices.Sort(bad)
	for _, i := range bad {
		s.refuse(s.rows[i].at, s.rows[i].row, why[i])
	}
	s.rows, s.bytes, s.shapes = s.rows[:0], 0, s.shapes[max(len(s.shapes)-1, 0):]
	return nil
}

// groups cuts the rows into requests, each within one partition and of one statement.
func (s *Sink) groups() (groups [][]int) {
	type target struct {
		shape *shape
		place string
	}
	open := map[target]int{} // in groups
	sizes := []int{}
	for i := range s.rows {
		p := &s.rows[i]
		t := target{p.shape, p.place}
		g, ok := open[t]
		if !ok || len(groups[g]) >= requestRows || sizes[g]+p.size > requestBytes {
			g = len(groups)
			open[t], groups, sizes = g, append(groups, nil), append(sizes, 0)
		}
		groups[g], sizes[g] = append(groups[g], i), sizes[g]+p.size
	}
	return groups
}

// insert writes the rows of a group; one by one if the cluster does not take them
// together, so that only those are refused that are to blame.
func (s *Sink) insert(ctx context.Context, group []int, refuse func(i int, why string)) error {
	values := make([][]any, len(group))
	for n, i := range group {
		values[n] = s.rows[i].values
	}
	err := s.db.Insert(ctx, s.rows[group[0]].shape.statement, values)
	var invalid *errInvalid
	switch {
	case !errors.As(err, &invalid):
		return err
	case len(group) == 1:
		refuse(group[0], invalid.text)
		return nil
	}
	for _, i := range group {
		if err := s.insert(ctx, []int{i}, refuse); err != nil {
			return err
		}
	}
	return nil
}

// unchanged makes sure that it is the rows that are wrong: a table that was changed
// or dropped refuses every one.
func (s *Sink) unchanged(ctx context.Context, why string) error {
	now, err := s.db.Columns(ctx, s.cfg.Table)
	if err != nil {
		return err
	}
	if !slices.Equal(now, s.table) {
		return fault.Transient(fmt.Errorf("write to table %s: it was changed: %s", s.cfg.Table, why))
	}
	return nil
}

func (s *Sink) refuse(at event.Position, row int32, why string) {
	s.waiting = append(s.waiting, sink.Refusal{At: at, Row: row, Detail: why})
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if s.broken {
		return nil, errBroken
	}
	if err := s.flush(ctx); err != nil {
		s.broken = true
		return nil, err
	}
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return s.end.Clone(), nil
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return s.bytes }

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	r := s.refused
	s.refused = nil
	return r
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	s.rows, s.bytes = nil, 0
	s.db.Close()
	return nil
}
