package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
)

// States sums what the stream rejected_states says of rejections.
type States struct {
	Open      int64 `json:"open"` // neither of the others
	Replayed  int64 `json:"replayed"`
	Discarded int64 `json:"discarded"`
}

// states holds rejections, their states and the events that were sent again
// against each other: a state and its event are of one frame, so each replayed
// rejection names one event that was sent again, each such event is named once,
// and what was discarded has none. It takes 16 bytes for each run of offsets.
type states struct {
	closed    map[laneKey]*runs // rejections that were replayed or discarded
	twice     map[laneKey]*runs // more than once
	uncounted map[laneKey]*runs // replayed, and not among the log's rejections

	named  map[laneKey]*runs // where replayed ones say that their events are
	shared map[laneKey]*runs // named more than once
	anew   map[laneKey]*runs // named by an uncounted one: acknowledged anew
	resent map[laneKey]*runs // events that the log has as sent again

	replays replays // those of steps and sinks, which go to their pipeline alone

	counts  States
	moved   int64 // replayed rejections that the log counts
	records int64 // of the stream rejected_states that were read
	bad     []Difference
}

func newStates() *states {
	s := &states{replays: newReplays()}
	for _, m := range []*map[laneKey]*runs{&s.closed, &s.twice, &s.uncounted, &s.named, &s.shared, &s.anew, &s.resent} {
		*m = map[laneKey]*runs{}
	}
	return s
}

// put adds an offset to a set; it tells whether it was there.
func put(sets map[laneKey]*runs, k laneKey, offset int64) (was bool) {
	r := sets[k]
	if r == nil {
		r = &runs{}
		sets[k] = r
	}
	if r.has(offset) {
		return true
	}
	r.add(offset, offset+1)
	return false
}

// change is a record of the stream rejected_states (docs/format/records.md).
type change struct {
	Log       string `json:"rejection_log"`
	Partition int32  `json:"rejection_partition"`
	Offset    int64  `json:"rejection_offset"`
	State     string `json:"state"`

	EventStream    string `json:"event_stream"`
	EventLog       string `json:"event_log"`
	EventPartition int32  `json:"event_partition"`
	EventOffset    int64  `json:"event_offset"`
}

// take takes in a record.
func (s *states) take(v *verifier, c *change) error {
	s.records++
	if c.State == "open" { // an attempt
		return nil
	}
	inc, err := event.ParseIncarnation(c.Log)
	if err != nil {
		return err
	}
	rejection := laneKey{event.RejectedStream, inc, c.Partition}
	if put(s.closed, rejection, c.Offset) {
		put(s.twice, rejection, c.Offset)
	}
	switch c.State {
	case "discarded":
		s.counts.Discarded++
		return nil
	case "replayed":
		s.counts.Replayed++
	default:
		return fmt.Errorf("state %q is not known", c.State)
	}
	counted := v.has(rejection, c.Offset)
	if inc, err = event.ParseIncarnation(c.EventLog); err != nil {
		return err
	}
	at := laneKey{c.EventStream, inc, c.EventPartition}
	if ofReplays(c.EventStream) {
		s.takeReplay(at, c.EventOffset, counted)
		return nil
	}
	if counted {
		s.moved++
	} else {
		put(s.uncounted, rejection, c.Offset)
	}
	if put(s.named, at, c.EventOffset) {
		put(s.shared, at, c.EventOffset)
	}
	if !counted {
		put(s.anew, at, c.EventOffset)
	}
	return nil
}

// has tells whether the log counts an event of a lane: it has it, or had it until
// retention came.
func (v *verifier) has(k laneKey, offset int64) bool {
	l := v.lanes[k]
	return l != nil && l.within(offset) && !l.lost.has(offset)
}

