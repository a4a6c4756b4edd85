package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/transform"
)

const replayLane = sink.ReplayLane

// replayStream is where the events stand that a pipeline gets again.
func replayStream(pipeline string) string { return stream.ReplayStream + pipeline }

// replayReader is the reader that has retention keep them until all sinks have them.
func replayReader(pipeline string) string { return stream.ReplayReader + pipeline }

// replayHead is what a record of such a stream says of the event in it
// (docs/format/pipelines.md). Behind it and a line break stands a record batch: the
// event as it was, and the rows that the steps have made of it.
type replayHead struct {
	Format    int            `json:"format"` // 1
	Stream    string         `json:"stream"` // that the pipeline reads
	At        event.Position `json:"at"`     // of the event in it
	Rejection event.Position `json:"rejection"`
	// Of is what the rejection says of its place, and Row of its row: the place of
	// another replay, when that was refused.
	Of   event.Position `json:"of"`
	Row  int32          `json:"row"`
	Step string         `json:"step"`           // that refused it, or the sink
	Sink string         `json:"sink,omitempty"` // the one that it is for; empty: all
	// Plain: there were no steps, and sinks that need no columns get the event as it is.
	Plain bool `json:"plain,omitempty"`
	// Further: another refused row of the event counts for it.
	Further bool           `json:"further,omitempty"`
	Columns []event.Column `json:"columns"`
	Rows    []int32        `json:"rows"` // numbers of the rows
	// Routes are the sinks that choose their rows, and To, by row, which ones it goes to:
	// bit n is the n-th. All are the others, which get all rows. A sink that comes later
	// chooses for itself.
	Routes []string `json:"routes,omitempty"`
	To     []uint64 `json:"to,omitempty"`
	All    []string `json:"all"`
}

const replayFormat = 1

// appendReplay encodes a record of replays.
func appendReplay(dst []byte, h *replayHead, e *event.Event, rows *event.Rows) ([]byte, error) {
	h.Format, h.Rows = replayFormat, []int32{}
	var b recordbatch.Builder
	b.Reset(e.ReceivedAt)
	b.AppendEvent(e)
	var row event.Event
	var data []byte
	for i := range rows.Len() {
		data = rows.Event(i, &row, data)
		h.Rows = append(h.Rows, row.Row)
		if len(h.Routes) > 0 {
			h.To = append(h.To, row.To)
		}
		b.AppendEvent(&row)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return dst, fmt.Errorf("encode a replay: %w", err)
	}
	return b.Finish(append(append(dst, text...), '\n'), recordbatch.None), nil
}

// readHead reads the head of a record of replays; what is behind it is left in rest.
func readHead(data []byte) (h *replayHead, rest []byte, err error) {
	text, rest, ok := bytes.Cut(data, []byte{'\n'})
	h = &replayHead{}
	if !ok {
		err = errors.New("it has no head")
	} else if err = json.Unmarshal(text, h); err == nil && h.Format != replayFormat {
		err = fmt.Errorf("it has format %d, of a later naru", h.Format)
	}
	return h, rest, err
}

// readRows gives the event of a replay, and its rows with their numbers, as copies.
func readRows(h *replayHead, batch []byte) (e event.Event, rows []event.Event, err error) {
	var dec recordbatch.Decoder
	n := 0
	err = dec.Each(batch, func(x *event.Event) error {
		switch {
		case n == 0:
			e = clone(x)
			e.Offset = h.At.Offset
		case n <= len(h.Rows):
			row := clone(x)
			row.Row = h.Rows[n-1]
			if n <= len(h.To) {
				row.To = h.To[n-1]
			}
			rows = append(rows, row)
		}
		n++
		return nil
	})
	if err == nil && n != len(h.Rows)+1 {
		err = fmt.Errorf("it has %d records, its head says %d", n, len(h.Rows)+1)
	}
	return e, rows, err
}

// beside gives what the log has of replays, as ranges of the lane of replays; none when
// nothing was ever replayed.
func (t tap) beside(ctx context.Context) ([]stream.Range, error) {
	st, err := t.log.Stat(ctx, replayStream(t.name))
	if errors.Is(err, stream.ErrNoStream) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", replayStream(t.name), err)
	}
	return inReplayLane(st).Ranges, nil
}

func inReplayLane(st stream.Stat) stream.Stat {
	st.Ranges = slices.Clone(st.Ranges)
	for i := range st.Ranges {
		st.Ranges[i].Partition += replayLane
	}
	trimmed := map[int32]int64{}
	for partition, n := range st.Trimmed {
		trimmed[partition+replayLane] = n
	}
	st.Trimmed = trimmed
	return st
}

