package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// life is one partition in one life of the log.
type life struct {
	inc       event.Incarnation
	partition int32
}

func (l life) at(offset int64) event.Position {
	return event.Position{Incarnation: l.inc, Partition: l.partition, Offset: offset}
}

// mark is what naru_positions says of a life: the offsets [from, to) are inserted, or
// were put down to be. Its name goes up with each mark.
type mark struct {
	from, to int64
	done     bool
	seq      uint64
}

// base is the first offset that is surely not inserted yet.
func (m mark) base() int64 {
	if m.done {
		return m.to
	}
	return m.from
}

// Sink inserts rows. What it has put down and may have inserted is inserted again
// under the same name, as the same rows: the range of offsets says which.
type Sink struct {
	set    *Settings
	env    sink.Env
	client *client
	writer string // names this sink in naru_positions
	table  string // quoted
	states string // naru_positions, quoted

	dec      recordbatch.Decoder
	marks    map[life]mark
	begin    map[life]int64 // where the first batch began
	end      map[life]int64 // behind what was written to this sink
	order    []life         // as they came
	queues   map[life]*queue
	columns  map[string]bool // of the table, once known
	checked  bool            // the table for rows that are refused is as the table
	refused  []sink.Refusal
	prepared map[life]mark // inserted, and not marked as done
	broken   error
	rewinds  int64 // how often the marks were taken back
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Resumer  = (*Sink)(nil)
	_ sink.Pending  = (*Sink)(nil)
	_ sink.Refuser  = (*Sink)(nil)
	_ sink.Preparer = (*Sink)(nil)
)

