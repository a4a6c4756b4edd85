package columnar

import (
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet/compress"
)

// encoder writes chunks into the open files of their days. It is used by one
// goroutine at a time: the one that encodes, or Finish when that has ended.
type encoder struct {
	opt  Options
	days map[int32]*dayFiles
}

// dayFiles are the files of one day since the last Finish.
type dayFiles struct {
	open *part
	done []*part // closed for want of room, or because the schema changed
}

// encode writes all rows of a chunk as row groups, one for each day.
func (x *encoder) encode(c *chunk) error {
	c.close()
	if c.rows == 0 {
		return nil
	}
	days := x.split(c)
	if len(days) == 1 {
		return x.group(days[0].day, c.schema, c.cols, c.rows)
	}
	for _, d := range days {
		picked := make([]*column, len(c.cols))
		for i, col := range c.cols {
			if col != nil {
				picked[i] = &column{}
				picked[i].reset(col.kind, false)
				picked[i].pick(col, d.rows)
			}
		}
		if err := x.group(d.day, c.schema, picked, len(d.rows)); err != nil {
			return err
		}
	}
	return nil
}

type dayRows struct {
	day  int32
	rows []int32
}

// split sorts the rows by day, keeping their order within a day. Of a chunk of
// one day rows are not listed.
func (x *encoder) split(c *chunk) []dayRows {
	var times []int64
	for i, f := range c.schema.Fields {
		if f.ID == idTime {
			times = c.cols[i].longs
		}
	}
	lo, hi := slices.Min(times), slices.Max(times)
	if dayOf(lo) == dayOf(hi) {
		return []dayRows{{day: dayOf(lo)}}
	}
	place := map[int32]int{}
	var days []dayRows
	for row, t := range times {
		day := dayOf(t)
		at, ok := place[day]
		if !ok {
			at = len(days)
			place[day] = at
			days = append(days, dayRows{day: day})
		}
		days[at].rows = append(days[at].rows, int32(row))
	}
	return days
}

// group writes one row group to the file of a day.
func (x *encoder) group(day int32, s *Schema, cols []*column, rows int) error {
	arrays := make([]arrow.Array, 0, len(cols))
	written := make([]*column, 0, len(cols))
	for _, col := range cols {
		if col != nil {
			arrays = append(arrays, col.array())
			written = append(written, col)
		}
	}
	varied := func(i int, _ Field) bool { return written[i].dict == nil }
	return x.writeGroup(day, s, arrays, rows, varied)
}

func (x *encoder) writeGroup(day int32, s *Schema, arrays []arrow.Array, rows int, varied func(int, Field) bool) error {
	d := x.days[day]
	if d == nil {
		d = &dayFiles{}
		x.days[day] = d
	}
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
		p, err := openPart(x.opt.Create, x.opt.Path(day), day, s, varied, compress.Codecs.Zstd)
		if err != nil {
			w.cancel()
			return err
		}
		w.enter(p)
		d.open = p
	}
	err := d.open.write(arrays, rows)
	w.unpin(d.open)
	return err
}

// finish closes the open file of a day, if there is one.
func (x *encoder) finish(d *dayFiles) error {
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
	for _, d := range x.days {
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
	clear(x.days)
	return first
}
