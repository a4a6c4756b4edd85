package verify

import (
	"context"
	"fmt"
	"math"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
)

// filled is a table that a configured pipeline fills, at one snapshot. What its steps
// make of an event is not for the log to say: it is held against what its commits have
// recorded, and its rows against the events that the log has, or had.
type filled struct {
	ident   lake.Ident
	audit   *iceberg.Audit
	have    lake.Tally // rows that name a place
	foreign int64
	damaged bool // a file could not be read: its rows are not in have
	lanes   map[laneID]*filledLane
}

type laneID struct {
	inc       event.Incarnation
	partition int32
}

// filledLane is what a table has of a lane.
type filledLane struct {
	of      *lane // nil: the log does not know it
	found   *lane // for findings: they are not those of the stream
	claimed int64 // the table's positions
}

// readFilled looks at the tables of pipelines.
func (v *verifier) readFilled(ctx context.Context) error {
	for i, t := range v.filled {
		v.tell("tables of pipelines", int64(i), int64(len(v.filled)))
		if err := v.readOneFilled(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) readOneFilled(ctx context.Context, t *filled) error {
	if t.audit.Err != nil {
		v.wrong.note(Difference{Kind: Stopped, Stream: t.ident.Namespace, Table: t.ident.String(), Detail: t.audit.Err.Error()})
		t.damaged = true
		return nil
	}
	for _, f := range t.audit.Files {
		rows, err := v.eachPlace(ctx, t, f.Path, func(at event.Position, path string) { v.filledRow(t, at, path) })
		switch {
		case err == nil && rows == f.Rows:
			continue
		case err == nil:
			v.wrong.note(Difference{Kind: BadFile, Stream: t.ident.Namespace, Table: t.ident.String(), Files: []string{f.Path}, Count: rows,
				Detail: fmt.Sprintf("the file has %d rows, its manifest says %d", rows, f.Rows)})
		case ctx.Err() != nil:
			return ctx.Err()
		case v.gone(err):
			return fmt.Errorf("%w: %w", errMoved, err)
		default:
			t.damaged = true
			v.wrong.note(Difference{Kind: BadFile, Stream: t.ident.Namespace, Table: t.ident.String(), Files: []string{f.Path}, Detail: err.Error(),
				Hint: "bring the file back from a backup: naru table fsck names all that are damaged"})
		}
	}
	return v.checkTally(ctx, t)
}

// eachPlace calls fn for the rows of a file that name a place in a log.
func (v *verifier) eachPlace(ctx context.Context, t *filled, path string, fn func(at event.Position, path string)) (int64, error) {
	return columnar.ReadPlaces(ctx, v.FS, path, columnar.PlacesOptions{}, func(b *columnar.Places) error {
		for i, offset := range b.Offset {
			inc, err := event.ParseIncarnation(string(b.Log[i]))
			if len(b.Log[i]) == 0 || err != nil {
				t.foreign++
				continue
			}
			fn(event.Position{Incarnation: inc, Partition: b.Partition[i], Offset: offset}, path)
		}
		return nil
	})
}

func (v *verifier) filledLane(t *filled, at event.Position) *filledLane {
	id := laneID{at.Incarnation, at.Partition}
	l := t.lanes[id]
	if l != nil {
		return l
	}
	l = &filledLane{found: &lane{laneKey: laneKey{t.ident.Namespace, at.Incarnation, at.Partition}}, claimed: math.MaxInt64}
	if of := v.lanes[laneKey{t.audit.Stream, at.Incarnation, at.Partition}]; of != nil && of.known {
		l.of = of
		if off, ok := t.audit.Positions.Get(at.Incarnation, at.Partition); ok || !of.closed {
			l.claimed = off
		}
	}
	t.lanes[id] = l
	return l
}

// filledRow takes in one row.
func (v *verifier) filledRow(t *filled, at event.Position, path string) {
	t.have.Add(at)
	l, table := v.filledLane(t, at), t.ident.String()
	switch {
	case l.of == nil:
		v.explained.add(UnknownLog, l.found, table, at.Offset, "rows of an incarnation that the log of this folder has never had: a rewind keeps them", path)
	case at.Offset >= l.of.end && l.of.closed:
		v.explained.add(Cut, l.found, table, at.Offset, "a repair has cut their events off the log; the rows stay", path)
	case at.Offset >= l.of.end:
		v.wrong.add(Ahead, l.found, table, at.Offset, "rows of events that the log has not", path)
	case at.Offset >= l.claimed && !hasOffset(v.states.replays.places, l.of.laneKey, at.Offset):
		v.wrong.add(Unclaimed, l.found, table, at.Offset, "rows at or behind the table's own positions: the next start would load them again", path)
	case l.of.seen.has(at.Offset) && v.duplicate(l.of, at.Offset):
		v.wrong.add(Judged, l.found, table, at.Offset, "rows of events that were judged to be duplicates", path)
	}
}

// checkTally holds the rows that there are against those that the commits have recorded.
func (v *verifier) checkTally(ctx context.Context, t *filled) error {
	want := t.audit.Committed
	if want == nil || *want == t.have || t.damaged {
		return nil
	}
	d := Difference{Stream: t.ident.Namespace, Table: t.ident.String(), Count: t.have.Rows - want.Rows}
	changed := false // by another engine, which says so
	for _, f := range t.audit.Foreign {
		changed = changed || !f.Rewrote()
	}
	switch {
	case d.Count < 0:
		d.Kind, d.Count = Missing, -d.Count
		d.Detail = fmt.Sprintf("its commits have written %d rows, %d are there", want.Rows, t.have.Rows)
		if changed {
			d.Kind = Removed
			d.Detail += "; another engine has removed rows: " + snapshots(t.audit.Foreign)
			v.explained.note(d)
			return nil
		}
	case d.Count > 0:
		d.Kind = Doubled
		d.Detail = fmt.Sprintf("its commits have written %d rows, %d are there", want.Rows, t.have.Rows)
	default:
		d.Kind, d.Detail = BadCounts, "it has as many rows as its commits have written, and of other events"
	}
	if d.Count == 1 { // then the sums say which
		if err := v.findOne(ctx, t, &d, t.have.Places-want.Places); err != nil {
			return err
		}
	}
	v.wrong.note(d)
	return nil
}

// findOne names the event of which there is one row more, or one less: by the difference
// of the sums.
func (v *verifier) findOne(ctx context.Context, t *filled, d *Difference, diff uint64) error {
	name := func(at event.Position) {
		d.Log, d.Partition, d.Offsets = &at.Incarnation, at.Partition, []Span{{at.Offset, at.Offset}}
	}
	if d.Kind == Missing {
		for _, l := range v.sortedLanes() {
			if l.stream != t.audit.Stream || !l.known {
				continue
			}
			at := event.Position{Incarnation: l.inc, Partition: l.partition}
			for at.Offset = l.first; at.Offset < l.end; at.Offset++ {
				if lake.PlaceHash(at) == -diff {
					name(at)
					return nil
				}
			}
		}
		return nil
	}
	foreign := t.foreign
	for _, f := range t.audit.Files {
		_, err := v.eachPlace(ctx, t, f.Path, func(at event.Position, path string) {
			if lake.PlaceHash(at) == diff {
				name(at)
				d.Files = append(d.Files, path)
			}
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errMoved, err) // it could be read a moment ago
		}
	}
	t.foreign = foreign
	return nil
}

// reportFilled lists the tables of pipelines.
func (v *verifier) reportFilled() []Table {
	out := []Table{}
	for _, t := range v.filled {
		r := Table{Table: t.ident.String(), Rows: t.have.Rows, Files: len(t.audit.Files), Foreign: t.foreign}
		switch {
		case t.damaged:
			r.Note = "cannot be read"
		case t.audit.Committed == nil:
			r.Note = "it has rows from before its commits counted them: whether all are there is not known"
		case len(t.audit.Foreign) > 0:
			r.Note = "another engine has changed it: " + snapshots(t.audit.Foreign)
		}
		out = append(out, r)
	}
	return out
}
