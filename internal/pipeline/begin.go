package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// startAt is the progress of a reader that begins at a place: what lies before counts
// as filtered, so that all that was acknowledged is accounted for.
func startAt(ctx context.Context, log stream.Log, name string, start definition.Start) (stream.Progress, error) {
	out := stream.Progress{Stream: name, Positions: event.Positions{}, Events: map[int32]int64{}}
	st, err := log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return out, nil // it begins with its first event
	}
	if err != nil {
		return out, err
	}
	offsets := map[int32]int64{}
	for partition := range starts(st, nil, nil) {
		at := beginOf(st, partition)
		switch {
		case start.Latest:
			at = endOf(st, partition).Offset
		case !start.At.IsZero():
			if at, err = offsetAt(ctx, log, st, partition, start.At); err != nil {
				return out, err
			}
		}
		offsets[partition] = at
	}
	return progressAt(st, offsets), nil
}

// progressAt is the progress of a reader that begins at these offsets, by partition.
func progressAt(st stream.Stat, offsets map[int32]int64) stream.Progress {
	out := stream.Progress{Stream: st.Stream, Positions: event.Positions{}, Events: map[int32]int64{}}
	for partition, at := range offsets {
		n := eventsBefore(st, partition, at)
		out.Positions.Advance(placeOf(st, partition, at))
		out.Events[partition] = n
		out.Counts.Filtered += n
	}
	return out
}

// eventsBefore counts what was acknowledged and accepted before an offset that the log
// still has, but for what a repair has lost.
func eventsBefore(st stream.Stat, partition int32, at int64) int64 {
	first := beginOf(st, partition)
	n := st.Trimmed[partition] + at - first
	for _, x := range st.Lost {
		if x.Partition == partition {
			n -= max(min(x.To, at)-max(x.From, first), 0)
		}
	}
	return n
}

// placeOf names an offset by the life of the log that it belongs to.
func placeOf(st stream.Stat, partition int32, at int64) event.Position {
	inc := endOf(st, partition).Incarnation
	for _, r := range st.Ranges {
		if r.Partition == partition && at >= r.Start && at < r.End {
			inc = r.Incarnation
			break
		}
	}
	return event.Position{Incarnation: inc, Partition: partition, Offset: at}
}

// offsetAt is the first offset of a partition whose event was received at a time or
// later; times of receipt do not go back but by a clock that was set back.
func offsetAt(ctx context.Context, log stream.Log, st stream.Stat, partition int32, when time.Time) (int64, error) {
	low, high := beginOf(st, partition), endOf(st, partition).Offset
	var dec recordbatch.Decoder
	for low < high {
		mid := low + (high-low)/2
		at := event.Position{Partition: partition, Offset: mid}
		for _, r := range st.Ranges {
			if r.Partition == partition && mid >= r.Start && mid < r.End {
				at.Incarnation = r.Incarnation
			}
		}
		if at.Incarnation.IsZero() {
			low = mid + 1 // a repair has lost it
			continue
		}
		b, err := log.Read(ctx, st.Stream, at, 1)
		if err != nil {
			return 0, fmt.Errorf("look for %s in %s: %w", when.Format(time.RFC3339), st.Stream, err)
		}
		found, late := mid, false
		b.Without = nil
		err = dec.EachIn(b, func(e *event.Event) error {
			found, late = e.Offset, !e.ReceivedAt.Before(when)
			return recordbatch.ErrStop
		})
		switch {
		case err != nil:
			return 0, err
		case late:
			high = mid
		default:
			low = max(found, mid) + 1
		}
	}
	return low, nil
}
