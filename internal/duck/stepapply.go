package duck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/query"
	"naru/internal/recordbatch"
	"naru/internal/transform"
)

// steps is the transform of a pipeline: segments of SQL, with a function in between.
type steps struct {
	s *Steps

	mu struct {
		sync.Mutex
		closed  bool
		links   []link
		decoder recordbatch.Decoder
		idle    *time.Timer
	}
}

// link is a segment, or a function.
type link struct {
	plan    *plan // of segment
	segment *segment
	call    *call
}

var _ transform.Transform = (*steps)(nil)

// Apply implements transform.Transform. One call is computed at a time.
func (t *steps) Apply(ctx context.Context, in *event.Batch, take func(*event.Event) bool) (*transform.Applied, error) {
	t.mu.Lock() // DuckDB calls under the lock: they work on what it guards
	defer t.mu.Unlock()
	if t.mu.closed {
		return nil, errStepsClosed
	}
	t.mu.idle.Stop()
	defer t.mu.idle.Reset(t.s.cfg.Idle.Std())
	var offsets []int64 // of the events that are taken
	var done *transform.Applied
	for i, l := range t.mu.links {
		var next *transform.Applied
		var err error
		switch {
		case l.call != nil:
			next, err = l.call.apply(ctx, done.Batch)
		case i == 0:
			next, err = t.apply(ctx, l.segment, in, func(e *event.Event) bool {
				if !take(e) {
					return false
				}
				offsets = append(offsets, e.Offset)
				return true
			})
		default:
			next, err = t.apply(ctx, l.segment, done.Batch, func(*event.Event) bool { return true })
		}
		if err != nil {
			return nil, err
		}
		if done != nil {
			next = joined(done, next)
		}
		done = next
	}
	taken, _ := slices.BinarySearch(offsets, done.Batch.Next)
	number(done.Batch.Rows.List)
	done.Written = done.Batch.Rows.Events(0)
	done.Filtered = int64(taken) - done.Written - int64(len(done.Refused))
	return done, nil
}

// joined is what has become of events in two links, one behind the other.
func joined(first, second *transform.Applied) *transform.Applied {
	out := second.Batch
	refused := map[int64]bool{}
	var answers []transform.Refused
	for _, r := range append(first.Refused, second.Refused...) {
		if r.Offset < out.Next && !refused[r.Offset] {
			refused[r.Offset] = true
			answers = append(answers, r)
		}
	}
	slices.SortStableFunc(answers, func(x, y transform.Refused) int { return int(min(max(x.Offset-y.Offset, -1), 1)) })
	out.Rows = out.Rows.Only(func(r *event.Row) bool { return !refused[r.Offset] && r.Offset < out.Next })
	return &transform.Applied{Batch: out, Refused: answers}
}

// number numbers the rows of each event.
func number(rows []event.Row) {
	for i := range rows {
		rows[i].Number = 0
		if i > 0 && rows[i-1].Offset == rows[i].Offset {
			rows[i].Number = rows[i-1].Number + 1
		}
	}
}

// apply computes a segment.
func (t *steps) apply(ctx context.Context, g *segment, in *event.Batch, take func(*event.Event) bool) (*transform.Applied, error) {
	a := &applying{ctx: ctx, in: in, segment: g, next: in.Next}
	defer a.segment.clear()
	err := t.mu.decoder.EachIn(in, func(e *event.Event) error {
		if a.next < in.Next {
			return recordbatch.ErrStop
		}
		if !take(e) {
			return nil
		}
		return a.add(e)
	})
	if err == nil {
		err = a.compute()
	}
	a.calmDown()
	if err != nil {
		if a.broken() {
			a.segment.rest()
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return a.applied(), nil
}

// rest gives memory back when no events have come for a while.
func (t *steps) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.mu.links {
		if l.segment != nil && !t.mu.closed {
			l.segment.rest()
		}
	}
}

// Close implements transform.Transform.
func (t *steps) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return nil
	}
	t.mu.closed = true
	t.mu.idle.Stop()
	for _, l := range t.mu.links {
		if l.segment != nil {
			l.segment.close()
		}
	}
	t.s.open.Done()
	return nil
}

