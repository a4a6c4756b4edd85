package columnar

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet/compress"
)

// encoder writes chunks into the open files of their partitions. It is used by one
// goroutine at a time: the one that encodes, or Finish when that has ended.
type encoder struct {
	opt   Options
	files map[string]*partFiles // by placement.key
}

// partFiles are the files of one partition since the last Finish.
type partFiles struct {
	placement
	open *part
	done []*part // closed for want of room, or because the schema changed
}

// placement is where rows stand: arranged so, in that partition.
type placement struct {
	by     Arrangement
	values []PartitionValue // one for each of by.Partition
	folder string
}

// key is the placement as text. Those of one arrangement are ordered by value.
func (p *placement) key() string {
	b := fmt.Appendf(nil, "%v %v|", p.by.Partition, p.by.Sort)
	for _, v := range p.values {
		if v.Null {
			b = append(b, 0)
			continue
		}
		b = binary.BigEndian.AppendUint64(append(b, 1), uint64(v.Long)^1<<63)
		b = append(binary.AppendUvarint(b, uint64(len(v.Text))), v.Text...)
	}
	return string(b)
}

// sorted lists the partitions in order.
func (x *encoder) sorted() []string { return slices.Sorted(maps.Keys(x.files)) }

// encode writes all rows of a chunk as row groups, one for each partition.
func (x *encoder) encode(c *chunk) error {
	c.close()
	if c.rows == 0 {
		return nil
	}
	by := *c.arranged
	groups := split(c, by.Partition)
	var o *order
	if len(by.Sort) > 0 {
		o = newOrder(by.Sort, c.schema, c.cols)
	}
	none := placement{by: Arrangement{Sort: by.Sort}}
	var rest []int32 // of partitions beyond the limit
	for _, g := range groups {
		p := placement{by: by, values: g.values}
		d := x.files[p.key()]
		if d == nil {
			switch full := len(by.Partition) > 0 && len(x.files) >= x.opt.MaxPartitions; {
			case full && g.rows != nil:
				rest = append(rest, g.rows...)
				continue
			case full:
				d = x.at(none)
			default:
				p.folder = folder(c.schema, by.Partition, g.values)
				d = x.at(p)
			}
		}
		if err := x.rows(d, c, g.rows, o); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	// A partition more would be a file more. These rows share one without any.
	slices.Sort(rest)
	return x.rows(x.at(none), c, rest, o)
}

// at gives the files of a placement.
func (x *encoder) at(p placement) *partFiles {
	key := p.key()
	d := x.files[key]
	if d == nil {
		d = &partFiles{placement: p}
		x.files[key] = d
	}
	return d
}

// rows writes rows of a chunk as one row group of a partition; nil means all.
func (x *encoder) rows(d *partFiles, c *chunk, rows []int32, o *order) error {
	var r run
	if o != nil {
		rows = o.permute(rows, c.rows)
		first, last := int32(0), int32(c.rows-1)
		if rows != nil {
			first, last = rows[0], rows[len(rows)-1]
		}
		r = run{first: o.key(first), last: o.key(last)}
	}
	if rows == nil {
		return x.group(d, c.schema, c.cols, c.rows, r)
	}
	picked := make([]*column, len(c.cols))
	for i, col := range c.cols {
		if col != nil {
			picked[i] = &column{}
			picked[i].reset(col.kind, false)
			picked[i].pick(col, rows)
		}
	}
	return x.group(d, c.schema, picked, len(rows), r)
}

// partition is the rows of a chunk that share a partition.
type partition struct {
	values []PartitionValue
	rows   []int32 // nil: all
}

// split sorts the rows by partition, keeping their order within one. Of a chunk of
// one partition rows are not listed.
func split(c *chunk, by []PartitionField) []partition {
	if len(by) == 0 {
		return []partition{{}}
	}
	cols := make([]*column, len(by))
	for i, p := range by {
		cols[i] = c.cols[slices.IndexFunc(c.schema.Fields, func(f Field) bool { return f.ID == p.Source })]
	}
	values := func(row int) []PartitionValue {
		v := make([]PartitionValue, len(by))
		for i, p := range by {
			v[i] = p.of(cols[i], row)
		}
		return v
	}
	ids, n := make([]int32, c.rows), 1
	for i, p := range by {
		n = p.refine(cols[i], ids, n)
	}
	if n == 1 {
		return []partition{{values: values(0)}}
	}
	out := make([]partition, 0, n)
	at := make([]int32, n) // by id: 1 + its place in out
	for row, id := range ids {
		if at[id] == 0 {
			out = append(out, partition{values: values(row)})
			at[id] = int32(len(out))
		}
		g := &out[at[id]-1]
		g.rows = append(g.rows, int32(row))
	}
	return out
}

// refine divides n groups of rows, given by number, by a further field. It returns
// how many there are then.
func (p PartitionField) refine(col *column, ids []int32, n int) int {
	if col.kind == Timestamp && col.nulls == 0 && p.Transform != Bucket && p.Transform != Identity {
		// Mostly all rows are of one day, and day keeps the order of times.
		if p.number(Timestamp, slices.Min(col.longs)) == p.number(Timestamp, slices.Max(col.longs)) {
			return n
		}
	}
	code := p.codes(col)
	type group struct {
		id   int32
		null bool
		code int64
	}
	place := make(map[group]int32, n)
	var last group
	for row := range ids {
		g := group{id: ids[row], null: col.isNull(row)}
		if !g.null {
			g.code = code(row)
		}
		if row > 0 && g == last {
			ids[row] = ids[row-1]
			continue
		}
		last = g
		id, ok := place[g]
		if !ok {
			id = int32(len(place))
			place[g] = id
		}
		ids[row] = id
	}
	return len(place)
}

// codes gives rows a number that is equal where the partition value is. Rows must
// not be null.
func (p PartitionField) codes(col *column) func(row int) int64 {
	switch {
	case col.kind != String:
		return func(row int) int64 { return p.number(col.kind, col.whole(row)) }
	case p.Transform == Identity && col.dict != nil:
		return func(row int) int64 { return int64(col.codes[row]) }
	case p.Transform == Identity:
		seen := map[string]int64{}
		return func(row int) int64 {
			text := col.textAt(row)
			code, ok := seen[view(text)]
			if !ok {
				code = int64(len(seen))
				seen[string(text)] = code
			}
			return code
		}
	case col.dict != nil:
		buckets := make([]int64, col.dict.len())
		for code := range buckets {
			buckets[code] = p.bucket(murmur3(col.dict.value(int32(code))))
		}
		return func(row int) int64 { return buckets[col.codes[row]] }
	}
	return func(row int) int64 { return p.bucket(murmur3(col.textAt(row))) }
}

// group writes one row group to the file of a partition.
func (x *encoder) group(d *partFiles, s *Schema, cols []*column, rows int, r run) error {
	arrays := make([]arrow.Array, 0, len(cols))
	written := make([]*column, 0, len(cols))
	for _, col := range cols {
		if col != nil {
			arrays = append(arrays, col.array())
			written = append(written, col)
		}
	}
	varied := func(i int, _ Field) bool { return written[i].dict == nil }
	return x.writeGroup(d, s, arrays, rows, r, varied)
}

func (x *encoder) writeGroup(d *partFiles, s *Schema, arrays []arrow.Array, rows int, r run, varied func(int, Field) bool) error {
	w := x.opt.Writers
	if d.open != nil {
		switch {
		case d.open.schema != s && !d.open.schema.Equal(s):
			if err := x.finish(d); err != nil {
				return err
			}
		case !w.pin(d.open):
			d.done = append(d.done, d.open)
			d.open = nil
		}
	}
	if d.open == nil {
		w.reserve()
		p, err := openPart(x.opt.Create, x.opt.Path(d.folder), d.by.Sort, s, varied, compress.Codecs.Zstd)
		if err != nil {
			w.cancel()
			return err
		}
		w.enter(p)
		d.open = p
	}
	err := d.open.write(arrays, rows)
	d.open.run.follow(d.by.Sort, r)
	w.unpin(d.open)
	return err
}

// finish closes the open file of a partition, if there is one.
func (x *encoder) finish(d *partFiles) error {
	p := d.open
	if p == nil {
		return nil
	}
	d.open = nil
	d.done = append(d.done, p)
	return x.opt.Writers.leave(p, func() error { _, err := p.close(); return err })
}

// abort forgets all files, closed ones included.
func (x *encoder) abort(remove func(path string) error) error {
	var first error
	for _, d := range x.files {
		if p := d.open; p != nil {
			// The part may have been closed for want of room meanwhile.
			if err := x.opt.Writers.leave(p, p.abort); err != nil && first == nil {
				first = fmt.Errorf("abort data file %s: %w", p.path, err)
			}
			d.done = append(d.done, p)
		}
		for _, p := range d.done {
			if p.aborted() {
				continue
			}
			if err := remove(p.path); err != nil && first == nil {
				first = fmt.Errorf("remove data file: %w", err)
			}
		}
	}
	clear(x.files)
	return first
}
