package verify

import (
	"context"
	"fmt"

	"naru/internal/event"
	"naru/internal/lake/columnar"
)

// readRows sums all rows of all tables by the places in the log that they name.
func (v *verifier) readRows(ctx context.Context) error {
	done, all := int64(0), int64(0)
	for _, f := range v.files {
		all += f.Bytes
	}
	for _, f := range v.files {
		v.tell("tables", done, all)
		done += f.Bytes
		if err := v.readFile(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// places finds the lane of each row of a file.
type places struct {
	v         *verifier
	stream    string
	log       []byte
	partition int32
	lane      *lane
}

func (p *places) at(log []byte, partition int32) *lane {
	if p.lane != nil && partition == p.partition && len(log) == len(p.log) && &log[0] == &p.log[0] {
		return p.lane
	}
	inc, err := event.ParseIncarnation(string(log))
	if err != nil {
		return nil
	}
	p.log, p.partition, p.lane = log, partition, p.v.lane(laneKey{p.stream, inc, partition})
	return p.lane
}

func (v *verifier) readFile(ctx context.Context, f dataFile) error {
	t := f.table
	s := v.stream(t.ident.Namespace)
	var rows int64
	var err error
	if v.comparable(ctx, f) {
		rows, err = v.sumContent(ctx, s, f)
	} else {
		rows, err = v.sumPlaces(ctx, s, f)
	}
	switch {
	case err == nil && rows != f.Rows:
		v.wrong.note(Difference{Kind: BadFile, Stream: s.name, Table: t.ident.String(), Files: []string{f.Path}, Count: rows,
			Detail: fmt.Sprintf("the file has %d rows, its manifest says %d", rows, f.Rows)})
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case v.gone(err):
		return fmt.Errorf("%w: %w", errMoved, err)
	default:
		v.wrong.note(Difference{Kind: BadFile, Stream: s.name, Table: t.ident.String(), Files: []string{f.Path}, Detail: err.Error(),
			Hint: "bring the file back from a backup: naru table fsck names all that are damaged"})
	}
	return nil
}

// sumPlaces sums the rows of a file by their places alone.
func (v *verifier) sumPlaces(ctx context.Context, s *streamState, f dataFile) (int64, error) {
	t := f.table
	p := places{v: v, stream: s.name}
	return columnar.ReadPlaces(ctx, v.FS, f.Path, columnar.PlacesOptions{}, func(b *columnar.Places) error {
		var l *lane
		first := int64(endless)
		for i, offset := range b.Offset {
			if len(b.Log[i]) == 0 {
				t.foreign++
				continue
			}
			at := p.at(b.Log[i], b.Partition[i])
			if at == nil {
				t.foreign++
				continue
			}
			if at != l {
				t.lowest(l, first)
				l, first = at, endless
			}
			t.rows++
			first = min(first, offset)
			v.row(s, t, l, offset)
		}
		t.lowest(l, first)
		return nil
	})
}

// sumContent sums the rows of a file with all that they say.
func (v *verifier) sumContent(ctx context.Context, s *streamState, f dataFile) (int64, error) {
	t := f.table
	return v.readContent(ctx, f, func(l *lane, r *columnar.Row) error {
		if l == nil {
			t.foreign++
			return nil
		}
		t.rows++
		t.lowest(l, r.Offset)
		if c := v.row(s, t, l, r.Offset); c != nil {
			c.rows.content += v.contentOfRow(r, t.audit.Schema.Layout)
		}
		return nil
	})
}

// lowest notes the lowest offset of the table's rows in a lane.
func (t *pinned) lowest(l *lane, offset int64) {
	if l == nil {
		return
	}
	if have, ok := t.first[l]; !ok || offset < have {
		t.first[l] = offset
	}
}

// row takes in one row. It returns where it was put when the log has its event.
func (v *verifier) row(s *streamState, t *pinned, l *lane, offset int64) *cell {
	c := l.chunk(offset)
	if !l.within(offset) {
		c.odd = true
		return nil
	}
	s.written++
	hash := mix(uint64(offset) ^ v.seed)
	if l.seen.has(offset) {
		x := c.cell(t.number)
		x.rows.add(hash)
		return x
	}
	c.unseen.add(hash)
	return nil
}

// chunkAt is a chunk of a lane by its number.
type chunkAt struct {
	lane   *lane
	number int64
}

// compare lists the chunks whose sums differ, or that need a closer look.
func (v *verifier) compare() (differ []chunkAt) {
	for _, l := range v.sortedLanes() {
		numbers := map[int64]bool{}
		for n := range l.chunks {
			numbers[n] = true
		}
		if l.known && l.end > l.first {
			for n := l.first >> chunkBits; n <= (l.end-1)>>chunkBits; n++ {
				numbers[n] = true
			}
		}
		for _, n := range sortedKeys(numbers) {
			if !v.same(l, n) {
				differ = append(differ, chunkAt{l, n})
			}
		}
	}
	return differ
}

// same tells whether the rows of a chunk are those that should be there.
func (v *verifier) same(l *lane, n int64) bool {
	c := l.chunks[n]
	if c == nil {
		c = &chunk{}
	}
	if c.odd || !l.known {
		return false
	}
	for _, x := range c.cells {
		if x != nil && x.events != x.rows {
			return false
		}
	}
	from, to := max(n<<chunkBits, l.first), min((n+1)<<chunkBits, l.end)
	if l.lost.touches(from, to) {
		return false
	}
	var want sums
	sure := true
	l.seen.without(from, to, func(from, to int64) {
		sure = sure && to <= l.mark
		for o := from; o < to; o++ {
			want.add(mix(uint64(o) ^ v.seed))
		}
	})
	return sure && want == c.unseen
}
