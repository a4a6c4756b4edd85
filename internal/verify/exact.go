package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	mathbits "math/bits"
	"slices"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
)

// chunksAtOnce bounds how many chunks are looked at one by one at a time: 1.5
// MiB each (5.5 MiB when content is compared), and 8 bytes for each row that is one too many. Every further
// chunksAtOnce read the segments and files that they touch again.
const chunksAtOnce = 32

// oneByOne finds out what is wrong in chunks whose sums differ.
func (v *verifier) oneByOne(ctx context.Context, differ []chunkAt) error {
	for part := range slices.Chunk(differ, chunksAtOnce) {
		x := &exact{verifier: v, chunks: map[chunkAt]*exactChunk{}, order: part}
		for _, at := range part {
			x.chunks[at] = &exactChunk{events: make([]uint16, chunkSize), rows: make([]uint32, chunkSize)}
			if v.Deep {
				x.chunks[at].said, x.chunks[at].says = make([]uint64, chunkSize), make([]uint64, chunkSize)
			}
		}
		if err := x.readLog(ctx); err != nil {
			return err
		}
		if err := x.readRows(ctx); err != nil {
			return err
		}
		for _, at := range part {
			x.judge(at, x.chunks[at])
		}
		if x.moved {
			return fmt.Errorf("%w: retention has dropped events that were read since", errMoved)
		}
		if err := x.explain(ctx); err != nil {
			return err
		}
		if err := x.compareContent(ctx); err != nil {
			return err
		}
		for _, at := range part {
			v.explainless(at)
		}
	}
	return nil
}

// explainless names a chunk whose sums differ, and in which nothing was found:
// that must not pass for well, whatever the reason is.
func (v *verifier) explainless(at chunkAt) {
	c := at.lane.chunks[at.number]
	unequal := c != nil && slices.ContainsFunc(c.cells, func(x *cell) bool { return x != nil && x.events != x.rows })
	if !unequal || v.wrong.chunks[at] || v.explained.chunks[at] {
		return
	}
	l, first := at.lane, at.number<<chunkBits
	v.wrong.note(Difference{Kind: BadCounts, Stream: l.stream, Log: &l.inc, Partition: l.partition,
		Offsets: []Span{{max(first, l.first), min(first+chunkSize, l.end) - 1}},
		Detail:  "rows and events differ, and which was not found: a file may have changed while it was read, or its statistics may be wrong"})
}

// exact looks at some chunks one by one.
type exact struct {
	*verifier
	chunks map[chunkAt]*exactChunk
	order  []chunkAt

	since *seglog.Survey // the watermarks as they are now
	moved bool           // begin anew
}

// place is one offset of a lane.
type place struct {
	lane   *lane
	offset int64
}

// exactChunk has what is there of each offset.
type exactChunk struct {
	events []uint16 // the table's number + 1; 0: the log has not the event; with uncovered: the table does not cover it
	rows   []uint32 // number of the file + 1 of the row; 0: there is none
	more   []extra  // further rows
	// With content: hashes of what the event and the row say; 0: not known.
	said, says []uint64

	lacks  bits // no row is there, and should be
	differ bits // the row says something else than the event
}

// bits are a set of places in a chunk; nil is empty.
type bits []uint64

func (b *bits) set(at int) {
	if *b == nil {
		*b = make(bits, chunkSize/64)
	}
	(*b)[at/64] |= 1 << (at % 64)
}

func (b bits) has(at int) bool { return b != nil && b[at/64]>>(at%64)&1 == 1 }

func (b bits) clear(at int) { b[at/64] &^= 1 << (at % 64) }

// each calls fn for each place in order, until it returns false.
func (b bits) each(fn func(at int) bool) bool {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			if !fn(i*64 + mathbits.TrailingZeros64(w)) {
				return false
			}
		}
	}
	return true
}

const uncovered = 1 << 15

// nowhere stands for a table that is yet to be made.
const nowhere = uncovered - 1

// judged stands for the table of an event that gets no row.
const judged = uncovered - 2

type extra struct{ at, file uint32 }

func (x *exact) chunk(l *lane, offset int64) *exactChunk {
	return x.chunks[chunkAt{l, offset >> chunkBits}]
}