// readStates reads all states, from the log and, as far as retention has taken them
// from it, from their table. What the log has of events that were sent again is known
// by then.
func (v *verifier) readStates(ctx context.Context) error {
	if !slices.ContainsFunc(v.log.Streams, func(st stream.Stat) bool { return st.Stream == event.RejectedStates }) {
		return nil
	}
	of := func(has []seglog.SegmentStream) bool {
		return slices.ContainsFunc(has, func(s seglog.SegmentStream) bool { return s.Stream == event.RejectedStates })
	}
	o := seglog.SurveyOptions{Skip: func(has []seglog.SegmentStream) bool { return !of(has) },
		Progress: func(done, all int64) { v.tell("states of rejections", done, all) }}
	read := runsOf(v, event.RejectedStates)
	_, err := seglog.Walk(ctx, v.FS, v.LogDir, o, func(b *seglog.Logged) error {
		if b.Stream != event.RejectedStates {
			return nil
		}
		l := v.lanes[laneKey{b.Stream, b.Incarnation, b.Partition}]
		return v.eachEvent(b, func(e *event.Event) error {
			if l == nil || !l.seen.has(e.Offset) { // it came since
				return nil
			}
			var c change
			err := json.Unmarshal(e.Data, &c)
			if err == nil {
				err = v.states.take(v, &c)
			}
			if err != nil {
				return fmt.Errorf("record at %d of %s: %w", e.Offset, event.RejectedStates, err)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read states of rejections: %w", err)
	}
	if v.states.records < read {
		return fmt.Errorf("%w: states of rejections", errMoved)
	}
	return v.readStateRows(ctx)
}

// runsOf counts the events of a stream that were read from the log.
func runsOf(v *verifier, name string) (n int64) {
	for _, l := range v.lanes {
		if l.stream == name {
			for _, r := range l.seen {
				n += r.to - r.from
			}
		}
	}
	return n
}

// readStateRows reads the states that only their table has.
func (v *verifier) readStateRows(ctx context.Context) error {
	for _, f := range v.files {
		t := f.table
		if (t.ident != lake.Ident{Namespace: event.RejectedStates, Name: event.RejectedStates}) || t.audit == nil || t.audit.Schema == nil {
			continue
		}
		unseen := false
		want := func(first, last int64) bool {
			unseen = unseen || !v.allSeen(event.RejectedStates, first, last)
			return false
		}
		// A file that cannot be read has been named.
		if _, err := columnar.ReadPlaces(ctx, v.FS, f.Path, columnar.PlacesOptions{Want: want}, func(*columnar.Places) error {
			unseen = true // no statistics
			return nil
		}); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if !unseen {
			continue
		}
		_, err := v.readContent(ctx, f, func(l *lane, r *columnar.Row) error {
			if l == nil || !l.within(r.Offset) || l.seen.has(r.Offset) {
				return nil
			}
			c := changeOf(r)
			if err := v.states.take(v, &c); err != nil {
				v.states.bad = append(v.states.bad, Difference{Kind: State, Stream: event.RejectedStream, Table: t.ident.String(), Files: []string{f.Path},
					Detail: fmt.Sprintf("the row of %s/%d/%d is no state of a rejection: %v", l.inc, l.partition, r.Offset, err)})
			}
			return nil
		})
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// allSeen tells whether the log has all events of a stream at these offsets.
func (v *verifier) allSeen(name string, first, last int64) bool {
	for _, l := range v.lanes {
		if l.stream == name {
			if i, in := l.seen.at(first); in && l.seen[i].to > last {
				return true
			}
		}
	}
	return false
}

func changeOf(r *columnar.Row) (c change) {
	for i := range r.Values {
		x := &r.Values[i]
		switch x.Field.Path {
		case "rejection_log":
			c.Log = string(x.Text)
		case "rejection_partition":
			c.Partition = int32(x.Long)
		case "rejection_offset":
			c.Offset = x.Long
		case "state":
			c.State = string(x.Text)
		case "event_stream":
			c.EventStream = string(x.Text)
		case "event_log":
			c.EventLog = string(x.Text)
		case "event_partition":
			c.EventPartition = int32(x.Long)
		case "event_offset":
			c.EventOffset = x.Long
		}
	}
	return c
}

// checkStates names what does not agree.
func (v *verifier) checkStates() {
	s := v.states
	v.wrong.list = append(v.wrong.list, pointers(s.bad)...)
	v.nameAll(s.twice, "these rejections were closed more than once: by the stream rejected_states they were replayed or discarded again")
	strange := map[laneKey]*runs{}
	for k, set := range s.closed {
		if l := v.lanes[k]; l != nil && l.known { // else only the table has them: of a log that is gone
			for _, r := range *set {
				for o := r.from; o < r.to; o++ {
					if o < l.first || o >= l.end && !l.closed {
						put(strange, k, o)
					}
				}
			}
		}
	}
	v.nameAll(strange, "the stream rejected_states has states of these rejections, and the stream rejected has never had them")
	v.nameAll(s.shared, "more than one replayed rejection says that its event is here")
	gone, other, unnamed := map[laneKey]*runs{}, map[laneKey]*runs{}, map[laneKey]*runs{}
	for k, set := range s.named {
		for _, r := range *set {
			for o := r.from; o < r.to; o++ {
				switch l := v.lanes[k]; {
				case l == nil || !l.within(o):
					put(gone, k, o)
				case o < l.kept || l.lost.has(o) || hasOffset(s.resent, k, o) || hasOffset(s.anew, k, o) && l.seen.has(o):
				default:
					put(other, k, o)
				}
			}
		}
	}
	for k, set := range s.resent {
		for _, r := range *set {
			for o := r.from; o < r.to; o++ {
				if !hasOffset(s.named, k, o) {
					put(unnamed, k, o)
				}
			}
		}
	}
	v.nameAll(gone, "replayed rejections say that their events are here, and the log has never had such events")
	v.nameAll(other, "replayed rejections say that their events are here, and these events were not sent again")
	v.nameAll(unnamed, "these events were sent again, and the stream rejected_states has no rejection that was replayed as one of them")
	v.checkReplays()
	v.countStates()
}

// countStates holds the number of replays against what the log counts.
func (v *verifier) countStates() {
	s := v.states
	for _, st := range v.log.Streams {
		if st.Stream != event.RejectedStream {
			continue
		}
		s.counts.Open = max(st.Acknowledged-s.counts.Discarded-s.moved-s.replays.moved, 0)
		off, lost := st.Refused-s.moved, v.lostOf(event.RejectedStream)+v.lostOf(event.RejectedStates)
		if off == 0 || off < 0 && -off <= lost || off > 0 && off <= lost+v.statesMissing() {
			continue
		}
		v.wrong.note(Difference{Kind: BadCounts, Stream: event.RejectedStream, Count: off,
			Detail: fmt.Sprintf("the log counts %d rejections that were sent again, the stream rejected_states has %d", st.Refused, s.moved)})
	}
}

// statesMissing is how many records of states neither log nor table have: they are
// named as rows that are missing.
func (v *verifier) statesMissing() int64 {
	n := -v.states.records
	for _, l := range v.lanes {
		if l.stream == event.RejectedStates && l.known {
			n += l.end - l.first
		}
	}
	return max(n, 0)
}

func hasOffset(sets map[laneKey]*runs, k laneKey, offset int64) bool {
	r := sets[k]
	return r != nil && r.has(offset)
}

// nameAll makes a difference of each lane's set.
func (v *verifier) nameAll(sets map[laneKey]*runs, detail string) {
	for k, set := range sets {
		d := Difference{Kind: State, Stream: k.stream, Log: &k.inc, Partition: k.partition, Detail: detail}
		for _, r := range *set {
			d.Count += r.to - r.from
			if len(d.Offsets) == maxSpans {
				d.OffsetsCut = true
				continue
			}
			d.Offsets = append(d.Offsets, Span{r.from, r.to - 1})
		}
		if d.Count > 0 {
			v.wrong.note(d)
		}
	}
}

func pointers(list []Difference) (out []*Difference) {
	for i := range list {
		out = append(out, &list[i])
	}
	return out
}
