package dedupe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// Log is a log whose readers do not meet duplicates: a batch says which of its
// events are (event.Batch.Without). A Read waits until its events are judged; one
// of events without ids of their own waits for nothing.
type Log struct {
	stream.Log
	judge    *Judge
	recorded bool // nobody judges: only what is on record counts
	patience time.Duration
}

var (
	_ stream.Log       = (*Log)(nil)
	_ stream.Readers   = (*Log)(nil)
	_ stream.Forgetter = (*Log)(nil)
)

// Log is the judge's log for those who write events to tables, or show them.
func (j *Judge) Log() *Log { return &Log{Log: j.log, judge: j} }

// Impatient is the same log for those who would rather do without an event than
// wait long for its verdict.
func (l *Log) Impatient(patience time.Duration) *Log {
	c := *l
	c.patience = patience
	return &c
}

// errSlow: the verdict takes longer than the reader waits.
var errSlow = errors.New("the events are not judged yet")

// Recorded is a log without a judge: what was judged before stays so, and all that
// comes is kept.
func Recorded(log stream.Log) *Log {
	return &Log{Log: log, judge: New(Config{}, Deps{Log: log}), recorded: true}
}

// Read implements stream.Log.
func (l *Log) Read(ctx context.Context, name string, from event.Position, limit stream.Bytes) (*event.Batch, error) {
	b, err := l.Log.Read(ctx, name, from, limit)
	if err != nil || !judged(name) || !identified(b) {
		return b, err
	}
	lane := l.judge.lane(laneID{name, b.Partition})
	find := lane.duplicates
	if l.recorded {
		find = lane.older
	} else if err := l.wait(ctx, lane, b.Next); err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", name, from, err)
	}
	if b.Without, err = find(ctx, b.From, b.Next); err != nil {
		return nil, fmt.Errorf("read verdicts on %s at %s: %w", name, from, err)
	}
	return b, nil
}

func (l *Log) wait(ctx context.Context, at *lane, next int64) error {
	if l.patience == 0 {
		return at.wait(ctx, next)
	}
	short, cancel := context.WithTimeoutCause(ctx, l.patience, errSlow)
	defer cancel()
	return at.wait(short, next)
}

// Duplicate tells whether an event is on record as a duplicate. false also when it is
// not judged yet, or not any more: its log has dropped the verdict.
func (l *Log) Duplicate(ctx context.Context, name string, at event.Position) (bool, error) {
	st, err := l.judge.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) || err == nil && !judged(name) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, r := range st.Ranges { // a repair may have given the offset to another event
		if r.Incarnation != at.Incarnation || r.Partition != at.Partition || at.Offset < r.Start || at.Offset >= r.End {
			continue
		}
		runs, err := l.judge.lane(laneID{name, at.Partition}).older(ctx, at.Offset, at.Offset+1)
		return len(runs) > 0, err
	}
	return false, nil
}

// Readers implements stream.Readers: those that are not the judge's.
func (l *Log) Readers(ctx context.Context) (map[string]stream.Progress, error) {
	r, ok := l.Log.(stream.Readers)
	if !ok {
		return nil, nil
	}
	all, err := r.Readers(ctx)
	if l.recorded {
		return all, err // so that a judge that was turned off is forgotten
	}
	for name := range all {
		if stream.Judges(name) {
			delete(all, name)
		}
	}
	return all, err
}

// Forget implements stream.Forgetter.
func (l *Log) Forget(ctx context.Context, reader string) error {
	if f, ok := l.Log.(stream.Forgetter); ok {
		return f.Forget(ctx, reader)
	}
	return nil
}

// duplicates are the offsets of [from, next) that were judged to be duplicates. All
// of them are judged.
func (l *lane) duplicates(ctx context.Context, from, next int64) ([]event.Run, error) {
	l.mu.Lock()
	var out []event.Run
	known := from >= l.mu.from
	if known {
		for _, v := range l.mu.recent {
			if v.Next > from && v.From < next {
				out = append(out, cutRuns(v.Duplicates, from, next)...)
			}
		}
	}
	l.mu.Unlock()
	if known {
		return out, nil
	}
	return l.older(ctx, from, next)
}

// older reads the duplicates of [from, next) from the log.
func (l *lane) older(ctx context.Context, from, next int64) ([]event.Run, error) {
	name := StreamOf(l.id.stream)
	st, err := l.judge.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, end := int64(-1), int64(0)
	for _, r := range st.Ranges {
		if r.Partition == l.id.partition && r.End > r.Start {
			if first < 0 {
				first = r.Start
			}
			end = r.End
		}
	}
	end = readable(st, l.id.partition, end)
	if first < 0 || end <= first {
		return nil, nil
	}
	at, err := l.search(ctx, st, first, end, from)
	if err != nil {
		return nil, err
	}
	var out []event.Run
	last := at
	for done := false; !done && at < end; {
		err := l.verdicts(ctx, st, at, readVerdicts, func(offset int64, v Verdict) {
			if at = offset + 1; done || v.From >= next {
				done = true
				return
			}
			last = offset
			if v.Next > from {
				out = append(out, cutRuns(v.Duplicates, from, next)...)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	l.hint.Lock()
	l.hint.offset = last
	l.hint.Unlock()
	return out, nil
}

// readVerdicts is how much of the verdicts is read at once.
const readVerdicts = stream.Bytes(64 << 10)

// search finds, among the verdicts at [first, end), the first one that reaches
// beyond an offset. Reading goes on, so the one found last is tried first.
func (l *lane) search(ctx context.Context, st stream.Stat, first, end, from int64) (int64, error) {
	ends := func(at int64) (next int64, err error) {
		next = -1
		err = l.verdicts(ctx, st, at, 1, func(_ int64, v Verdict) {
			if next < 0 {
				next = v.Next
			}
		})
		return next, err
	}
	l.hint.Lock()
	low := min(max(l.hint.offset, first), end-1)
	l.hint.Unlock()
	high := end
	if low > first {
		before, err := ends(low - 1)
		if err != nil {
			return 0, err
		}
		if before > from { // the reader went back
			low, high = first, low
		} else if high = min(low+4, end); high < end {
			if here, err := ends(high - 1); err != nil {
				return 0, err
			} else if here <= from {
				low, high = high, end
			}
		}
	}
	for low < high {
		middle := low + (high-low)/2
		next, err := ends(middle)
		if err != nil {
			return 0, err
		}
		if next > from {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

// verdicts calls fn for the verdicts from one on, up to so many bytes, but for at
// least one.
func (l *lane) verdicts(ctx context.Context, st stream.Stat, at int64, limit stream.Bytes, fn func(int64, Verdict)) error {
	b, err := l.judge.log.Read(ctx, StreamOf(l.id.stream), l.place(st, at), limit)
	if err != nil {
		return err
	}
	var dec recordbatch.Decoder // several read side by side
	for _, raw := range b.Raw {
		err := EachVerdict(&dec, raw, func(offset int64, v Verdict) error {
			if offset >= at {
				fn(offset, v)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
