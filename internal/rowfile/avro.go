package rowfile

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/avro/ocf"

	"naru/internal/event"
)

// avroFile is an object container file of records: each column is a union of null
// and its type.
type avroFile struct {
	w     *ocf.Writer
	datum []byte
	kept  int64 // since the last block
}

// avroBlock is how much is gathered for a block, before it is compressed.
const avroBlock = 256 << 10

// deflateLevel is zlib's default.
const deflateLevel = 6

func newAvro(w io.Writer, compress string, columns []event.Column) (encoder, error) {
	schema, err := avro.Parse(avroSchema(columns))
	if err != nil {
		return nil, err
	}
	opts := []ocf.WriterOpt{ocf.WithBlockBytes(2 * avroBlock)} // flush comes before
	switch compress {
	case "gzip":
		opts = append(opts, ocf.WithCodec(ocf.DeflateCodec(deflateLevel)))
	case "zstd":
		codec, err := ocf.ZstdCodec(zstdOptions, nil)
		if err != nil {
			return nil, err
		}
		opts = append(opts, ocf.WithCodec(codec))
	}
	out, err := ocf.NewWriter(w, schema, opts...)
	if err != nil {
		return nil, err
	}
	return &avroFile{w: out}, nil
}

// avroSchema: names in Avro are letters, digits and '_'; a column with another name
// has '_' for what does not fit, a number behind it if that is taken, and its own
// name as the field's doc.
func avroSchema(columns []event.Column) string {
	type field struct {
		Name    string `json:"name"`
		Doc     string `json:"doc,omitempty"`
		Type    []any  `json:"type"`
		Default any    `json:"default"` // null
	}
	fields := make([]field, len(columns))
	taken := map[string]bool{}
	for _, c := range columns {
		taken[c.Name] = avroName(c.Name) == c.Name
	}
	for i, c := range columns {
		f := field{Name: avroName(c.Name), Type: []any{"null", avroType(c.Type)}}
		if f.Name != c.Name {
			f.Doc = c.Name
			for n := 2; taken[f.Name]; n++ {
				f.Name = fmt.Sprintf("%s_%d", avroName(c.Name), n)
			}
			taken[f.Name] = true
		}
		fields[i] = f
	}
	text, err := json.Marshal(map[string]any{"type": "record", "name": "row", "fields": fields})
	if err != nil {
		panic(err) // texts and lists
	}
	return string(text)
}

func avroName(name string) string {
	out := strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
	if out == "" || out[0] >= '0' && out[0] <= '9' {
		out = "_" + out
	}
	return out
}

func avroType(t event.ColumnType) any {
	switch t {
	case event.BoolColumn:
		return "boolean"
	case event.LongColumn:
		return "long"
	case event.DoubleColumn:
		return "double"
	case event.TimestampColumn:
		return map[string]string{"type": "long", "logicalType": "timestamp-micros"}
	case event.DateColumn:
		return map[string]string{"type": "int", "logicalType": "date"}
	}
	return "string"
}

func (f *avroFile) append(_ *event.Event, _ int32, values []any) error {
	b := f.datum[:0]
	for _, v := range values {
		if v == nil {
			b = binary.AppendVarint(b, 0) // the branch of the union
			continue
		}
		b = binary.AppendVarint(b, 1)
		switch v := v.(type) {
		case bool:
			if v {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		case int64:
			b = binary.AppendVarint(b, v)
		case float64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		case string:
			b = append(binary.AppendVarint(b, int64(len(v))), v...)
		case json.RawMessage:
			b = append(binary.AppendVarint(b, int64(len(v))), v...)
		case day:
			b = binary.AppendVarint(b, int64(v))
		case time.Time:
			b = binary.AppendVarint(b, v.UnixMicro())
		}
	}
	f.datum = b
	f.kept += int64(len(b))
	if _, err := f.w.Write(b); err != nil {
		return err
	}
	if f.kept < avroBlock {
		return nil
	}
	return f.flush()
}

func (f *avroFile) held() int64 { return f.kept }

func (f *avroFile) flush() error {
	f.kept = 0
	return f.w.Flush()
}

func (f *avroFile) finish() error { return f.w.Close() }
