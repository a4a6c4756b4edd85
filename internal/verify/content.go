package verify

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/stream/seglog"
)

// hasher sums the leaves of an event or a row.
type hasher struct {
	leaves
	seed maphash.Seed
	sum  uint64
}

func newHasher() *hasher {
	h := &hasher{seed: maphash.MakeSeed()}
	h.take = func(path, value []byte) {
		h.sum += mix(maphash.Bytes(h.seed, path) + mix(maphash.Bytes(h.seed, value)))
	}
	return h
}

func (v *verifier) contentOfEvent(e *event.Event, s *streamState) uint64 {
	v.hash.sum, v.hash.shape = 0, s.shape
	v.hash.event(e, s.name == event.RejectedStream)
	return mix(v.hash.sum ^ mix(uint64(e.Offset)^v.seed))
}

// shape asks the lake what contracts say; nil where there is none.
func (v *verifier) shape() func(contract []byte) *lake.Shape {
	if v.Lake == nil {
		return nil
	}
	return v.Lake.Shape
}

func (v *verifier) contentOfRow(r *columnar.Row, layout columnar.Layout) uint64 {
	v.hash.sum = 0
	v.hash.row(r, layout)
	return mix(v.hash.sum ^ mix(uint64(r.Offset)^v.seed))
}

// inLog tells whether the log has events of a stream at these offsets.
func (v *verifier) inLog(stream string, first, last int64) bool {
	for _, l := range v.lanes {
		if l.stream == stream && l.seen.touches(first, last+1) {
			return true
		}
	}
	return false
}

// comparable tells whether any row of a file has its event in the log.
func (v *verifier) comparable(ctx context.Context, f dataFile) bool {
	if !v.Deep || f.table.audit.Schema == nil {
		return false
	}
	some := false
	want := func(first, last int64) bool {
		some = some || v.inLog(f.table.ident.Namespace, first, last)
		return false
	}
	_, err := columnar.ReadPlaces(ctx, v.FS, f.Path, columnar.PlacesOptions{Want: want}, func(*columnar.Places) error {
		some = true // no statistics
		return nil
	})
	return some && err == nil
}

// readContent is readFile with all columns.
func (v *verifier) readContent(ctx context.Context, f dataFile, fn func(l *lane, r *columnar.Row) error) (int64, error) {
	p := places{v: v, stream: f.table.ident.Namespace}
	var log []byte
	return columnar.ReadRows(ctx, v.FS, f.Path, f.table.audit.Schema, func(r *columnar.Row) error {
		if len(r.Log) == 0 {
			return fn(nil, r)
		}
		if string(log) != string(r.Log) {
			log = slices.Clone(r.Log)
		}
		return fn(p.at(log, r.Partition), r)
	})
}

// maxCompared bounds the events of which is said in what their rows differ.
const maxCompared = 100

// compareContent names the events whose rows say something else, and in what.
func (x *exact) compareContent(ctx context.Context) error {
	want := map[place]map[string]int{} // of each leaf: how many more the event has
	files := map[uint32]bool{}
	for _, at := range x.order {
		c := x.chunks[at]
		c.differ.each(func(i int) bool {
			want[place{at.lane, at.number<<chunkBits + int64(i)}] = map[string]int{}
			files[c.rows[i]] = true
			return len(want) < maxCompared
		})
	}
	if len(want) == 0 {
		return nil
	}
	var cur map[string]int
	delta := 1
	s := leaves{shape: x.shape(), take: func(path, value []byte) { cur[string(path)+"\x00"+string(value)] += delta }}
	o := seglog.SurveyOptions{Skip: func(has []seglog.SegmentStream) bool {
		return !slices.ContainsFunc(has, func(g seglog.SegmentStream) bool { return x.wanted(g.Stream, g.First, g.End-1) })
	}}
	_, err := seglog.Walk(ctx, x.FS, x.LogDir, o, func(b *seglog.Logged) error {
		if !x.wanted(b.Stream, b.From, b.Next-1) {
			return nil
		}
		l := x.lane(laneKey{b.Stream, b.Incarnation, b.Partition})
		return x.eachEvent(b, func(e *event.Event) error {
			if cur = want[place{l, e.Offset}]; cur != nil {
				s.event(e, b.Stream == event.RejectedStream)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read log again: %w", err)
	}
	delta = -1
	for i, f := range x.files {
		if !files[uint32(i+1)] {
			continue
		}
		_, err := x.readContent(ctx, f, func(l *lane, r *columnar.Row) error {
			if cur = want[place{l, r.Offset}]; cur != nil {
				s.row(r, f.table.audit.Schema.Layout)
			}
			return nil
		})
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, at := range x.order {
		c := x.chunks[at]
		c.differ.each(func(i int) bool {
			p, f := place{at.lane, at.number<<chunkBits + int64(i)}, x.files[c.rows[i]-1]
			what := "the row says something else than its event"
			if w := want[p]; w != nil {
				what += ", in " + differing(w)
			}
			x.wrong.add(Content, p.lane, f.table.ident.String(), p.offset, what, f.Path)
			return true
		})
	}
	return nil
}

// differing names the paths of the leaves that only one side has.
func differing(leaves map[string]int) string {
	names := map[string]bool{}
	for leaf, n := range leaves {
		if n == 0 {
			continue
		}
		leaf = strings.TrimPrefix(leaf, "\x00")
		name, _, _ := strings.Cut(leaf, "\x00")
		names[name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}
