package columnar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"naru/internal/vfs"
)

// source is a finished file and the schema that it was written under.
type source struct {
	path   string
	schema *Schema
	rows   []Run // to take; nil: all
}

// merge writes the rows of several files, in their order, into one file of
// the schema to. Row groups are filled up, so it holds about one of them in
// memory, compressed. It returns how many numbers went to _rescued, by path.
func merge(ctx context.Context, fs vfs.FS, create func(string) (Output, error), from []source, path string, sort []SortField, to *Schema) (DataFile, map[string]int64, error) {
	p, err := openPart(create, path, sort, to, func(_ int, f Field) bool { return f.ID == idID }, compress.Codecs.Zstd)
	if err != nil {
		return DataFile{}, nil, err
	}
	m := &merger{fs: fs, to: to, part: p, unfit: map[string]int64{}}
	for _, src := range from {
		if err := m.copy(ctx, src); err != nil {
			return DataFile{}, nil, fmt.Errorf("merge data file %s: %w", src.path, errors.Join(err, p.abort()))
		}
	}
	f, err := p.close()
	return f, m.unfit, err
}

type merger struct {
	fs    vfs.FS
	to    *Schema
	part  *part
	scan  scanner
	unfit map[string]int64
}

// Rows read at once: so many, or fewer when they are long.
const (
	mergeBatch      = 8192
	mergeBatchBytes = 16 << 20
)

// batchRows is how many rows of a file to read at once.
func batchRows(f *file.Reader) int64 {
	longest := int64(1) // of a row, by the mean of its row group
	for g := range f.NumRowGroups() {
		rg := f.MetaData().RowGroup(g)
		if n := rg.NumRows(); n > 0 {
			longest = max(longest, rg.TotalByteSize()/n)
		}
	}
	return min(max(mergeBatchBytes/longest, 1), mergeBatch)
}

func (m *merger) copy(ctx context.Context, src source) (err error) {
	f, err := m.fs.Open(src.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The Parquet reader closes what can be closed; the file is ours to close.
	pf, err := file.NewParquetReader(struct{ parquet.ReaderAtSeeker }{f})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pf.Close()) }()
	r, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{BatchSize: batchRows(pf)}, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	records, err := r.GetRecordReader(ctx, nil, nil)
	if err != nil {
		return err
	}
	defer records.Release()
	plan, err := m.plan(src.schema, records.Schema())
	if err != nil {
		return err
	}
	for at, rest := int64(0), src.rows; ; {
		rec, err := records.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if src.rows == nil {
			err = m.write(rec, plan)
		} else {
			rest, err = m.pick(rec, plan, at, rest)
		}
		if err != nil {
			return err
		}
		at += rec.NumRows()
	}
}

// step says where a column of the new file comes from: a place in the old
// file, or -1 for nowhere; long tells that its values become doubles.
type step struct {
	at   int
	long bool
	path string
}

// plan matches columns by field id. A column of the old file that has no place
// in the new one is left out only when the schema says so.
func (m *merger) plan(from *Schema, have *arrow.Schema) ([]step, error) {
	place := map[int]int{}
	for i, f := range have.Fields() {
		text, ok := f.Metadata.GetValue(fieldIDKey)
		id, err := strconv.Atoi(text)
		if !ok || err != nil {
			return nil, fmt.Errorf("column %q has no field id", f.Name)
		}
		place[id] = i
	}
	var steps []step
	for _, f := range m.part.fields {
		if at, ok := place[f.ID]; ok {
			steps = append(steps, step{at: at})
			continue
		}
		s := step{at: -1}
		if old, ok := from.ByPath(f.Path); ok && old.Kind == Long && f.Kind == Double && old.ID != f.ID {
			if at, ok := place[old.ID]; ok {
				s = step{at: at, long: true, path: f.Path}
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func (m *merger) write(rec arrow.RecordBatch, plan []step) error {
	rows := int(rec.NumRows())
	arrays := make([]arrow.Array, len(plan))
	rescuedAt := slices.IndexFunc(m.part.fields, func(f Field) bool { return f.ID == idRescued })
	for i, s := range plan {
		if s.at >= 0 {
			arrays[i] = rec.Column(s.at)
			continue
		}
		arrays[i] = array.MakeArrayOfNull(memory.DefaultAllocator, arrowField(m.part.fields[i]).Type, rows)
	}
	// In the order of the new ids, which is the order in which the columns were
	// promoted: the builder adds to _rescued in that order too.
	var promoted []int
	for i, s := range plan {
		if s.long {
			promoted = append(promoted, i)
		}
	}
	slices.SortFunc(promoted, func(a, b int) int { return m.part.fields[a].ID - m.part.fields[b].ID })
	var rescued *column
	for _, i := range promoted {
		if rescued == nil {
			rescued = &column{}
			rescued.reset(JSON, false)
			rescued.load(arrays[rescuedAt])
		}
		long := &column{}
		long.reset(Long, false)
		long.load(arrays[i])
		doubles, merged, unfit := toDouble(&m.scan, long, rescued, plan[i].path)
		rescued = merged
		m.unfit[plan[i].path] += unfit
		arrays[i] = doubles.array()
	}
	if rescued != nil {
		rescued.pad(rows)
		arrays[rescuedAt] = rescued.array()
	}
	return m.part.append(arrays, rows)
}