// wanted tells whether any chunk of the stream lies in [first, last].
func (x *exact) wanted(stream string, first, last int64) bool {
	for at := range x.chunks {
		if at.lane.stream == stream && at.number >= first>>chunkBits && at.number <= last>>chunkBits {
			return true
		}
	}
	return false
}

func (x *exact) readLog(ctx context.Context) error {
	o := seglog.SurveyOptions{
		Progress: func(done, all int64) { x.tell("log, again", done, all) },
		Skip: func(has []seglog.SegmentStream) bool {
			return !slices.ContainsFunc(has, func(s seglog.SegmentStream) bool { return x.wanted(s.Stream, s.First, s.End-1) })
		},
	}
	_, err := seglog.Walk(ctx, x.FS, x.LogDir, o, func(b *seglog.Logged) error {
		if !x.wanted(b.Stream, b.From, b.Next-1) {
			return nil
		}
		l, s := x.lane(laneKey{b.Stream, b.Incarnation, b.Partition}), x.stream(b.Stream)
		return x.eachEvent(b, func(e *event.Event) error {
			if c := x.chunk(l, e.Offset); c != nil && l.seen.has(e.Offset) { // else it came since
				if x.duplicate(l, e.Offset) {
					c.events[e.Offset&(chunkSize-1)] = judged
					return nil
				}
				n := uint16(nowhere)
				t := s.target(l, e)
				if t != nil {
					n = uint16(t.number + 1)
				}
				if t == nil || t.absent || t.err != nil || !l.covered(t.number, e.Offset) {
					n |= uncovered
				}
				at := e.Offset & (chunkSize - 1)
				c.events[at] = n
				if c.said != nil && n&uncovered == 0 && t.audit.Schema != nil {
					c.said[at] = x.contentOfEvent(e, s)
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read log again: %w", err)
	}
	for at, c := range x.chunks {
		// Retention may have dropped segments since the first reading.
		at.lane.seen.within(at.number<<chunkBits, (at.number+1)<<chunkBits, func(o int64) bool {
			if c.events[o&(chunkSize-1)] == 0 {
				err = fmt.Errorf("%w: event %d of %s", errMoved, o, at.lane.stream)
			}
			return err == nil
		})
	}
	return err
}

func (x *exact) readRows(ctx context.Context) error {
	for i, f := range x.files {
		x.tell("tables, again", int64(i), int64(len(x.files)))
		p := places{v: x.verifier, stream: f.table.ident.Namespace}
		want := func(first, last int64) bool { return x.wanted(p.stream, first, last) }
		_, err := columnar.ReadPlaces(ctx, x.FS, f.Path, columnar.PlacesOptions{Want: want}, func(b *columnar.Places) error {
			for j, offset := range b.Offset {
				if len(b.Log[j]) == 0 {
					continue
				}
				l := p.at(b.Log[j], b.Partition[j])
				if l == nil {
					continue
				}
				c := x.chunk(l, offset)
				if c == nil {
					continue
				}
				if at := offset & (chunkSize - 1); c.rows[at] == 0 {
					c.rows[at] = uint32(i + 1)
				} else {
					c.more = append(c.more, extra{uint32(at), uint32(i + 1)})
				}
			}
			return nil
		})
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case x.gone(err):
			return fmt.Errorf("%w: %w", errMoved, err)
		} // else it was named when it was read first
		if !x.comparable(ctx, f) {
			continue
		}
		_, err = x.readContent(ctx, f, func(l *lane, r *columnar.Row) error {
			if l == nil {
				return nil
			}
			if c := x.chunk(l, r.Offset); c != nil {
				c.says[r.Offset&(chunkSize-1)] = x.contentOfRow(r, f.table.audit.Schema.Layout)
			}
			return nil
		})
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// judge names what is wrong in a chunk.
func (x *exact) judge(at chunkAt, c *exactChunk) {
	l := at.lane
	slices.SortStableFunc(c.more, func(a, b extra) int { return cmp.Compare(a.at, b.at) })
	more := c.more
	for i := range c.events {
		offset := at.number<<chunkBits + int64(i)
		var found []uint32
		if c.rows[i] != 0 {
			found = append(found, c.rows[i])
			for len(more) > 0 && more[0].at == uint32(i) {
				found = append(found, more[0].file)
				more = more[1:]
			}
		}
		if len(found) > 0 || l.within(offset) {
			x.judgeOne(l, offset, c, i, found)
		}
		if len(found) == 1 && c.said != nil && c.said[i] != 0 && c.says[i] != 0 && c.said[i] != c.says[i] &&
			x.files[found[0]-1].table.number+1 == int(c.events[i]) {
			c.differ.set(i)
		}
	}
}

func (x *exact) judgeOne(l *lane, offset int64, c *exactChunk, at int, found []uint32) {
	s, expected := x.stream(l.stream), c.events[at]
	paths, tables := x.where(found)
	if len(found) > 1 {
		x.wrong.add(Doubled, l, tables, offset, fmt.Sprintf("%d rows for each event", len(found)), paths...)
		if l.within(offset) {
			s.written -= int64(len(found) - 1)
		}
	}
	switch {
	case !l.known:
		x.wrong.add(UnknownLog, l, tables, offset, "rows of an incarnation that the log of this folder has never had", paths...).
			Hint = "bring back the log that belongs to these tables"
	case offset >= l.end && l.closed:
		x.explained.add(Cut, l, tables, offset, "a repair has cut their events off the log; the rows stay", paths...)
	case offset >= l.end:
		x.wrong.add(Ahead, l, tables, offset, fmt.Sprintf("rows of events that the log has not: it ends at %d", l.end), paths...).
			Hint = "bring back the log that belongs to these tables, or drop them so that they are loaded anew"
	case offset < l.first:
		x.wrong.add(Ahead, l, tables, offset, fmt.Sprintf("rows from before this incarnation of the log, which begins at %d", l.first), paths...)
	case expected == 0:
		if len(found) == 0 {
			x.lacking(l, offset, c, at)
		}
	case expected == judged:
		if len(found) > 0 {
			x.wrong.add(Judged, l, tables, offset, "these events were judged to be duplicates, and have rows", paths...)
		}
	case expected&uncovered == 0 && len(found) == 0:
		c.lacks.set(at)
	default:
		x.judgeKnown(s, l, offset, expected, found, tables, paths)
	}
}

// judgeKnown judges an event that the log has.
func (x *exact) judgeKnown(s *streamState, l *lane, offset int64, expected uint16, found []uint32, tables string, paths []string) {
	var home *pinned
	if n := int(expected &^ uncovered); n != nowhere {
		home = s.tables[n-1]
	}
	elsewhere := func(n uint32) bool { return x.files[n-1].table != home }
	switch {
	case slices.ContainsFunc(found, elsewhere):
		belongs := "a table that is yet to be made"
		if home != nil {
			belongs = home.ident.String()
		}
		x.wrong.add(Misplaced, l, tables, offset, "by their type these events belong into "+belongs, paths...)
	case expected&uncovered != 0 && len(found) > 0 && home.err == nil:
		x.wrong.add(Unclaimed, l, tables, offset, fmt.Sprintf("the table's own positions end at %d: the next start would load these events again", l.floor[home.number]), paths...)
	}
	if expected&uncovered != 0 && len(found) > 0 {
		s.notYet-- // it is there already
	}
}

// lacking takes in an event without a row whose record the log has not any more.
func (x *exact) lacking(l *lane, offset int64, c *exactChunk, at int) {
	switch {
	case l.lost.has(offset):
		x.explained.add(Lost, l, "", offset, "a repair of the log has given these events up")
	case offset >= l.mark && offset < l.kept && x.Beside && !x.DropUnread && x.readSince(l, offset):
		x.moved = true
	case offset >= l.mark && offset < l.kept && x.DropUnread:
		x.explained.add(DroppedUnread, l, "", offset, "retention dropped them before they were read (log.drop_unread)")
	case offset >= l.mark:
		x.wrong.add(Missing, l, "", offset, "the log has lost these events before any table took them")
	default:
		c.lacks.set(at)
	}
}

// readSince tells whether the watermark has passed an event since the run began:
// then retention was free to drop it.
func (x *exact) readSince(l *lane, offset int64) bool {
	if x.since == nil {
		now, err := seglog.Peek(x.FS, x.LogDir)
		if err != nil {
			return true // it is in flux
		}
		x.since = now
	}
	for name, p := range x.since.Readers {
		if p.Stream != l.stream || !stream.Loads(name) {
			continue
		}
		if offset < markOf(x.since, p.Positions, l.laneKey) {
			return true
		}
	}
	return false
}

// where names the files of some rows and their tables.
func (x *exact) where(found []uint32) (paths []string, tables string) {
	var names []string
	for _, n := range found {
		f := x.files[n-1]
		paths = append(paths, f.Path)
		if name := f.table.ident.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for i, n := range names {
		if i > 0 {
			tables += ", "
		}
		tables += n
	}
	return paths, tables
}

// passed is said of events that nobody knows the table of any more.
const passed = "the watermark has passed these events, and no table has a row of them"

// explain names the missing rows, those that another engine has removed apart.
func (x *exact) explain(ctx context.Context) error {
	lacks := map[string]bool{}
	for _, at := range x.order {
		if x.chunks[at].lacks != nil {
			lacks[at.lane.stream] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(lacks)) {
		for _, t := range x.streams[name].tables {
			if t.audit == nil {
				continue
			}
			if err := x.removed(ctx, t); err != nil {
				return err
			}
		}
	}
	for _, at := range x.order {
		l, c := at.lane, x.chunks[at]
		s := x.stream(l.stream)
		c.lacks.each(func(i int) bool {
			offset := at.number<<chunkBits + int64(i)
			if c.events[i] == 0 {
				x.wrong.add(Missing, l, "", offset, passed)
				return true
			}
			t := s.tables[c.events[i]-1]
			if first, ok := t.first[l]; t.audit.Remade && (!ok || offset < first) && !slices.Contains(x.loading[l.stream].Tables, t.ident.Name) {
				x.explained.add(Remade, l, t.ident.String(), offset, "they are from before the table was made anew: its folder says that one of the same name was dropped")
			} else {
				x.wrong.add(Missing, l, t.ident.String(), offset, "the table's positions cover these events, and it has no row of them")
			}
			return true
		})
	}
	return nil
}

// removed takes out what snapshots of other engines removed from the table. The
// files are still there for some time; after that nobody can tell.
func (x *exact) removed(ctx context.Context, t *pinned) error {
	for _, snap := range t.audit.Foreign {
		detail := fmt.Sprintf("snapshot %d (%s) of another engine has removed them", snap.ID, snap.Operation)
		for _, f := range snap.Removed {
			p := places{v: x.verifier, stream: t.ident.Namespace}
			want := func(first, last int64) bool { return x.wanted(p.stream, first, last) }
			_, err := columnar.ReadPlaces(ctx, x.FS, f.Path, columnar.PlacesOptions{Want: want}, func(b *columnar.Places) error {
				for j, offset := range b.Offset {
					if len(b.Log[j]) == 0 {
						continue
					}
					l := p.at(b.Log[j], b.Partition[j])
					if l == nil {
						continue
					}
					c, i := x.chunk(l, offset), int(offset&(chunkSize-1))
					if c == nil || !c.lacks.has(i) || c.events[i] != 0 && int(c.events[i]) != t.number+1 {
						continue
					}
					c.lacks.clear(i)
					if snap.Rewrote() {
						x.wrong.add(Missing, l, t.ident.String(), offset, detail+", and a snapshot that only writes files anew must not change a row", f.Path)
					} else {
						x.explained.add(Removed, l, t.ident.String(), offset, detail)
					}
				}
				return nil
			})
			if err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

func compareLanes(a, b *lane) int {
	return cmp.Or(cmp.Compare(a.stream, b.stream), cmp.Compare(a.partition, b.partition), cmp.Compare(a.inc.String(), b.inc.String()))
}

func (v *verifier) sortedLanes() []*lane {
	return slices.SortedFunc(maps.Values(v.lanes), compareLanes)
}

func sortedKeys(m map[int64]bool) []int64 { return slices.Sorted(maps.Keys(m)) }

// within calls fn for each offset of r in [from, to), until it returns false.
func (r runs) within(from, to int64, fn func(int64) bool) {
	i, _ := r.at(from)
	for ; i < len(r) && r[i].from < to; i++ {
		for o := max(from, r[i].from); o < min(to, r[i].to); o++ {
			if !fn(o) {
				return
			}
		}
	}
}
