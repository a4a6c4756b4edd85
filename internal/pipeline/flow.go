package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/transform"
)

// flow is what the sinks of one configured pipeline share: its steps, what these have
// refused, and the rows that they made last, so that sinks at the same place compute
// them once. A sink that lags computes again what it needs: it delays nobody.
type flow struct {
	name   string
	stream string
	log    stream.Log
	engine transform.Engine
	logger *slog.Logger
	now    func() time.Time
	reads  func() int              // how many sinks and backfills read it; with mu held
	sinks  func() []string         // of the file
	shares func() int64            // of how many sinks and pipelines the limits are for
	most   int64                   // bytes of a read, of all sinks together
	cached int64                   // bytes of rows that are kept, of all pipelines together
	save   func(next *state) error // makes it durable and mu.state; with mu and its pipeline's changing held

	mu struct {
		sync.Mutex
		state   *state
		defs    map[string]*definition.Definition // by hash: those of the versions
		steps   map[string]transform.Transform    // by hash, opened when first used
		lanes   map[lane]*flowLane
		judged  stream.Progress // durable: up to where steps have been computed
		known   *refusals       // durable
		former  former          // rejections of runs before a rewind
		recent  []kept          // oldest first
		size    int             // bytes of recent
		passed  func(lane) int64
		scanned event.Positions // of the stream `rejected`: what known has
		looked  time.Time       // when that was written
		// released is when replays that all have were last let go.
		released time.Time
	}
}

// flowLane is one partition in one life of the log.
type flowLane struct {
	computing sync.Mutex
	front     int64        // up to where the steps have been computed, by any sink
	pending   []rejectedAt // by steps, not yet durable
	// After a rewind what lies in [redo, until) is computed anew; both 0: nothing is.
	redo, until int64
}

// rejectedAt is a rejection that waits for its append.
type rejectedAt struct {
	offset int64
	record event.Event
	former bool // an earlier run has it on record: there is nothing to append
}

// judgedReader is the reader whose positions say up to where the steps have been
// computed and their refusals are durable.
func judgedReader(pipeline string) string { return stream.PipelineReader + pipeline }

// refusedReader is the one that says from where in `rejected` the refusals stand that
// some sink has not passed.
func refusedReader(pipeline string) string { return stream.RefusedReader + pipeline }

// sinkReader names a sink's positions.
func sinkReader(pipeline, sink string) string { return stream.PipelineReader + pipeline + "/" + sink }

