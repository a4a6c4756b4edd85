package cassandra

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"naru/internal/event"
	"naru/internal/row"
)

// clocks is the table with the bases of timestamps (docs/format/positions.md).
const clocks = "naru_clocks"

// quote makes a name of CQL that is taken as it is written.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// typeOf is the type of a column that is made.
func typeOf(t event.ColumnType) string {
	switch t {
	case event.BoolColumn:
		return "boolean"
	case event.LongColumn:
		return "bigint"
	case event.DoubleColumn:
		return "double"
	case event.TimestampColumn:
		return "timestamp"
	case event.DateColumn:
		return "date"
	}
	return "text" // texts, and JSON
}

func list(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}

// createTable is the statement that makes the table for rows of these columns.
func createTable(cfg *Settings, columns []event.Column) (string, error) {
	partition := cfg.Partition
	if len(partition) == 0 {
		partition = []string{keyColumn}
	}
	for _, name := range slices.Concat(partition, cfg.Cluster) {
		if name != keyColumn && !slices.ContainsFunc(columns, func(c event.Column) bool { return c.Name == name }) {
			return "", fmt.Errorf("make table %s: its key has the column %s, which the rows have not", cfg.Table, name)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s.%s (%s text", quote(cfg.Keyspace), quote(cfg.Table), quote(keyColumn))
	for _, c := range columns {
		if c.Name != keyColumn {
			fmt.Fprintf(&b, ", %s %s", quote(c.Name), typeOf(c.Type))
		}
	}
	fmt.Fprintf(&b, ", PRIMARY KEY ((%s)", list(partition))
	if len(cfg.Cluster) > 0 {
		b.WriteString(", " + list(cfg.Cluster))
	}
	return b.String() + "))", nil
}

// shape is how rows of some columns become values of the table.
type shape struct {
	columns   []event.Column
	reader    *row.Reader
	statement string
	fields    []field
	partition []int // of fields, in the order of the key
	// single: _key is in the primary key, so a row is written once and nulls need not
	// be written; else they take away what an older row has left.
	single bool
}

// field is a column of the table that is written.
type field struct {
	name, cql string
	from      int // in columns; -1: the row's key
	key       bool
}

// newShape lays rows of columns over the table. missing are columns that it lacks.
func newShape(cfg *Settings, columns []event.Column, table []column) (s *shape, missing []event.Column) {
	s = &shape{columns: columns, reader: row.NewReader(columns)}
	for i, c := range columns {
		if c.Name != keyColumn && !slices.ContainsFunc(table, func(t column) bool { return t.name == c.Name }) {
			missing = append(missing, columns[i])
		}
	}
	var names, marks []string
	for _, t := range table {
		f := field{name: t.name, cql: t.cql, from: -1, key: t.kind == "partition_key" || t.kind == "clustering"}
		if t.name == keyColumn {
			s.single = s.single || f.key
		} else if f.from = slices.IndexFunc(columns, func(c event.Column) bool { return c.Name == t.name }); f.from < 0 {
			if !f.key {
				continue // the row leaves it as it is
			}
			f.from = len(columns) // always null: such a row is refused
		}
		if t.kind == "partition_key" {
			s.partition = append(s.partition, len(s.fields))
		}
		s.fields = append(s.fields, f)
		names, marks = append(names, t.name), append(marks, "?")
	}
	s.statement = fmt.Sprintf("INSERT INTO %s.%s (%s) VALUES (%s) USING TIMESTAMP ?", quote(cfg.Keyspace), quote(cfg.Table), list(names), strings.Join(marks, ", "))
	if cfg.TTL != 0 {
		s.statement += fmt.Sprintf(" AND TTL %d", int64(cfg.TTL.Std()/time.Second))
	}
	return s, missing
}

// types are those that rows can be written to.
var types = []string{"text", "varchar", "ascii", "blob", "boolean", "bigint", "varint", "int", "smallint", "tinyint", "double", "float", "timestamp", "date", "uuid", "timeuuid"}

// writable tells of a column whose type no row fits.
func (s *shape) writable() error {
	for _, f := range s.fields {
		if !slices.Contains(types, f.cql) {
			return fmt.Errorf("its column %s has the type %s, which this sink does not write", f.name, f.cql)
		}
	}
	return nil
}

// values are those of a row in the order of the statement, but for the timestamp;
// size is about what they take, place names partition and primary key. why says what
// is wrong with the row.
func (s *shape) values(e *event.Event, partition int32, key string) (out []any, size int, place string, primary string, why string) {
	from := s.reader.Values(e, partition)
	var part, whole strings.Builder
	for i, f := range s.fields {
		var v any = key
		if f.from >= 0 {
			v = nil
			if f.from < len(from) {
				v = from[f.from]
			}
		}
		v, n, err := convert(v, f.cql)
		switch {
		case err != nil:
			return nil, 0, "", "", fmt.Sprintf("column %s: %v", f.name, err)
		case v == nil && f.key:
			return nil, 0, "", "", fmt.Sprintf("column %s of the primary key is null", f.name)
		case v == nil && s.single:
			v = gocql.UnsetValue
		}
		if f.key {
			fmt.Fprintf(&whole, "%d:%v,", i, v)
			if slices.Contains(s.partition, i) {
				fmt.Fprintf(&part, "%d:%v,", i, v)
			}
		}
		out, size = append(out, v), size+n+8
	}
	return out, size, part.String(), whole.String(), ""
}

// convert makes a value of row.Reader one that the driver takes for a type.
func convert(v any, cql string) (out any, size int, err error) {
	if v == nil {
		return nil, 0, nil
	}
	unfit := func() (any, int, error) { return nil, 0, fmt.Errorf("%.100v does not fit %s", text(v), cql) }
	switch cql {
	case "text", "varchar", "ascii":
		s := text(v)
		if cql == "ascii" && strings.ContainsFunc(s, func(r rune) bool { return r > 127 }) {
			return unfit()
		}
		return s, len(s), nil
	case "blob":
		s := text(v)
		return []byte(s), len(s), nil
	case "boolean":
		if b, ok := v.(bool); ok {
			return b, 1, nil
		}
	case "bigint", "varint", "int", "smallint", "tinyint":
		n, ok := v.(int64)
		bits := map[string]int{"int": 32, "smallint": 16, "tinyint": 8}[cql]
		if ok && (bits == 0 || n >= -1<<(bits-1) && n < 1<<(bits-1)) {
			switch cql { // the driver checks nothing of its own then
			case "int":
				return int32(n), 4, nil
			case "smallint":
				return int16(n), 2, nil
			case "tinyint":
				return int8(n), 1, nil
			}
			return n, 8, nil
		}
	case "double", "float":
		f, ok := v.(float64)
		if n, whole := v.(int64); whole {
			f, ok = float64(n), int64(float64(n)) == n
		}
		if ok && cql == "double" {
			return f, 8, nil
		}
		if ok && math.Abs(f) <= math.MaxFloat32 {
			return float32(f), 4, nil
		}
	case "timestamp", "date":
		if at, ok := v.(time.Time); ok {
			return at.UnixMilli(), 8, nil // a number, since the driver takes the year 1 for no time
		}
	case "uuid", "timeuuid":
		if s, ok := v.(string); ok {
			if u, err := gocql.ParseUUID(s); err == nil {
				return u, 16, nil
			}
		}
	}
	return unfit()
}

func text(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		return string(raw)
	}
	return string(row.AppendText(nil, v))
}