func newSink(set *Settings, env sink.Env, c *client) *Sink {
	var id [8]byte
	rand.Read(id[:]) //nolint:errcheck // it never fails
	states := positionsTable
	if db, _, ok := strings.Cut(set.Table, "."); ok {
		states = db + "." + positionsTable
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sink{set: set, env: env, client: c, writer: hex.EncodeToString(id[:]), table: quoteName(set.Table), states: quoteName(states),
		marks: map[life]mark{}, begin: map[life]int64{}, end: map[life]int64{}, queues: map[life]*queue{}}
}

// load reads the marks.
func (s *Sink) load(ctx context.Context) error {
	if err := s.needStates(ctx); err != nil {
		return err
	}
	rows, err := s.client.query(ctx, "SELECT toString(incarnation), partition_no, from_offset, to_offset, done, seq FROM "+s.states+" FINAL WHERE reader = "+text(s.env.Reader), nil)
	if err != nil {
		return classify(fmt.Errorf("read %s: %w", positionsTable, err))
	}
	for _, r := range rows {
		l, m, err := parseMark(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", positionsTable, err)
		}
		if l == (life{}) { // no life of a log
			s.rewinds = m.to
			continue
		}
		s.marks[l] = m
	}
	return nil
}

func parseMark(r []string) (life, mark, error) {
	if len(r) < 6 {
		return life{}, mark{}, fmt.Errorf("%d columns", len(r))
	}
	inc, err := event.ParseIncarnation(r[0])
	partition, err1 := strconv.ParseInt(r[1], 10, 32)
	from, err2 := strconv.ParseInt(r[2], 10, 64)
	to, err3 := strconv.ParseInt(r[3], 10, 64)
	seq, err4 := strconv.ParseUint(r[5], 10, 64)
	return life{inc, int32(partition)}, mark{from: from, to: to, done: r[4] == "1", seq: seq}, errors.Join(err, err1, err2, err3, err4)
}

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if stream != s.env.Stream || len(s.marks) == 0 {
		return nil, nil
	}
	out := event.Positions{}
	for l, m := range s.marks {
		out.Advance(l.at(m.base()))
	}
	return out, nil
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() (n int64) {
	for _, q := range s.queues {
		n += q.size()
	}
	return n
}

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	told := s.refused
	s.refused = nil
	return told
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	clear(s.queues)
	s.client.http.CloseIdleConnections()
	return nil
}

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	if s.broken != nil {
		return fmt.Errorf("write table %s after a failure: %w", s.set.Table, s.broken)
	}
	if s.prepared != nil {
		return fmt.Errorf("write table %s: what was prepared is not committed yet", s.set.Table)
	}
	if len(b.Columns) == 0 {
		return fault.WithHint(fmt.Errorf("write table %s: the rows have no columns", s.set.Table), "let the last step select some")
	}
	if s.set.RowKey != "" && slices.ContainsFunc(b.Columns, func(c event.Column) bool { return c.Name == s.set.RowKey }) {
		return fault.WithHint(fmt.Errorf("write table %s: the rows have a column %s of their own", s.set.Table, s.set.RowKey), "give row_key another name, or the column")
	}
	l := life{b.Incarnation, b.Partition}
	if _, ok := s.begin[l]; !ok {
		s.begin[l], s.end[l], s.queues[l] = b.From, b.From, &queue{}
		s.order = append(s.order, l)
	}
	q, base := s.queues[l], s.base(l)
	q.columnsAre(b.Columns)
	err := s.dec.EachIn(b, func(e *event.Event) error {
		if e.Offset >= base && e.Offset >= s.end[l] {
			q.add(e, l.at(e.Offset), s.set.RowKey)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.end[l] = max(s.end[l], b.Next)
	return nil
}

func (s *Sink) base(l life) int64 {
	if m, ok := s.marks[l]; ok {
		return m.base()
	}
	return s.begin[l]
}

// next is the mark of what is to be inserted of a life now; false: nothing. What was
// put down before is inserted as it was put down, so it waits until all of it has
// been read again; what lies behind it follows with the next mark.
func (s *Sink) next(l life) (mark, bool) {
	m, known := s.marks[l]
	switch {
	case !known:
		return mark{from: s.begin[l], to: s.end[l], seq: 1}, s.end[l] > s.begin[l]
	case m.done:
		return mark{from: m.to, to: s.end[l], seq: m.seq + 1}, s.end[l] > m.to
	case s.end[l] >= m.to || s.over(l):
		return mark{from: m.from, to: m.to, seq: m.seq + 1}, true
	}
	return mark{}, false
}

// over tells whether a later life of the partition has begun: a repair has cut off
// what this one had more.
func (s *Sink) over(l life) bool {
	i := slices.Index(s.order, l)
	return slices.ContainsFunc(s.order[i+1:], func(o life) bool { return o.partition == l.partition })
}

// Prepare implements sink.Preparer: it inserts, all but the mark that it is done.
func (s *Sink) Prepare(ctx context.Context) error {
	if s.broken != nil {
		return fmt.Errorf("commit table %s after a failure: %w", s.set.Table, s.broken)
	}
	if s.prepared != nil {
		return nil
	}
	// Twice: what was put down by the sink before this one, then what lies behind it.
	for range 2 {
		if err := s.insertNext(ctx); err != nil {
			s.broken = err
			return err
		}
	}
	return nil
}

func (s *Sink) insertNext(ctx context.Context) error {
	var lives []life
	marks := map[life]mark{}
	for _, l := range s.order {
		if m, ok := s.next(l); ok {
			lives, marks[l] = append(lives, l), m
		}
	}
	if len(lives) == 0 {
		return nil
	}
	if err := s.putDown(ctx, lives, marks); err != nil {
		return err
	}
	for _, l := range lives {
		m := marks[l]
		q := s.queues[l]
		n := q.below(m.to)
		if err := s.insert(ctx, l, m, n); err != nil {
			return err
		}
		for _, at := range q.lines[:n] {
			if at.refused != "" {
				s.refused = append(s.refused, sink.Refusal{At: l.at(at.offset), Row: at.row, Detail: at.refused})
			}
		}
		q.drop(n)
		m.done = true
		s.marks[l] = m
		if s.prepared == nil {
			s.prepared = map[life]mark{}
		}
		s.prepared[l] = m
	}
	return nil
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := s.Prepare(ctx); err != nil {
		return nil, err
	}
	if len(s.prepared) > 0 {
		var lives []life
		done := map[life]mark{}
		for l, m := range s.prepared {
			m.seq++
			lives, done[l] = append(lives, l), m
		}
		if err := s.writeMarks(ctx, lives, done); err != nil {
			s.broken = err
			return nil, err
		}
		for l, m := range done {
			s.marks[l] = m
		}
		s.prepared = nil
	}
	out := event.Positions{}
	for l, end := range s.end {
		if m, ok := s.marks[l]; ok && !m.done {
			end = min(end, m.from) // held back
		}
		out.Advance(l.at(end))
	}
	return out, nil
}
