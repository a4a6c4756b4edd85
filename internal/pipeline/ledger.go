package pipeline

import (
	"slices"

	"naru/internal/event"
	"naru/internal/stream"
)

// ledger remembers what was handed to the sink and is not yet committed, so
// that a watermark always stands at the end of a batch and its counts are
// exactly those of the events below it.
type ledger struct {
	at      stream.Progress // the watermark in the log
	pending map[lane][]span // in log order
	events  int64           // in pending
}

// lane is one partition in one life of the log.
type lane struct {
	inc       event.Incarnation
	partition int32
}

// span is a batch that waits for its commit.
type span struct {
	end    int64 // first offset behind it
	counts stream.Counts
	before []int64 // offsets that are counted as refused by the sink, in order
}

func newLedger(at stream.Progress) *ledger {
	counted := at.Events
	at = at.Clone()
	for _, parts := range at.Positions {
		for partition, off := range parts {
			if _, ok := counted[partition]; !ok { // an old record: see stream.Progress
				at.Events[partition] = max(at.Events[partition], off)
			}
		}
	}
	return &ledger{at: at, pending: map[lane][]span{}}
}

// wrote notes a batch that the sink has taken, with the fate of its events; before are
// those of which it had refused a row when it took them before.
func (l *ledger) wrote(b *event.Batch, c stream.Counts, before []int64) {
	k := lane{b.Incarnation, b.Partition}
	spans := l.pending[k]
	if len(spans) >= maxSpans {
		spans = join(spans)
	}
	l.pending[k] = append(spans, span{end: b.Next, counts: c, before: before})
	l.events += c.Total()
}

// maxSpans bounds a lane's spans, and so the ledger's memory: a table that takes
// no rows holds the watermark, while the others go on for as long as it takes.
const maxSpans = 4096

// join makes one span of every two: the watermark then goes in larger steps.
func join(spans []span) []span {
	half := make([]span, 0, maxSpans)
	for i := 0; i < len(spans); i += 2 {
		s := spans[i]
		if i+1 < len(spans) {
			s.end = spans[i+1].end
			s.counts = s.counts.Plus(spans[i+1].counts)
			s.before = slices.Concat(s.before, spans[i+1].before)
		}
		half = append(half, s)
	}
	return half
}

// settle moves the watermark over the batches that done covers whole. It tells
// whether the watermark moved: a place in the middle of a batch does not move
// it past the batch, because a watermark may lag but never lead.
func (l *ledger) settle(done event.Positions) bool {
	moved := false
	for k, spans := range l.pending {
		upTo, ok := done.Get(k.inc, k.partition)
		n := 0
		for ok && n < len(spans) && spans[n].end <= upTo {
			l.add(k.partition, spans[n].counts)
			n++
		}
		if n == 0 {
			continue
		}
		l.at.Positions.Advance(event.Position{Incarnation: k.inc, Partition: k.partition, Offset: spans[n-1].end})
		moved = true
		if n == len(spans) {
			delete(l.pending, k)
		} else {
			l.pending[k] = spans[n:]
		}
	}
	return moved
}

func (l *ledger) add(partition int32, c stream.Counts) {
	l.at.Counts = l.at.Counts.Plus(c)
	l.at.Events[partition] += c.Total()
	l.events -= c.Total()
}

// progress is a copy of the watermark that may leave the goroutine.
func (l *ledger) progress() stream.Progress {
	return l.at.Clone()
}

// refuse notes what the sink has refused of the events that wait: they were counted
// as written.
func (l *ledger) refuse(told refused) {
	type fate struct{ rejected, dropped bool }
	events := map[event.Position]fate{}
	for _, r := range told {
		f := events[r.At]
		f.rejected, f.dropped = f.rejected || !r.Dropped, f.dropped || r.Dropped
		events[r.At] = f
	}
	for at, f := range events {
		spans := l.pending[lane{at.Incarnation, at.Partition}]
		i := slices.IndexFunc(spans, func(s span) bool { return at.Offset < s.end })
		if i < 0 || spans[i].counts.Written == 0 {
			continue // below the watermark: it was counted before
		}
		if _, known := slices.BinarySearch(spans[i].before, at.Offset); known {
			continue
		}
		spans[i].counts.Written--
		if f.rejected {
			spans[i].counts.Rejections++
		} else {
			spans[i].counts.Filtered++
		}
	}
}

// end is where the last batch ends that the sink has taken.
func (l *ledger) end() event.Positions {
	out := event.Positions{}
	for k, spans := range l.pending {
		if n := len(spans); n > 0 {
			out.Advance(event.Position{Incarnation: k.inc, Partition: k.partition, Offset: spans[n-1].end})
		}
	}
	return out
}
