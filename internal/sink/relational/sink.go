package relational

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/sink"
)

// Config is what a sink needs to know beside its database.
type Config struct {
	Stream string
	Target string   // the table, for people
	Key    []string // columns by which a row replaces an older one; none: rows are appended
	RowKey string   // the column that gets the row's key (sink.AppendKey); empty: none
	// What one statement takes at most; a row that is larger has one of its own.
	StatementBytes, StatementRows int
}

// Sink writes rows into a Database. It is exact.
type Sink struct {
	db       Database
	cfg      Config
	dec      recordbatch.Decoder
	base     event.Positions // the database's
	end      event.Positions // behind what was written to this sink
	parts    []*part
	held     int64
	refused  []sink.Refusal
	prepared event.Positions // in an open transaction, to be committed; nil: none
	broken   error           // what has failed: nothing can be relied on
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Resumer  = (*Sink)(nil)
	_ sink.Pending  = (*Sink)(nil)
	_ sink.Refuser  = (*Sink)(nil)
	_ sink.Preparer = (*Sink)(nil)
)

// Open makes a sink of a database. An error closes it.
func Open(ctx context.Context, db Database, cfg Config) (*Sink, error) {
	at, err := db.Load(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Sink{db: db, cfg: cfg, base: at.Clone(), end: event.Positions{}}, nil
}

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if stream != s.cfg.Stream || len(s.base) == 0 {
		return nil, nil
	}
	return s.base.Clone(), nil
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return s.held }

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	told := s.refused
	s.refused = nil
	return told
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	s.parts, s.held = nil, 0
	return s.db.Close()
}

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	if s.broken != nil {
		return fmt.Errorf("write %s after a failure: %w", s.cfg.Target, s.broken)
	}
	if s.prepared != nil {
		return fmt.Errorf("write %s: what was prepared is not committed yet", s.cfg.Target)
	}
	p, err := s.partOf(b.Columns)
	if err != nil {
		return err
	}
	before := len(p.data) + len(p.places)*placeBytes
	err = s.dec.EachIn(b, func(e *event.Event) error {
		at := place{at: event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}, row: e.Row}
		if !s.base.Covers(at.at) && !s.end.Covers(at.at) {
			p.add(s.db, e, at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.held += int64(len(p.data) + len(p.places)*placeBytes - before)
	s.end.Advance(b.End())
	return nil
}

// partOf finds where rows with these columns go: to the last part, or to a new one.
func (s *Sink) partOf(columns []event.Column) (*part, error) {
	if n := len(s.parts); n > 0 && slices.Equal(s.parts[n-1].given, columns) {
		return s.parts[n-1], nil
	}
	p := &part{given: columns, columns: columns, reader: row.NewReader(columns)}
	if s.cfg.RowKey != "" {
		p.columns = append(slices.Clone(columns), event.Column{Name: s.cfg.RowKey, Type: event.StringColumn})
		p.named = true
	}
	if s.cfg.RowKey != "" && slices.ContainsFunc(columns, func(c event.Column) bool { return strings.EqualFold(c.Name, s.cfg.RowKey) }) {
		return nil, fault.WithHint(fmt.Errorf("write %s: the rows have a column %s of their own", s.cfg.Target, s.cfg.RowKey), "give row_key another name, or the column")
	}
	if len(columns) == 0 {
		return nil, fault.WithHint(fmt.Errorf("write %s: the rows have no columns", s.cfg.Target), "let the last step select some")
	}
	for _, name := range s.cfg.Key {
		i := slices.IndexFunc(p.columns, func(c event.Column) bool { return c.Name == name })
		if i < 0 {
			return nil, fault.WithHint(fmt.Errorf("write %s: its key has the column %s, which the rows have not", s.cfg.Target, name),
				"add %s to what the last step selects, or change key in the pipeline's file", name)
		}
		p.keys = append(p.keys, i)
	}
	s.parts = append(s.parts, p)
	return p, nil
}

// Prepare implements sink.Preparer: it opens the transaction and writes the rows.
func (s *Sink) Prepare(ctx context.Context) error {
	if s.broken != nil {
		return fmt.Errorf("commit %s after a failure: %w", s.cfg.Target, s.broken)
	}
	if s.prepared != nil {
		return nil
	}
	moved := event.Positions{}
	for inc, parts := range s.end {
		for partition, off := range parts {
			if have, ok := s.base.Get(inc, partition); !ok || have < off {
				moved.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	if len(moved) == 0 {
		s.parts = nil // nothing but rows that the database has
		return nil
	}
	if err := s.transact(ctx, moved); err != nil {
		s.broken = err
		return err
	}
	s.prepared = moved
	return nil
}

// transact does everything of a transaction but its commit.
func (s *Sink) transact(ctx context.Context, moved event.Positions) error {
	for _, p := range s.parts {
		if len(p.places) > 0 {
			if err := s.db.Shape(ctx, p.columns); err != nil {
				return err
			}
		}
	}
	have, err := s.db.Begin(ctx, moved)
	if err != nil {
		return err
	}
	if err := s.alone(have, moved); err != nil {
		return err
	}
	for _, p := range s.parts {
		for i, at := range p.places {
			if p.ends[i] == p.start(i) {
				s.refuse(at, "a column of the key is null")
			}
		}
		for from := 0; from < len(p.places); {
			to := p.cut(from, s.cfg)
			if err := s.insert(ctx, p, from, to); err != nil {
				return err
			}
			from = to
		}
	}
	return nil
}

// alone tells whether the database is where this sink has left it. It is not when
// another process writes as the same reader, or when it was set back to an older
// copy: both are read again from what it holds now.
func (s *Sink) alone(have, moved event.Positions) error {
	for inc, parts := range moved {
		for partition := range parts {
			now, some := have.Get(inc, partition)
			last, known := s.base.Get(inc, partition)
			if some != known || now != last {
				return fault.WithHint(fault.Transient(fmt.Errorf("commit %s: another writer has moved partition %d to %d, this one continues from %d; nothing was written",
					s.cfg.Target, partition, now, last)), "see that only one server runs this pipeline on this log; reading goes on from where the table is")
			}
		}
	}
	return nil
}

// insert writes the rows [from, to) in their order, but for those that are refused:
// they are found by halves.
func (s *Sink) insert(ctx context.Context, p *part, from, to int) error {
	data, n := p.rows(from, to)
	if n == 0 {
		return nil
	}
	err := s.db.Insert(ctx, p.columns, data, n)
	var bad *RowError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &bad):
		return err
	case to-from == 1:
		s.refuse(p.places[from], bad.Error())
		return nil
	}
	half := (from + to) / 2
	if err := s.insert(ctx, p, from, half); err != nil {
		return err
	}
	return s.insert(ctx, p, half, to)
}

func (s *Sink) refuse(at place, detail string) {
	s.refused = append(s.refused, sink.Refusal{At: at.at, Row: at.row, Detail: detail})
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := s.Prepare(ctx); err != nil {
		return nil, err
	}
	if s.prepared != nil {
		if err := s.db.Commit(ctx, s.prepared); err != nil {
			s.broken = err
			return nil, err
		}
		for inc, parts := range s.prepared {
			for partition, off := range parts {
				s.base.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
		s.prepared = nil
	}
	s.parts, s.held = nil, 0
	return s.end.Clone(), nil
}

// part is a run of rows that have the same columns.
type part struct {
	given   []event.Column // that the rows come with
	columns []event.Column // of the table
	reader  *row.Reader
	named   bool  // the last column is the row's own key
	keys    []int // places of the key's columns
	data    []byte
	ends    []int // of each row in data; a row without a key is empty
	places  []place
}

// place names a row for good.
type place struct {
	at  event.Position
	row int32
}

// placeBytes is what a row holds beside its data.
const placeBytes = 56

// add encodes a row.
func (p *part) add(db Database, e *event.Event, at place) {
	values := p.reader.Values(e, at.at.Partition)
	if p.named {
		values = append(values[:len(p.given):len(p.given)], string(sink.AppendKey(nil, e.Place(at.at), at.row)))
	}
	p.places = append(p.places, at)
	// A null in a key is equal to nothing, so each write would add the row anew.
	if !slices.ContainsFunc(p.keys, func(i int) bool { return values[i] == nil }) {
		p.data = db.AppendRow(p.data, p.columns, values)
	}
	p.ends = append(p.ends, len(p.data))
}

func (p *part) start(i int) int {
	if i == 0 {
		return 0
	}
	return p.ends[i-1]
}

// rows are the rows [from, to) as one text, and how many of them are in it.
func (p *part) rows(from, to int) (data []byte, n int) {
	for i := from; i < to; i++ {
		if p.ends[i] > p.start(i) {
			n++
		}
	}
	return p.data[p.start(from):p.ends[to-1]], n
}

// cut is the end of what one statement takes from row from on.
func (p *part) cut(from int, cfg Config) int {
	to := from + 1
	for to < len(p.places) && to-from < cfg.StatementRows && p.ends[to]-p.start(from) <= cfg.StatementBytes {
		to++
	}
	return to
}
