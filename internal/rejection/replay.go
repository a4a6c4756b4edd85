package rejection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
)

// Opener begins to judge events again: those that go to a stream, or those that a
// pipeline of that name has refused.
type Opener func(ctx context.Context, stream string) (Door, error)

// Store finds rejections in the table `rejected`, closed ones too.
type Store interface {
	// Lanes says where those that f chooses are; none when there is no table.
	Lanes(ctx context.Context, f Filter) ([]Lane, error)
	// Entries lists those that f chooses with offsets in [from, to), in order.
	Entries(ctx context.Context, f Filter, l Lane, from, to int64) ([]Entry, error)
	// Fetch gives those with offsets in [from, to], in order, as records of the
	// stream rejected; they are valid until fn returns.
	Fetch(ctx context.Context, l Lane, from, to int64, fn func(*event.Event) error) error
	// Closed gives all that the table rejected_states has as replayed or discarded.
	Closed(ctx context.Context, fn func(event.Position) error) error
}

// Result is what a replay or a discard has done so far.
type Result struct {
	Matched   int64 `json:"matched"`              // rejections that the filter chooses, closed ones too
	Closed    int64 `json:"closed"`               // of these, replayed or discarded before
	Replayed  int64 `json:"replayed,omitempty"`   // sent again now
	Refused   int64 `json:"refused,omitempty"`    // judged again and refused again; they stay open
	Discarded int64 `json:"discarded,omitempty"`  // now
	DryRun    bool  `json:"dry_run,omitempty"`    // nothing was changed: so it would be
	ByReason  Tally `json:"refused_by,omitempty"` // of Refused
}

// Done is how many of Matched were looked at.
func (r *Result) Done() int64 { return r.Closed + r.Replayed + r.Refused + r.Discarded }

// Tally counts by reason.
type Tally map[string]int64

func (t *Tally) add(reason event.Reason) {
	if *t == nil {
		*t = Tally{}
	}
	(*t)[string(reason)]++
}

// String is as in "contract 80, not_json 3".
func (t Tally) String() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(t)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, t[reason]))
	}
	return strings.Join(parts, ", ")
}

// window is how many offsets are looked up at once.
const window = 1 << 16

// Replay sends the open rejections that f chooses again, as today's rules judge
// them, page by page; tell hears of each. It may be called again after an error,
// and by several at a time: every event goes to its stream once.
func (r *Rejections) Replay(ctx context.Context, f Filter, dry bool, tell func(Result)) (Result, error) {
	res := Result{DryRun: dry}
	err := r.each(ctx, f, &res, tell, func(l Lane, page []Entry) error { return r.replayPage(ctx, l, page, &res) })
	if err != nil {
		err = fmt.Errorf("replay rejections: %w", err)
	}
	return res, err
}

// Discard closes the open rejections that f chooses. They stay in the table.
func (r *Rejections) Discard(ctx context.Context, f Filter, dry bool, tell func(Result)) (Result, error) {
	res := Result{DryRun: dry}
	err := r.each(ctx, f, &res, tell, func(l Lane, page []Entry) error { return r.discardPage(ctx, l, page, &res) })
	if err != nil {
		err = fmt.Errorf("discard rejections: %w", err)
	}
	return res, err
}

