package verify

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/stream/seglog"
)

// readLog sums all events that the log has, table by table.
func (v *verifier) readLog(ctx context.Context) error {
	o := seglog.SurveyOptions{Progress: func(done, all int64) { v.tell("log", done, all) }}
	log, err := seglog.Walk(ctx, v.FS, v.LogDir, o, func(b *seglog.Logged) error {
		if ofReplays(b.Stream) {
			return v.readReplay(b)
		}
		if event.Internal(b.Stream) {
			return nil
		}
		l := v.lane(laneKey{b.Stream, b.Incarnation, b.Partition})
		s := v.stream(b.Stream)
		n := int32(0)
		err := v.eachEvent(b, func(e *event.Event) error {
			n++
			v.logged(s, l, e)
			if e.Refusal != nil && e.Refusal.At != "" {
				v.byPipelines++
			}
			if b.RefusedFrom == event.RejectedStream { // sent again from there
				put(v.states.resent, l.laneKey, e.Offset)
			}
			return nil
		})
		if err == nil && n != b.Count {
			v.wrong.note(Difference{Kind: BadCounts, Stream: b.Stream, Log: &l.inc, Partition: b.Partition, Count: int64(n),
				Detail: fmt.Sprintf("the batch at offset %d holds %d events, its frame says %d", b.From, n, b.Count)})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	v.log = log
	for _, d := range log.Damage {
		v.wrong.note(damage(d))
	}
	v.setLanes()
	return v.setLosses()
}

// setLosses takes in what repairs of the log have given up.
func (v *verifier) setLosses() error {
	losses, err := seglog.Losses(v.FS, v.LogDir)
	if err != nil {
		v.wrong.note(damage(err))
		return nil
	}
	for _, x := range losses {
		if !x.Known() {
			v.explained.note(Difference{Kind: Lost, Detail: "a repair of the log has given up " + x.String()})
			continue
		}
		if ofReplays(x.Stream) {
			for o := x.First; o < x.End; o++ {
				put(v.states.replays.lost, laneKey{x.Stream, x.Incarnation, x.Partition}, o)
			}
			v.explained.note(Difference{Kind: Lost, Detail: "a repair of the log has given up rejections that were replayed to a pipeline; " + x.String()})
			continue
		}
		if event.Internal(x.Stream) {
			v.explained.note(Difference{Kind: Lost, Detail: "a repair of the log has given up verdicts on duplicates: events that have no row for that look like missing ones; " + x.String()})
			continue
		}
		l := v.lane(laneKey{x.Stream, x.Incarnation, x.Partition})
		l.lost.add(x.First, x.End)
	}
	return nil
}

func damage(err error) Difference {
	d := Difference{Kind: BadLog, Detail: err.Error(), Hint: fault.HintOf(err)}
	var c *fault.Corrupt
	if errors.As(err, &c) {
		d.Files = []string{c.Path}
	}
	return d
}

func (v *verifier) eachEvent(b *seglog.Logged, fn func(*event.Event) error) error {
	for _, raw := range b.Raw {
		if err := v.dec.Each(raw, fn); err != nil {
			return fmt.Errorf("decode %s/%d at offset %d: %w", b.Stream, b.Partition, b.From, err)
		}
	}
	return nil
}

// setLanes takes in how far the log goes.
func (v *verifier) setLanes() {
	for _, st := range v.log.Streams {
		if event.Internal(st.Stream) {
			continue
		}
		ends := map[int32]int64{} // of the incarnation before
		for _, r := range st.Ranges {
			l := v.lane(laneKey{st.Stream, r.Incarnation, r.Partition})
			l.known, l.closed = true, r.Incarnation != st.Incarnation
			l.first, l.kept, l.end = ends[r.Partition], r.Start, r.End
			ends[r.Partition] = r.End
		}
	}
}

// target tells which table of the stream an event at a place belongs into; nil:
// one that is yet to be made.
func (s *streamState) target(l *lane, e *event.Event) *pinned {
	t := s.route(e.Type, e.Contract.Hash)
	if t != nil && e.Offset < l.start[t.number] {
		if other := s.byName[lake.OtherTable]; other != nil {
			return other
		}
	}
	return t
}

// logged takes in one event of the log.
func (v *verifier) logged(s *streamState, l *lane, e *event.Event) {
	v.events++
	s.inLog++
	l.seen.add(e.Offset, e.Offset+1)
	if v.duplicate(l, e.Offset) {
		if e.Offset < l.mark {
			s.doubles++ // the watermark has counted it
		} else {
			s.notYet++
		}
		return
	}
	t := s.target(l, e)
	switch {
	case t != nil && t.audit == nil && !t.absent:
		s.unread++ // nobody knows what it covers
	case t != nil && !t.absent && l.covered(t.number, e.Offset):
		if t.err != nil {
			s.unread++
			return
		}
		c := &l.chunk(e.Offset).cell(t.number).events
		c.add(mix(uint64(e.Offset) ^ v.seed))
		if v.Deep && t.audit.Schema != nil {
			c.content += v.contentOfEvent(e, s)
		}
	default:
		s.notYet++
		if e.Offset >= l.mark || t != nil && t.rolledBack(l, e.Offset) ||
			v.loading[s.name].Covers(event.Position{Incarnation: l.inc, Partition: l.partition, Offset: e.Offset}) {
			return
		}
		if t == nil || t.absent {
			name := s.tableOf(e)
			if t != nil {
				name = t.ident.Name
			}
			v.wrong.add(NoTable, l, s.name+"."+name, e.Offset, "the watermark has passed these events; the catalog has no such table").
				Hint = "if somebody dropped the table, its events of before are gone with it; else bring the catalog back from a backup"
			return
		}
		v.wrong.add(Skipped, l, t.ident.String(), e.Offset, "the watermark has passed these events, and their table does not cover them: they will not be loaded")
	}
}