// open loads what is durable.
func (f *flow) open(ctx context.Context) error {
	f.mu.lanes, f.mu.known, f.mu.recent, f.mu.size = map[lane]*flowLane{}, newRefusals(), nil, 0
	f.mu.former = former{}
	again, begins := f.mu.state.Again, map[lane]int64{}
	if st, err := f.log.Stat(ctx, f.stream); err == nil {
		for _, r := range st.Ranges {
			begins[lane{r.Incarnation, r.Partition}] = r.Start
		}
	} else if !errors.Is(err, stream.ErrNoStream) {
		return err
	}
	at, err := f.log.Progress(ctx, judgedReader(f.name))
	if err != nil {
		return fmt.Errorf("load how far steps were computed: %w", err)
	}
	if at.Positions == nil {
		at = stream.Progress{Stream: f.stream, Positions: event.Positions{}, Events: map[int32]int64{}}
	}
	f.mu.judged = at.Clone()
	for inc, parts := range at.Positions {
		for partition, off := range parts {
			k := lane{inc, partition}
			l := f.lane(k)
			l.front = off
			redo, some := at.Events[partition]
			if until, ok := again.until(inc, partition); ok && some && redo < until {
				l.front, l.redo, l.until = max(off, until), max(redo, begins[k]), until
			}
		}
	}
	from, err := f.log.Progress(ctx, refusedReader(f.name))
	if err != nil {
		return fmt.Errorf("load where refusals begin: %w", err)
	}
	places, err := f.places(ctx)
	if err != nil {
		return err
	}
	f.mu.scanned, err = scan(ctx, f.log, f.name, f.stream, from.Positions, stream.Bytes(f.most), func(record event.Position, r refusedRow) error {
		if again.former(record) || r.by == "" && f.anew(record, r.at, places) {
			f.mu.former.add(r)
		} else {
			f.mu.known.add(r.by, r.at, r.row)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load refusals: %w", err)
	}
	if again != nil && len(f.mu.former) > 0 { // what was replayed is a new rejection when it is refused again
		err := f.replayedBefore(ctx, func(h *replayHead) {
			delete(f.mu.former, refusedRow{by: h.Sink, step: h.Step, at: h.Of, row: h.Row})
		})
		if err != nil {
			return fmt.Errorf("load replays: %w", err)
		}
	}
	f.mu.known.prune(f.mu.passed)
	if !f.mu.state.rewound() {
		f.mu.former.prune(f.mu.passed)
	}
	return f.moved(ctx)
}

// moved writes from where refusals have to be read at the next start. With f.mu held,
// or before the flow runs: who comes meanwhile has to wait for it anyway.
func (f *flow) moved(ctx context.Context) error {
	if f.mu.state.rewound() || !f.mu.known.empty() || len(f.mu.former) > 0 || len(f.mu.scanned) == 0 {
		return nil
	}
	f.mu.looked = f.now()
	return f.log.Commit(ctx, nil, refusedReader(f.name), stream.Progress{Stream: event.RejectedStream, Positions: f.mu.scanned.Clone(), Events: map[int32]int64{}})
}

func (f *flow) lane(k lane) *flowLane {
	l := f.mu.lanes[k]
	if l == nil {
		l = &flowLane{}
		f.mu.lanes[k] = l
	}
	return l
}

// tap is the flow as the source of one of its sinks.
type tap struct {
	*flow
	sink    string
	tabular bool
}

// leastRead is what a sink reads at once however many there are.
const leastRead = 64 << 10

// readBytes is a sink's share of what all read at once.
func (f *flow) readBytes() stream.Bytes {
	return stream.Bytes(min(f.most, max(f.most/max(f.shares(), 1), leastRead)))
}

// next implements source.
func (t tap) next(ctx context.Context, from event.Position) (*portion, error) {
	if from.Partition >= replayLane {
		return t.replays(ctx, from)
	}
	b, err := t.log.Read(ctx, t.stream, from, t.readBytes())
	if err != nil {
		return nil, err
	}
	k := lane{b.Incarnation, b.Partition}
	t.mu.Lock()
	l := t.lane(k)
	t.mu.Unlock()
	l.computing.Lock()
	defer l.computing.Unlock()
	x := t.recent(k, b)
	if x == nil {
		for x, err = t.compute(ctx, k, l, b); errors.Is(err, errVersion); {
			x, err = t.compute(ctx, k, l, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return t.own(k, x), nil
}

// errVersion: other steps came into force at that place while it was computed.
var errVersion = errors.New("the steps have changed meanwhile")

// kept is a portion that waits for further sinks.
type kept struct {
	*portion
	weight int
	left   int // so many have not had it
}

// recent is a portion that another sink has had before; nil: none. With the last that has
// it, it goes.
func (t tap) recent(k lane, b *event.Batch) *portion {
	f := t.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	p := t.program(k, b.From)
	for i := range f.mu.recent {
		x := &f.mu.recent[i]
		if x.in.From != b.From || x.in.Partition != b.Partition || x.in.Incarnation != b.Incarnation || x.in.Next > b.Next || x.by != p.key {
			continue
		}
		found := x.portion
		if x.left--; x.left == 0 {
			f.drop(i)
		}
		return found
	}
	return nil
}

// remember keeps a portion for the sinks behind, if there are any. With f.mu held.
func (f *flow) remember(x *portion) {
	left := f.reads() - 1
	if left <= 0 {
		return
	}
	weight := x.out.Size()
	f.mu.recent = append(f.mu.recent, kept{x, weight, left})
	f.mu.size += weight
	for len(f.mu.recent) > 1 && (int64(f.mu.size) > f.cached/max(f.shares(), 1) || len(f.mu.recent) > 64) {
		f.drop(0)
	}
}

func (f *flow) drop(i int) {
	f.mu.size -= f.mu.recent[i].weight
	f.mu.recent = slices.Delete(f.mu.recent, i, i+1)
}

// compute makes rows of a batch, by the version that is in force at its place. With
// the lane's mutex held: nobody else computes there meanwhile.
func (t tap) compute(ctx context.Context, k lane, l *flowLane, b *event.Batch) (*portion, error) {
	f := t.flow
	f.mu.Lock()
	p := t.program(k, b.From)
	in := b
	if p.end >= 0 && p.end < b.Next {
		c := *b // the rest belongs to the next version
		c.Next = p.end
		in = &c
	}
	verdicts := f.mu.known.within(k, in.From, in.Next)
	floor := int64(0)
	if known := f.mu.known.lanes[k]; known != nil {
		floor = known.floor
	}
	f.mu.Unlock()
	types := p.types
	take := func(e *event.Event) bool {
		if e.Offset >= in.Next || len(types) > 0 && !slices.Contains(types, string(e.Type)) {
			return false
		}
		_, refused := slices.BinarySearch(verdicts, e.Offset)
		return !refused
	}
	x := &portion{in: in, out: in, refused: verdicts, by: p.key, routes: p.routes}
	var fresh []transform.Refused
	switch {
	case len(p.steps) > 0:
		tr, err := f.transform(ctx, p)
		if err != nil {
			return nil, err
		}
		done, err := tr.Apply(ctx, in, take)
		if err != nil {
			return nil, fmt.Errorf("compute steps at %s: %w", event.Position{Incarnation: k.inc, Partition: k.partition, Offset: in.From}, err)
		}
		x.out = done.Batch
		if x.out.Next < in.Next {
			c := *in // more rows at once would be too many
			c.Next = x.out.Next
			in, x.in = &c, &c
		}
		if fresh = done.Refused; p.late {
			// All others have their verdict on these events: that of this sink alone is
			// that they do not go to it.
			fresh = slices.DeleteFunc(slices.Clone(fresh), func(r transform.Refused) bool { return r.To != "" })
		}
		if p.asTheyAre {
			if x.out, err = asTheyCame(in, done.Batch.Rows); err != nil {
				return nil, err
			}
		}
	case len(types) > 0 || len(verdicts) > 0 || in != b:
		out, err := taken(in, take)
		if err != nil {
			return nil, err
		}
		x.out = out
	}
	n, _ := slices.BinarySearch(verdicts, in.Next)
	x.refused = verdicts[:n:n]
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := t.program(k, in.From); now.key != p.key || now.end >= 0 && now.end < in.Next {
		return nil, errVersion
	}
	if err := f.refuse(k, l, in, fresh, x, floor); err != nil {
		return nil, err
	}
	l.computed(in.From, in.Next)
	if !p.late { // else they are for this sink alone
		f.remember(x)
	}
	return x, nil
}

// clone copies an event out of the buffers that it was read from.
func clone(e *event.Event) event.Event {
	c := *e
	for _, b := range []*[]byte{&c.ID, &c.Source, &c.Type, &c.Subject, &c.ContentType, &c.Data, &c.Key, &c.Sent, &c.Violations, &c.JSONStrings, &c.Contract.ID, &c.Contract.Version, &c.Contract.Hash} {
		*b = bytes.Clone(*b)
	}
	c.Extensions = nil
	for _, x := range e.Extensions {
		c.Extensions = append(c.Extensions, event.Attr{Name: bytes.Clone(x.Name), Value: bytes.Clone(x.Value)})
	}
	return c
}

// taken is a batch with the events for which take is true as its rows.
func taken(in *event.Batch, take func(*event.Event) bool) (*event.Batch, error) {
	out := *in
	var events []event.Event
	var dec recordbatch.Decoder
	err := dec.EachIn(in, func(e *event.Event) error {
		if take(e) {
			events = append(events, clone(e))
		}
		return nil
	})
	out.Raw, out.Without, out.Rows = nil, nil, event.RowsOf(events...)
	return &out, err
}

// own leaves out the rows that do not go to this sink, and those that it has refused
// before.
func (t tap) own(k lane, x *portion) *portion {
	x = x.of(t.sink)
	t.mu.Lock()
	var rows map[int64][]int32
	if v := t.mu.known.lanes[k]; v != nil {
		rows = v.rows[t.sink]
	}
	var hit []int64
	for off := range rows {
		if off >= x.in.From && off < x.in.Next {
			hit = append(hit, off)
		}
	}
	t.mu.Unlock()
	if hit == nil {
		return x
	}
	slices.Sort(hit)
	mine := *x
	out := x.out
	if out == x.in {
		var err error
		if out, err = taken(x.in, func(*event.Event) bool { return true }); err != nil {
			return x // it was read before; the sink meets the error
		}
	}
	copied := *out
	copied.Rows = out.Rows.Only(func(r *event.Row) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return !slices.Contains(rows[r.Offset], r.Number)
	})
	mine.out = &copied
	mine.before, mine.refused = hit, slices.Clone(x.refused)
	for _, off := range hit {
		if i, known := slices.BinarySearch(mine.refused, off); !known {
			mine.refused = slices.Insert(mine.refused, i, off)
		}
	}
	return &mine
}

// transform gives the steps of a program, opened.
func (f *flow) transform(ctx context.Context, p program) (transform.Transform, error) {
	f.mu.Lock()
	tr := f.mu.steps[p.key]
	f.mu.Unlock()
	if tr != nil {
		return tr, nil
	}
	tr, err := f.engine.Open(ctx, p.steps, transform.Input{Stream: f.stream, Types: p.types})
	if err != nil {
		return nil, fmt.Errorf("open steps: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.mu.steps[p.key]; other != nil {
		return other, tr.Close()
	}
	f.mu.steps[p.key] = tr
	return tr, nil
}

// close releases the steps.
func (f *flow) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, tr := range f.mu.steps {
		errs = append(errs, tr.Close())
	}
	f.mu.steps = map[string]transform.Transform{}
	return errors.Join(errs...)
}
