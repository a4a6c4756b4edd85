package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
)

// refused is what a sink has refused.
type refused []sink.Refusal

// refusals are the events, of one partition in one life of the log, that a
// pipeline's steps have refused, and the rows that its sinks have: what is on record,
// so that the events keep their verdict when they are read again.
type refusals struct {
	lanes map[lane]*verdicts
}

// verdicts of one lane.
type verdicts struct {
	steps []int64 // offsets, in order
	// floor: below it the steps' verdicts are not in memory any more (maxVerdicts).
	floor int64
	rows  map[string]map[int64][]int32 // by sink: offset, rows
}

// refusedRow is what a record in the stream `rejected` is about.
type refusedRow struct {
	by   string // the sink that refused it; empty: a step
	step string
	at   event.Position
	row  int32
}

// maxVerdicts bounds the offsets in memory, for a sink that lags far behind. Below
// them the steps are computed again, and what they refuse is refused: only an
// event that they treat otherwise this time (a limit of time) could then have two
// verdicts.
const maxVerdicts = 1 << 20

func newRefusals() *refusals { return &refusals{lanes: map[lane]*verdicts{}} }

func (r *refusals) lane(k lane) *verdicts {
	v := r.lanes[k]
	if v == nil {
		v = &verdicts{rows: map[string]map[int64][]int32{}}
		r.lanes[k] = v
	}
	return v
}

// add notes a rejection by a step (by is empty) or a sink.
func (r *refusals) add(by string, at event.Position, row int32) {
	v := r.lane(lane{at.Incarnation, at.Partition})
	if by != "" {
		m := v.rows[by]
		if m == nil {
			m = map[int64][]int32{}
			v.rows[by] = m
		}
		if !slices.Contains(m[at.Offset], row) {
			m[at.Offset] = append(m[at.Offset], row)
		}
		return
	}
	i, known := slices.BinarySearch(v.steps, at.Offset)
	if known {
		return
	}
	v.steps = slices.Insert(v.steps, i, at.Offset)
	if n := len(v.steps) - maxVerdicts; n > 0 {
		v.floor = v.steps[n-1] + 1
		v.steps = append([]int64(nil), v.steps[n:]...)
	}
}

// forget takes a rejection by a step out.
func (r *refusals) forget(at event.Position) {
	if v := r.lanes[lane{at.Incarnation, at.Partition}]; v != nil {
		if i, known := slices.BinarySearch(v.steps, at.Offset); known {
			v.steps = slices.Delete(v.steps, i, i+1)
		}
	}
}

// within gives the steps' verdicts for [from, next).
func (r *refusals) within(k lane, from, next int64) []int64 {
	v := r.lanes[k]
	if v == nil {
		return nil
	}
	i, _ := slices.BinarySearch(v.steps, from)
	j, _ := slices.BinarySearch(v.steps, next)
	return slices.Clone(v.steps[i:j])
}

// prune forgets what all sinks have passed.
func (r *refusals) prune(passed func(lane) int64) {
	for k, v := range r.lanes {
		low := passed(k)
		v.floor = max(v.floor, low)
		i, _ := slices.BinarySearch(v.steps, low)
		v.steps = v.steps[i:]
		for by, m := range v.rows {
			for off := range m {
				if off < low {
					delete(m, off)
				}
			}
			if len(m) == 0 {
				delete(v.rows, by)
			}
		}
	}
}

// empty tells whether nothing is in memory.
func (r *refusals) empty() bool {
	for _, v := range r.lanes {
		if len(v.steps) > 0 || len(v.rows) > 0 {
			return false
		}
	}
	return true
}

// rejection is the record of an event that a step or a sink has refused. It is no
// new acknowledgement: the event was acknowledged and accepted before.
func rejection(e *event.Event, pipeline, streamName, step string, reason event.Reason, detail string, at event.Position, row int32) event.Event {
	return event.Event{
		ID: fmt.Appendf(nil, "%s/%s/%s", pipeline, step, sink.AppendKey(nil, at, row)), GeneratedID: true,
		Source: []byte("naru/pipeline/" + pipeline), Type: []byte(recordbatch.RejectionType), ContentType: e.ContentType, Key: e.Key,
		Data: e.Data,
		Refusal: &event.Rejection{ID: string(e.ID), Type: string(e.Type), Stream: streamName, Reason: reason, Detail: detail,
			Rule: stream.PipelineReader + pipeline, Path: step, At: string(sink.AppendKey(nil, at, row)), Changed: e.Sent != nil},
	}
}

// writesOf makes record batches of events, each under the size at which a writer
// begins another one.
func writesOf(name string, events []event.Event, now time.Time) []stream.Write {
	var out []stream.Write
	var b recordbatch.Builder
	b.Reset(now)
	for i := range events {
		b.AppendEvent(&events[i])
		if b.Size() >= recordbatch.CutSize || i == len(events)-1 {
			n := b.Count()
			out = append(out, stream.Write{Stream: name, Batch: b.Finish(nil, recordbatch.Snappy), Count: n})
			b.Reset(now)
		}
	}
	return out
}

// scan reads the rejections of a pipeline, in what it reads of a stream, that stand in the stream `rejected` from a
// place on, and returns where that ends.
func scan(ctx context.Context, log stream.Log, pipeline, of string, from event.Positions, most stream.Bytes, fn func(record event.Position, r refusedRow) error) (event.Positions, error) {
	end := event.Positions{}
	st, err := log.Stat(ctx, event.RejectedStream)
	if errors.Is(err, stream.ErrNoStream) {
		return end, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", event.RejectedStream, err)
	}
	var dec recordbatch.Decoder
	for partition, at := range starts(st, from, nil) {
		first, upTo := beginOf(st, partition), endOf(st, partition)
		for max(at.Offset, first) < upTo.Offset { // offsets run on through the lives of a log
			b, err := log.Read(ctx, event.RejectedStream, at, most)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", event.RejectedStream, err)
			}
			err = dec.EachIn(b, func(e *event.Event) error {
				r := e.Refusal
				if r == nil || r.At == "" || r.Rule != stream.PipelineReader+pipeline || r.Stream != of {
					return nil
				}
				place, row, err := sink.ParseKey(r.At)
				if err != nil {
					return nil // no record of ours
				}
				what := refusedRow{step: strings.Clone(r.Path), at: place, row: row}
				if r.Reason == event.SinkRefused {
					what.by = what.step
				}
				return fn(event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}, what)
			})
			if err != nil {
				return nil, err
			}
			at = b.End()
		}
		end.Advance(upTo)
	}
	return end, nil
}

// endOf is where a partition ends.
func endOf(st stream.Stat, partition int32) event.Position {
	at := event.Position{Incarnation: st.Incarnation, Partition: partition}
	for _, r := range st.Ranges {
		if r.Partition == partition {
			at = event.Position{Incarnation: r.Incarnation, Partition: partition, Offset: r.End}
		}
	}
	return at
}

// beginOf is the oldest offset that is left of a partition.
func beginOf(st stream.Stat, partition int32) int64 {
	for _, r := range st.Ranges {
		if r.Partition == partition {
			return r.Start
		}
	}
	return 0
}
