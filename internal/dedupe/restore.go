package dedupe

import (
	"context"
	"fmt"
	"sort"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// restore makes the index what it was at the lane's position: from its files and
// what the log has behind them, or from the log alone. Of the files only what is on
// record as durable counts: after a sync that failed, reads show what is not on the
// disk, and syncing it again does nothing.
func (l *lane) restore(ctx context.Context, st stream.Stat, lives []event.Incarnation, ordinal, durable int64) error {
	x := l.index
	ok, err := x.load(ctx, durable, lives)
	if err != nil {
		return err
	}
	oldest, any := l.oldest(st)
	if ordinal == 0 {
		return x.reset(0, l.at.Offset) // nothing is remembered
	}
	why := "there are no files"
	switch {
	case ok && l.hasLost(st, oldest):
		why = "a repair of the log has lost events" // whose ids must not stand in the way of sending them again
	case ok:
		if any { // the ordinals tell whether something is missing before the oldest event
			if err := l.replay(ctx, st, max(x.next, oldest), nil); err != nil {
				return err
			}
		}
		if x.ordinal == ordinal {
			if durable < l.at.Offset {
				l.loose = 1 // what was read again is durable when there is time for it
			}
			return nil
		}
		why = fmt.Sprintf("the files hold ids up to the %dth, the log %d", x.ordinal, ordinal)
	}
	if !any {
		return x.reset(ordinal, l.at.Offset)
	}
	from, err := l.windowStart(ctx, st, oldest)
	if err != nil {
		return err
	}
	l.logged(why, from)
	// From here on the log is all that has these ids.
	if err := l.court.durable(ctx, l.place(st, from)); err != nil {
		return err
	}
	// How many there are says which is the first: chunks begin at fixed ordinals, so
	// that the oldest ids go at the same events as they would have without this.
	if err := x.reset(0, from); err != nil {
		return err
	}
	n := int64(0)
	if err := l.replay(ctx, st, from, func() bool { n++; return false }); err != nil {
		return err
	}
	skip := max(n-ordinal, 0) // from before judging began
	if err := x.reset(ordinal-(n-skip), from); err != nil {
		return err
	}
	if err := l.replay(ctx, st, from, func() bool {
		skip--
		return skip < 0
	}); err != nil {
		return err
	}
	l.loose = 1
	return nil
}

// oldest is the first offset that the log has of the partition.
func (l *lane) oldest(st stream.Stat) (int64, bool) {
	for _, r := range st.Ranges {
		if r.Partition == l.id.partition && r.End > r.Start {
			return r.Start, true
		}
	}
	return 0, false
}

// readable is an end without what a repair has lost there: a reader would wait
// behind it for the next event.
func readable(st stream.Stat, partition int32, end int64) int64 {
	for again := true; again; {
		again = false
		for _, x := range st.Lost {
			if x.Partition == partition && x.From < end && end <= x.To {
				end, again = x.From, true
			}
		}
	}
	return end
}

// hasLost tells whether a repair has lost events behind the oldest one that is left.
func (l *lane) hasLost(st stream.Stat, oldest int64) bool {
	for _, x := range st.Lost {
		if x.Partition == l.id.partition && x.To > oldest {
			return true
		}
	}
	return false
}

// place is the position of an offset: offsets run on through the lives of a log.
func (l *lane) place(st stream.Stat, offset int64) event.Position {
	at := event.Position{Partition: l.id.partition}
	for _, r := range st.Ranges {
		if r.Partition != l.id.partition {
			continue
		}
		at.Incarnation, at.Offset = r.Incarnation, max(offset, r.Start)
		if offset < r.End {
			break
		}
		at.Offset = r.End
	}
	return at
}

// replay takes the events of [from, position) in by the verdicts on them. want, if
// given, says of each event that is to be remembered whether it is.
func (l *lane) replay(ctx context.Context, st stream.Stat, from int64, want func() bool) error {
	at := l.place(st, from)
	for end := readable(st, l.id.partition, l.at.Offset); at.Offset < end; {
		b, err := l.judge.log.Read(ctx, l.id.stream, at, readBytes)
		if err != nil {
			return fmt.Errorf("read %s again: %w", l.id.stream, err)
		}
		b.Next = min(b.Next, l.at.Offset)
		if at = b.End(); b.From >= l.at.Offset {
			break
		}
		if !identified(b) {
			l.index.next = b.Next
			continue
		}
		without, err := l.older(ctx, b.From, b.Next)
		if err != nil {
			return err
		}
		if err := l.learn(b, without, want); err != nil {
			return err
		}
	}
	l.index.next = l.at.Offset
	return nil
}

// learn takes in a batch whose duplicates are known.
func (l *lane) learn(b *event.Batch, without []event.Run, want func() bool) error {
	x := l.index
	for _, raw := range b.Raw {
		if h, err := recordbatch.ReadHead(raw); err == nil && !h.Identified {
			continue
		}
		err := l.dec.Each(raw, func(e *event.Event) error {
			if e.Offset < b.From || e.Offset >= b.Next || e.GeneratedID || len(e.ID) == 0 {
				return nil
			}
			for len(without) > 0 && without[0].To <= e.Offset {
				without = without[1:]
			}
			if err := x.see(e.Offset, e.ReceivedAt.UnixMilli()); err != nil {
				return err
			}
			if len(without) > 0 && without[0].From <= e.Offset || want != nil && !want() {
				return nil
			}
			return x.register(l.hash.key(e), l.hash.digest(e), e.Offset)
		})
		if err != nil {
			return fmt.Errorf("read ids of %s/%d at offset %d: %w", l.id.stream, l.id.partition, b.From, err)
		}
	}
	x.next = b.Next
	return nil
}

// windowStart is an offset before which no event is in the window any more. Times
// of receipt may go back where a clock was set: it looks twice as far.
func (l *lane) windowStart(ctx context.Context, st stream.Stat, oldest int64) (int64, error) {
	received := func(offset int64) (int64, error) {
		b, err := l.judge.log.Read(ctx, l.id.stream, l.place(st, offset), 1)
		if err != nil {
			return 0, fmt.Errorf("look for the window in %s: %w", l.id.stream, err)
		}
		h, err := recordbatch.ReadHead(b.Raw[len(b.Raw)-1])
		return h.MaxTimeMs, err
	}
	end := readable(st, l.id.partition, l.at.Offset)
	if end <= oldest {
		return l.at.Offset, nil
	}
	now, err := received(end - 1)
	if err != nil {
		return 0, err
	}
	var failed error
	n := sort.Search(int(end-oldest), func(i int) bool {
		if failed != nil {
			return true
		}
		t, err := received(oldest + int64(i))
		failed = err
		return t >= now-2*l.index.shape.window
	})
	return oldest + int64(n), failed
}