// moved is a replay as a sink counts it.
type moved struct {
	offset   int64
	rows     bool // there are some
	filtered bool // the sink has counted the event as filtered, not as a rejection
}

// countMoved says what replays at or behind an offset change in the counts: nothing in
// their sum.
func (x *portion) countMoved(from int64) (c stream.Counts) {
	for _, m := range x.moved {
		if _, no := slices.BinarySearch(x.refused, m.offset); no || m.offset < from {
			continue
		}
		if m.filtered {
			c.Filtered--
		} else {
			c.Rejections--
		}
		if m.rows {
			c.Written++
		} else {
			c.Filtered++
		}
	}
	return c
}

// replays gives what stands at a place of the replays. The rows were computed when each
// was replayed, so nothing can refuse them here but the sink.
func (t tap) replays(ctx context.Context, from event.Position) (*portion, error) {
	at := from
	at.Partition -= replayLane
	b, err := t.log.Read(ctx, replayStream(t.name), at, t.readBytes())
	if errors.Is(err, stream.ErrTrimmed) {
		t.logger.Warn("retention has dropped replays before a sink had them (log.drop_unread); they stay counted as rejections", slog.String("sink", t.sink))
		b, err = t.log.Read(ctx, replayStream(t.name), event.Position{Partition: at.Partition}, t.readBytes())
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", replayStream(t.name), err)
	}
	in := *b
	in.Stream, in.Partition = t.stream, b.Partition+replayLane
	x := &portion{in: &in, moved: []moved{}}
	out := in
	out.Raw, out.Rows = nil, &event.Rows{}
	x.out = &out
	var dec recordbatch.Decoder
	var last *replayHead // of which there are rows in out
	err = dec.EachIn(b, func(e *event.Event) error {
		h, batch, err := readHead(e.Data)
		if err != nil {
			return fmt.Errorf("replay at %d of %s: %w", e.Offset, replayStream(t.name), err)
		}
		columns := h.Columns
		if h.Plain && !t.tabular {
			columns = nil
		}
		mine := t.takes(h)
		if mine {
			// Rows of one form and of one way to be counted; the rest is the next portion.
			if last != nil && (last.Further != h.Further || (out.Columns == nil) != (columns == nil) || !slices.Equal(out.Columns, columns)) {
				in.Next = e.Offset
				return recordbatch.ErrStop
			}
			// The sink has to have counted the event before it counts the replay.
			if ready, err := t.reached(ctx, h.At); err != nil || !ready {
				if err == nil && last == nil {
					err = t.await(ctx, h.At)
				} else if err == nil {
					in.Next = e.Offset
					return recordbatch.ErrStop
				}
				if err != nil {
					return err
				}
				mine = t.takes(h) // a backfill may have been given up meanwhile
			}
		}
		if last == nil {
			out.Columns = columns
		}
		if !mine {
			return nil
		}
		last = h
		as, rows, err := readRows(h, batch)
		if err != nil {
			return fmt.Errorf("replay at %d of %s: %w", e.Offset, replayStream(t.name), err)
		}
		chosen := true
		if bit := slices.Index(h.Routes, t.sink); bit >= 0 {
			rows = slices.DeleteFunc(rows, func(e event.Event) bool { return e.To&(1<<bit) == 0 })
			chosen = len(rows) > 0
		} else if !slices.Contains(h.All, t.sink) {
			if rows, err = t.chosenLate(ctx, h, &as, rows); err != nil {
				return err
			}
			chosen = len(rows) > 0
		}
		if h.Plain && !t.tabular && chosen {
			rows = append(rows[:0], as)
		}
		origin := h.At
		for i := range rows {
			rows[i].Offset, rows[i].Origin = e.Offset, &origin
		}
		out.Rows.Add(rows...)
		if !h.Further {
			x.moved = append(x.moved, moved{offset: e.Offset, rows: len(rows) > 0, filtered: t.uncounted(h.At)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Next = in.Next
	return t.own(lane{in.Incarnation, in.Partition}, x), nil
}

// chosenLate leaves of a replay's rows those that the `where` of a sink lets pass that was
// not there yet. It is computed with the steps of now; what they refuse is not for it.
func (t tap) chosenLate(ctx context.Context, h *replayHead, e *event.Event, rows []event.Event) ([]event.Event, error) {
	t.mu.Lock()
	newest := t.mu.state.Versions[len(t.mu.state.Versions)-1]
	def := t.mu.defs[newest.Hash]
	t.mu.Unlock()
	own := def.Sink(t.sink)
	if own == nil || own.Where == "" {
		return rows, nil
	}
	x := program{key: newest.Hash + " replayed " + t.sink, types: def.From.Types, steps: def.Steps}
	if len(x.steps) == 0 {
		x.steps = transform.Everything
	}
	x.steps = append(slices.Clone(x.steps), transform.Where(t.sink, own.Where, 0))
	done, err := t.one(ctx, x, e, h.At)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(row event.Event) bool {
		return !slices.ContainsFunc(done.Batch.Rows.List, func(now event.Row) bool { return now.Number == row.Row && now.To&1 != 0 })
	}), nil
}

// one computes a program over one event.
func (f *flow) one(ctx context.Context, x program, e *event.Event, at event.Position) (*transform.Applied, error) {
	tr, err := f.transform(ctx, x)
	if err != nil {
		return nil, err
	}
	alone := *e
	alone.Origin = nil
	in := &event.Batch{Stream: f.stream, Incarnation: at.Incarnation, Partition: at.Partition, From: at.Offset, Next: at.Offset + 1, Rows: event.RowsOf(alone)}
	done, err := tr.Apply(ctx, in, func(e *event.Event) bool {
		return len(x.types) == 0 || slices.Contains(x.types, string(e.Type))
	})
	if err != nil {
		return nil, fmt.Errorf("compute steps at %s: %w", at, err)
	}
	return done, nil
}

// takes tells whether a replay is for this sink.
func (t tap) takes(h *replayHead) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return h.Stream == t.stream && (h.Sink == "" || h.Sink == t.sink) &&
		h.At.Offset >= t.mu.state.Sinks[t.sink].Start[h.At.Partition] && !t.mu.state.recomputed(h.Rejection, h.At, t.sink) &&
		(h.Sink != "" || !t.mu.state.had(h.Rejection, h.At, t.sink))
}

// uncounted tells whether the sink's counts began behind a place, which they so have as
// filtered.
func (t tap) uncounted(at event.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return at.Offset < t.mu.state.Sinks[t.sink].Counts[at.Partition]
}

// reached tells whether the sink has passed a place, durably, and is not being filled
// anew: what it got now would be gone with its target.
func (t tap) reached(ctx context.Context, at event.Position) (bool, error) {
	for _, b := range t.backfills() {
		if b.Sink == t.sink && b.Into == "" && (b.Phase == filling || b.Phase == swapping) {
			return false, nil
		}
	}
	st, err := t.log.Stat(ctx, t.stream)
	if err != nil {
		return false, err
	}
	p, err := t.log.Progress(ctx, sinkReader(t.name, t.sink))
	if err != nil {
		return false, err
	}
	return stream.Reached(st, p.Positions, at.Partition) > at.Offset, nil
}

// patience is how long a replay waits before it looks again how far its sink is.
const patience = 50 * time.Millisecond

func (t tap) await(ctx context.Context, at event.Position) error {
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		if ready, err := t.reached(ctx, at); ready || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// had tells whether a sink had passed an event before the rewind, or the backfill, in which
// steps have refused it: the rejection is of the others then.
func (s *state) had(rejection, at event.Position, sink string) bool {
	for _, b := range s.Backfills {
		if b.Sink == sink && b.Into == "" && (b.Phase == filling || b.Phase == swapping) &&
			rejection.Offset >= limits(b.Records)[rejection.Partition] && at.Offset >= limits(b.From)[at.Partition] {
			return false // what is to replace its target has not
		}
	}
	for _, r := range slices.Backward(s.Rewound) {
		if rejection.Offset < limits(r.Records)[rejection.Partition] || slices.Contains(r.Apart, sink) {
			continue
		}
		from, ok := r.From[sink]
		return ok && at.Offset < from[at.Partition]
	}
	return false
}

// recomputed tells whether a sink has got, or will get, what became of an event when it
// was computed again after a rejection.
func (s *state) recomputed(rejection, at event.Position, sink string) bool {
	for _, r := range s.Rewound {
		if rejection.Offset >= limits(r.Records)[rejection.Partition] || slices.Contains(r.Apart, sink) || len(r.From) == 0 {
			continue
		}
		from, ok := r.From[sink]
		if !ok { // it came later, and reads what all have
			for _, places := range r.From {
				if from == nil || places[at.Partition] < from[at.Partition] {
					from = places
				}
			}
		}
		if at.Offset >= from[at.Partition] {
			return true
		}
	}
	return false
}