// applying is one call of Apply.
type applying struct {
	ctx     context.Context
	in      *event.Batch
	segment *segment
	calm    func() // stops interrupts

	next    int64 // events behind are left for another call
	rows    event.Rows
	size    int // bytes of rows
	columns []event.Column
	refused []transform.Refused
	runs    int // executions that failed, of the events that are computed now
}

func (a *applying) add(e *event.Event) error {
	g := a.segment
	if g.full() {
		if err := a.compute(); err != nil {
			return err
		}
	}
	ok, err := g.add(e, a.in.Incarnation, a.in.Partition)
	if err != nil || ok {
		return err
	}
	if err := a.compute(); err != nil {
		return err
	}
	_, err = g.add(e, a.in.Incarnation, a.in.Partition)
	return err
}

// compute makes rows of the events that were added.
func (a *applying) compute() error {
	g := a.segment
	if g.from.len() == 0 {
		return nil
	}
	defer g.clear()
	if err := g.ready(a.ctx); err != nil {
		return err
	}
	if a.calm == nil {
		a.calm = g.conn.interruptOn(a.ctx)
	}
	a.runs = 0
	return a.span(0, g.from.len())
}

func (a *applying) calmDown() {
	if a.calm != nil {
		a.calm()
	}
}

// broken tells whether DuckDB is to be started anew.
func (a *applying) broken() bool {
	if a.segment.inst == nil {
		return false
	}
	a.segment.inst.mu.Lock()
	defer a.segment.inst.mu.Unlock()
	return a.segment.inst.mu.broken
}

// singly is after how many failed executions the events are computed one by one:
// so many are to blame that halving them saves nothing.
const singly = 64

// span computes the events from lo to hi. When they cannot be computed together,
// it looks for those that are to blame by halving.
func (a *applying) span(lo, hi int) error {
	g := a.segment
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if a.next < a.in.Next {
		return nil
	}
	if a.size >= int(g.s.cfg.Rows) && a.rows.List[0].Offset != g.from.list[lo].offset {
		a.next = g.from.list[lo].offset
		return nil
	}
	err := a.run(g.whole, lo, hi)
	var row *rowError
	var memory *memoryError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &memory) && hi-lo > 1:
	case !errors.As(err, &row):
		return err
	default:
		if a.runs == 0 {
			if err := a.none(); err != nil {
				return err
			}
		}
		a.runs++
	}
	if hi-lo == 1 {
		return a.refuse(lo, row)
	}
	if a.runs > singly {
		for i := lo; i < hi; i++ {
			if err := a.span(i, i+1); err != nil {
				return err
			}
		}
		return nil
	}
	mid := lo + (hi-lo)/2
	if err := a.span(lo, mid); err != nil {
		return err
	}
	return a.span(mid, hi)
}

// none computes the steps over no event. What fails then is not the events' fault:
// it is that of what stands in a table, or of the steps.
func (a *applying) none() error {
	g := a.segment
	err := a.run(g.whole, 0, 0)
	var row *rowError
	switch {
	case !errors.As(err, &row):
		return err
	case len(g.views) > 0:
		return g.trouble(row.text)
	}
	step := g.plan.steps[len(g.plan.steps)-1]
	return &stepError{line: step.line, step: step.label, err: &query.Error{Class: query.ErrSQL, Text: g.plain(row.text)}}
}

// refuse notes that an event cannot be computed, and finds the step.
func (a *applying) refuse(at int, why *rowError) error {
	g := a.segment
	step := g.plan.steps[len(g.plan.steps)-1]
	for k := 1; k < len(g.plan.steps); k++ {
		for len(g.prefixes) < k {
			g.prefixes = append(g.prefixes, nil)
		}
		if g.prefixes[k-1] == nil {
			p, err := g.prepare(k)
			var wrong *stepError
			if errors.As(err, &wrong) {
				// A constant that cannot be computed, which the whole does without.
				step = g.plan.steps[k-1]
				break
			}
			if err != nil {
				return err
			}
			g.prefixes[k-1] = p
		}
		err := a.try(g.prefixes[k-1], at)
		var row *rowError
		if errors.As(err, &row) {
			step, why = g.plan.steps[k-1], row
			break
		}
		if err != nil {
			return err
		}
	}
	a.refused = append(a.refused, transform.Refused{Offset: g.from.list[at].offset, Step: step.label, To: step.to, Detail: g.plain(why.text)})
	return nil
}

