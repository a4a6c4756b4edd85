package rejection

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// closed is which rejections are replayed or discarded, by position: a bit each,
// in pages that are made where one is set. A page of which all are set takes
// nothing. It only ever grows, so what is added twice changes nothing.
type closed struct {
	lanes map[laneKey]map[int64]*bitPage // by offset / pageBits
	pages int64                          // that take memory
	limit quantity.Bytes
	// counted is what the log has of the stream rejected, for a page's time.
	counted stream.Stat
}

type laneKey struct {
	inc       event.Incarnation
	partition int32
}

const pageBits = 1 << 16

type bitPage struct {
	words []uint64 // nil: all are set
	set   int
}

const pageBytes = pageBits / 8

// has tells whether the rejection is closed.
func (c *closed) has(at event.Position) bool {
	p := c.lanes[laneKey{at.Incarnation, at.Partition}][at.Offset/pageBits]
	if p == nil {
		return false
	}
	i := at.Offset % pageBits
	return p.words == nil || p.words[i/64]>>(i%64)&1 == 1
}

// add closes a rejection.
func (c *closed) add(at event.Position) error {
	k := laneKey{at.Incarnation, at.Partition}
	if c.lanes[k] == nil {
		c.lanes[k] = map[int64]*bitPage{}
	}
	p := c.lanes[k][at.Offset/pageBits]
	if p == nil {
		if (c.pages+1)*pageBytes > int64(c.limit) {
			return fault.WithHint(fmt.Errorf("%w: the index of closed rejections takes more than %s", fault.ErrLimit, c.limit),
				"raise rejected.memory in naru.yaml: it takes one bit for each rejection")
		}
		p = &bitPage{words: make([]uint64, pageBits/64)}
		c.lanes[k][at.Offset/pageBits] = p
		c.pages++
	}
	if p.words == nil {
		return nil
	}
	i := at.Offset % pageBits
	if was := p.words[i/64]; was>>(i%64)&1 == 0 {
		p.words[i/64] = was | 1<<(i%64)
		if p.set++; p.set == pageBits {
			p.words = nil
			c.pages--
		}
	}
	return nil
}

// acknowledged tells whether the log's counts have the rejection. They have not
// what a repair has cut off or lost, or what is of another log; its row may still
// be in the table.
func (c *closed) acknowledged(at event.Position) bool {
	for _, x := range c.counted.Lost {
		if x.Incarnation == at.Incarnation && x.Partition == at.Partition && at.Offset >= x.From && at.Offset < x.To {
			return false
		}
	}
	for _, r := range c.counted.Ranges {
		if r.Incarnation == at.Incarnation && r.Partition == at.Partition {
			return at.Offset < r.End
		}
	}
	return false
}

// load makes the index if there is none. The caller holds r.mu, so nobody adds
// states meanwhile.
func (r *Rejections) load(ctx context.Context) error {
	if r.known != nil {
		return nil
	}
	c := &closed{lanes: map[laneKey]map[int64]*bitPage{}, limit: r.cfg.Memory}
	states, err := r.stat(ctx, event.RejectedStates)
	if err != nil {
		return fmt.Errorf("load states of rejections: %w", err)
	}
	for _, x := range states.Ranges {
		if err := r.readStates(ctx, c, x); err != nil {
			return fmt.Errorf("load states of rejections: %w", err)
		}
	}
	if !whole(states) {
		if err := r.deps.Store.Closed(ctx, c.add); err != nil {
			return fmt.Errorf("load states of rejections from their table: %w", err)
		}
	}
	r.known = c
	return nil
}

// stat describes a stream; the zero Stat: there is none.
func (r *Rejections) stat(ctx context.Context, name string) (stream.Stat, error) {
	st, err := r.deps.Log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return stream.Stat{}, nil
	}
	return st, err
}

// whole tells whether the log still has all that was ever appended to a stream.
// Offsets run on through its lives.
func whole(st stream.Stat) bool {
	ends := map[int32]int64{}
	for _, r := range st.Ranges {
		if r.Start != ends[r.Partition] {
			return false
		}
		ends[r.Partition] = r.End
	}
	return len(st.Lost) == 0 && len(st.Trimmed) == 0
}

// readStates adds what a range of the stream rejected_states says.
func (r *Rejections) readStates(ctx context.Context, c *closed, x stream.Range) error {
	var dec recordbatch.Decoder
	for at := x.Start; at < x.End; {
		b, err := r.deps.Log.Read(ctx, event.RejectedStates, event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: at}, 1<<20)
		if errors.Is(err, stream.ErrTrimmed) {
			return fault.Transient(err) // retention has gone on: the next try sees that
		}
		if err != nil {
			return err
		}
		if b.Incarnation != x.Incarnation {
			return nil
		}
		if err := dec.EachIn(b, func(e *event.Event) error {
			ch, err := parseChange(e.Data)
			if err != nil {
				return fmt.Errorf("record at %d of %s: %w", e.Offset, event.RejectedStates, err)
			}
			if ch.State == Open {
				return nil
			}
			return c.add(ch.Position())
		}); err != nil {
			return err
		}
		at = b.Next
	}
	return nil
}
