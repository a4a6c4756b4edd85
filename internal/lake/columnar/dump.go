package columnar

import (
	"errors"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet/compress"

	"naru/internal/lake"
)

// NewReadStage makes a stage of which only Cells are read, by who has to have the
// texts of each row.
func NewReadStage(schema *Schema, allowPromotion func(fieldID int) bool, shape func(hash []byte) *lake.Shape) *Builder {
	b := NewStage(schema, allowPromotion, shape)
	b.cur.allPlain = true
	b.Clear()
	return b
}

// NewStage makes a builder for rows that are only to be looked at: Append,
// Dump and Clear, never Finish. It writes nothing by itself; whoever appends
// bounds it by Clear.
func NewStage(schema *Schema, allowPromotion func(fieldID int) bool, shape func(hash []byte) *lake.Shape) *Builder {
	const unbounded = 1 << 62
	return NewBuilder(nil, schema, Options{AllowPromotion: allowPromotion, Shape: shape, ChunkRows: MaxChunkRows, ChunkBytes: unbounded})
}

// MaxStage is the number of rows that a stage may hold: Clear it before.
const MaxStage = MaxChunkRows - 1

// Dump writes the rows that a stage holds to one file, partitions mixed and without
// compression, and keeps them: more may be appended, and dumped again.
func (b *Builder) Dump(create func(path string) (Output, error), path string) (DataFile, error) {
	if b.err != nil {
		return DataFile{}, b.err
	}
	c := b.cur
	b.seal(c)
	c.close()
	arrays := make([]arrow.Array, 0, len(c.cols))
	written := make([]*column, 0, len(c.cols))
	for _, col := range c.cols {
		if col != nil {
			arrays = append(arrays, col.array())
			written = append(written, col)
		}
	}
	p, err := openPart(create, path, nil, c.schema, func(i int, _ Field) bool { return written[i].dict == nil }, compress.Codecs.Uncompressed)
	if err != nil {
		return DataFile{}, err
	}
	if err := p.write(arrays, c.rows); err != nil {
		return DataFile{}, errors.Join(err, p.abort())
	}
	return p.close()
}

// Clear forgets the rows that a stage holds. The columns stay.
func (b *Builder) Clear() {
	b.rows = 0
	b.cur.reset(b.schema, b.plain)
}

// Continues tells whether s is t with nothing but columns added behind.
func (s *Schema) Continues(t *Schema) bool {
	if s.Layout != t.Layout || len(s.Fields) < len(t.Fields) || s.LastID < t.LastID {
		return false
	}
	for i, f := range t.Fields {
		if s.Fields[i] != f {
			return false
		}
	}
	return true
}