// rowError is that an event cannot be computed.
type rowError struct{ text string }

func (e *rowError) Error() string { return e.text }

// memoryError is that the rows of some events are too many to be made at once.
type memoryError struct{ error }

func (e *memoryError) Unwrap() error { return e.error }

// rowFaults are the kinds of DuckDB's errors that come of values. All others are
// not the events' fault.
var rowFaults = map[duckdb.ErrorType]bool{
	duckdb.ErrorTypeConversion: true, duckdb.ErrorTypeOutOfRange: true, duckdb.ErrorTypeInvalidInput: true, duckdb.ErrorTypeMismatchType: true,
	duckdb.ErrorTypeDivideByZero: true, duckdb.ErrorTypeDecimal: true,
}

// fault sorts an error of an execution.
func (a *applying) fault(kind duckdb.ErrorType, text string) error {
	g := a.segment
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case g.in.err != nil:
		return fmt.Errorf("give events to duckdb: %w", g.in.err)
	case kind == duckdb.ErrorTypeOutOfMemory:
		return &memoryError{g.trouble(text)}
	case strings.Contains(text, ownFault), !rowFaults[kind], len(g.views) > 0 && strings.Contains(text, "arquet"): // of a file
		return g.trouble(text)
	}
	return &rowError{text: text}
}

// run executes a statement over the events from lo to hi, and keeps its rows.
func (a *applying) run(p *prepared, lo, hi int) error {
	rows, size := a.rows, a.size
	err := a.execute(p, lo, hi, func(res *duckdb.Result) error { return a.keep(p, res, lo, hi) })
	if err != nil {
		for i := len(rows.Frames); i < len(a.rows.Frames); i++ {
			a.rows.Frames[i].(*frame).of.frames--
			a.rows.Frames[i] = nil
		}
		a.rows, a.size = rows, size
	}
	return err
}

// try executes a statement over one event and forgets its rows.
func (a *applying) try(p *prepared, at int) error {
	return a.execute(p, at, at+1, func(res *duckdb.Result) error {
		for {
			chunk := duckdb.FetchChunk(*res)
			if chunk.Ptr == nil {
				return nil
			}
			duckdb.DestroyDataChunk(&chunk)
		}
	})
}

// execute hands the result of a statement to see, which fetches its rows while they
// are computed.
func (a *applying) execute(p *prepared, lo, hi int, see func(*duckdb.Result) error) error {
	g := a.segment
	g.in.lo, g.in.hi, g.in.err = lo, hi, nil
	defer g.in.pins.Unpin() // behind the last row
	var pending duckdb.PendingResult
	state := duckdb.PendingPreparedStreaming(p.stmt, &pending)
	defer duckdb.DestroyPending(&pending)
	if state == duckdb.StateError {
		return g.trouble(duckdb.PendingError(pending))
	}
	var res duckdb.Result
	state = duckdb.ExecutePending(pending, &res)
	defer duckdb.DestroyResult(&res)
	if state == duckdb.StateError {
		return a.fault(duckdb.ResultErrorType(&res), duckdb.ResultError(&res))
	}
	if err := see(&res); err != nil {
		return err
	}
	if text := duckdb.ResultError(&res); text != "" {
		return a.fault(duckdb.ResultErrorType(&res), text)
	}
	return nil
}

// applied puts the outcome together.
func (a *applying) applied() *transform.Applied {
	rows := &event.Rows{List: a.rows.List, Frames: a.rows.Frames} // a pointer into a would hold the events, too
	if cap(rows.List) > 2*len(rows.List) {
		rows.List = slices.Clone(rows.List)
	}
	out := &event.Batch{Stream: a.in.Stream, Incarnation: a.in.Incarnation, Partition: a.in.Partition, From: a.in.From, Next: a.next, Rows: rows, Columns: a.columns}
	if out.Columns == nil {
		out.Columns = []event.Column{}
	}
	return &transform.Applied{Batch: out, Refused: a.refused}
}