// each hands out what f chooses in pages. What comes while it works is left to
// the next call.
func (r *Rejections) each(ctx context.Context, f Filter, res *Result, tell func(Result), do func(Lane, []Entry) error) error {
	lanes, err := r.deps.Store.Lanes(ctx, f)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		res.Matched += l.Count
	}
	for _, l := range lanes {
		for from := l.First; from <= l.Last; from += window {
			found, err := r.deps.Store.Entries(ctx, f, l, from, min(from+window, l.Last+1))
			if err != nil {
				return err
			}
			for len(found) > 0 {
				n, size := 0, int64(0)
				for n < len(found) && n < pageEvents && (n == 0 || size+found[n].Size <= int64(r.cfg.Page)) {
					size += found[n].Size
					n++
				}
				if err := do(l, found[:n]); err != nil {
					return err
				}
				found = found[n:]
				if tell != nil {
					tell(*res)
				}
				if err := ctx.Err(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l Lane) at(offset int64) event.Position {
	return event.Position{Incarnation: l.Incarnation, Partition: l.Partition, Offset: offset}
}

// open leaves those of a page that are open now, and counts the others. The
// caller holds r.mu.
func (r *Rejections) open(ctx context.Context, l Lane, page []Entry, res *Result) ([]Entry, error) {
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.known.counted, err = r.stat(ctx, event.RejectedStream); err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(page))
	for _, e := range page {
		if r.known.has(l.at(e.Offset)) {
			res.Closed++
			continue
		}
		out = append(out, e)
	}
	return out, nil
}

func (r *Rejections) replayPage(ctx context.Context, l Lane, page []Entry, res *Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	page, err := r.open(ctx, l, page, res)
	if err != nil || len(page) == 0 {
		return err
	}
	// The rows are read under the lock: what is found open stays so until it is
	// appended, and there is one page in memory however many ask.
	b := &batch{r: r, changes: make([]Change, 0, len(page))}
	defer b.release()
	i := 0
	err = r.deps.Store.Fetch(ctx, l, page[0].Offset, page[len(page)-1].Offset, func(e *event.Event) error {
		for i < len(page) && page[i].Offset < e.Offset {
			i++ // its row is not there any more
		}
		if i == len(page) || page[i].Offset != e.Offset {
			return nil
		}
		at := l.at(e.Offset)
		e.Origin = &at
		return b.judge(ctx, at, e, res)
	})
	if err != nil {
		b.undo(res) // judged, and not stored
		return err
	}
	if len(b.changes) == 0 {
		return nil
	}
	if !res.DryRun {
		if err := b.append(ctx); err != nil {
			if errors.Is(err, fault.ErrLimit) && len(page) > 1 {
				// The log takes less at once: judge in two halves what was judged in one.
				b.undo(res)
				b.release()
				return r.halves(page, func(half []Entry) error { return r.replayPage(ctx, l, half, res) })
			}
			b.undo(res)
			return err
		}
	}
	return nil
}

// halves does a page that is too large for the log in two pieces. The caller
// holds r.mu, which each of them takes for itself.
func (r *Rejections) halves(page []Entry, do func([]Entry) error) error {
	r.mu.Unlock()
	defer r.mu.Lock()
	if err := do(page[:len(page)/2]); err != nil {
		return err
	}
	return do(page[len(page)/2:])
}

func (r *Rejections) discardPage(ctx context.Context, l Lane, page []Entry, res *Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	page, err := r.open(ctx, l, page, res)
	if err != nil || len(page) == 0 {
		return err
	}
	if !res.DryRun {
		b := &batch{r: r}
		for _, e := range page {
			b.changes = append(b.changes, Change{Incarnation: l.Incarnation, Partition: l.Partition, Offset: e.Offset, State: Discarded})
		}
		if err := b.append(ctx); err != nil {
			if errors.Is(err, fault.ErrLimit) && len(page) > 1 {
				return r.halves(page, func(half []Entry) error { return r.discardPage(ctx, l, half, res) })
			}
			return err
		}
	}
	res.Discarded += int64(len(page))
	return nil
}

// batch is one append: events that are sent again, and what becomes of their
// rejections.
type batch struct {
	r        *Rejections
	doors    []door
	changes  []Change
	replayed int64
	reasons  []event.Reason // of those refused again
}

// door is one of a stream, for rejections that the log's counts have, or have not.
type door struct {
	Door
	stream  string
	counted bool
	first   int // of its writes
}

func (b *batch) release() {
	for _, d := range b.doors {
		d.Release()
	}
	b.doors = nil
}

func (b *batch) undo(res *Result) {
	res.Replayed -= b.replayed
	res.Refused -= int64(len(b.reasons))
	for _, reason := range b.reasons {
		if res.ByReason[string(reason)]--; res.ByReason[string(reason)] == 0 {
			delete(res.ByReason, string(reason))
		}
	}
}

// judge judges one event and notes what becomes of its rejection.
func (b *batch) judge(ctx context.Context, at event.Position, e *event.Event, res *Result) error {
	to, open, counted := e.Refusal.Stream, b.r.deps.Door, b.r.known.acknowledged(at)
	if reason := e.Refusal.Reason; reason == event.StepFailed || reason == event.SinkRefused {
		// It is in its stream already: its pipeline alone gets it again.
		name := strings.TrimPrefix(e.Refusal.Rule, stream.PipelineReader)
		to, counted = stream.ReplayStream+name, false
		open = func(ctx context.Context, _ string) (Door, error) { return b.r.deps.Pipeline(ctx, name) }
	}
	d, err := b.door(ctx, to, counted, open)
	if err != nil {
		return err
	}
	refusal, partition, number, err := b.doors[d].Judge(e)
	if err != nil {
		return fmt.Errorf("rejection %s: %w", at, err)
	}
	c := Change{Incarnation: at.Incarnation, Partition: at.Partition, Offset: at.Offset, State: Replayed,
		EventStream: to, EventPartition: partition, write: d, number: number}
	if refusal == nil {
		res.Replayed++
		b.replayed++
	} else {
		c = Change{Incarnation: at.Incarnation, Partition: at.Partition, Offset: at.Offset, State: Open,
			Reason: string(refusal.Reason), Rule: refusal.Rule, Path: refusal.Path, Detail: refusal.Detail}
		res.Refused++
		res.ByReason.add(refusal.Reason)
		b.reasons = append(b.reasons, refusal.Reason)
	}
	b.changes = append(b.changes, c)
	return nil
}

func (b *batch) door(ctx context.Context, name string, counted bool, open Opener) (int, error) {
	for i, d := range b.doors {
		if d.stream == name && d.counted == counted {
			return i, nil
		}
	}
	d, err := open(ctx, name)
	if err != nil {
		return 0, err
	}
	b.doors = append(b.doors, door{Door: d, stream: name, counted: counted})
	return len(b.doors) - 1, nil
}

// append stores the batch in one piece and takes note of what it closes. The
// caller holds r.mu.
func (b *batch) append(ctx context.Context) error {
	r := b.r
	var writes []stream.Write
	for i := range b.doors {
		d := &b.doors[i]
		d.first = len(writes)
		for _, w := range d.Writes() {
			w.Resent = d.counted
			writes = append(writes, w)
		}
	}
	for i := range b.changes {
		if c := &b.changes[i]; c.State == Replayed {
			if err := b.place(c, writes); err != nil {
				return err
			}
		}
	}
	now := r.deps.Now()
	writes = append(writes, stream.Write{
		Stream: event.RejectedStates, Batch: encode(b.changes, nil, now), Count: int32(len(b.changes)),
		Bind: func(at []event.Position, batch []byte) { copy(batch, encode(b.changes, at, now)) },
	})
	// Who asked may go: what is begun is ended, so that the answer is known.
	if _, err := r.deps.Log.Append(context.WithoutCancel(ctx), writes...); err != nil {
		if !errors.Is(err, fault.ErrLimit) && !errors.Is(err, stream.ErrFull) {
			r.known = nil // whether it was stored is not known: the log will tell
		}
		return err
	}
	for i := range b.changes {
		c := &b.changes[i]
		switch c.State {
		case Open:
			r.counts.Refused.Add(1)
		case Replayed:
			r.counts.Replayed.Add(1)
		case Discarded:
			r.counts.Discarded.Add(1)
		}
		if c.State != Open {
			if err := r.known.add(c.Position()); err != nil {
				r.known = nil
				return err
			}
		}
	}
	r.deps.Logger.Debug("states of rejections changed", slog.Int("records", len(b.changes)), slog.Int64("replayed", b.replayed))
	return nil
}

// place turns the number of a change's event among those of its partition into
// its place among the writes.
func (b *batch) place(c *Change, writes []stream.Write) error {
	d := &b.doors[c.write]
	n := c.number
	for i := d.first; i < len(writes); i++ {
		if writes[i].Partition != c.EventPartition {
			continue
		}
		if n < int(writes[i].Count) {
			c.write, c.number = i, n
			return nil
		}
		n -= int(writes[i].Count)
	}
	return fmt.Errorf("rejection %s: its event is not among those to be stored", c.Position())
}
