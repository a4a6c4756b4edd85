package pipeline

import (
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
}

func newLedger(at stream.Progress) *ledger {
	at.Positions = at.Positions.Clone()
	return &ledger{at: at, pending: map[lane][]span{}}
}

// wrote notes a batch that the sink has taken, with the fate of its events.
func (l *ledger) wrote(b *event.Batch, c stream.Counts) {
	k := lane{b.Incarnation, b.Partition}
	l.pending[k] = append(l.pending[k], span{end: b.Next, counts: c})
	l.events += c.Written + c.Rejections + c.Duplicates + c.Filtered
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
			l.add(spans[n].counts)
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

func (l *ledger) add(c stream.Counts) {
	l.at.Counts.Written += c.Written
	l.at.Counts.Rejections += c.Rejections
	l.at.Counts.Duplicates += c.Duplicates
	l.at.Counts.Filtered += c.Filtered
	l.events -= c.Written + c.Rejections + c.Duplicates + c.Filtered
}

// progress is a copy of the watermark that may leave the goroutine.
func (l *ledger) progress() stream.Progress {
	p := l.at
	p.Positions = p.Positions.Clone()
	return p
}
