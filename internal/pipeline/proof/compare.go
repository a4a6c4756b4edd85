package proof

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/row"
	"naru/internal/transform"
)

// compare holds rows and rejections against those that a test wants: row by row, and
// only the columns that it names.
func compare(def *definition.Definition, t *definition.Test, done *transform.Applied) (out []Difference, err error) {
	columns, partition := done.Batch.Columns, done.Batch.Partition
	if t.To == nil {
		if out, err = differences("", t.Rows, done.Batch.Rows, columns, partition); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.To)) {
		more, err := differences(name+" ", t.To[name], For(def, name, done.Batch.Rows), columns, partition)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	if len(done.Refused) != t.Rejections {
		got := fmt.Sprint(len(done.Refused))
		for _, r := range done.Refused {
			got += fmt.Sprintf("; event %d by %s: %s", r.Offset+1, r.By(), r.Detail)
		}
		out = append(out, Difference{"rejections", fmt.Sprint(t.Rejections), got})
	}
	return out, nil
}

// For are the rows that go to a sink.
func For(def *definition.Definition, name string, rows *event.Rows) *event.Rows {
	bit := slices.IndexFunc(def.Routes(), func(r transform.Step) bool { return r.To == name })
	if bit < 0 {
		return rows
	}
	return rows.Only(func(r *event.Row) bool { return r.To&(1<<bit) != 0 })
}

// differences compares rows with those wanted; of is what their places begin with.
func differences(of string, wanted []definition.Value, rows *event.Rows, columns []event.Column, partition int32) (out []Difference, err error) {
	types := map[string]event.ColumnType{}
	var names []string
	for _, c := range columns {
		types[c.Name] = c.Type
		names = append(names, c.Name)
	}
	var e event.Event
	var data []byte
	for i := range max(rows.Len(), len(wanted)) {
		where := fmt.Sprintf("%srow %d", of, i+1)
		var text []byte
		if i < rows.Len() {
			data = rows.Event(i, &e, data)
			text = row.AppendJSON(nil, columns, &e, partition)
		}
		switch {
		case i >= rows.Len():
			out = append(out, Difference{where, string(wanted[i].JSON), "no row"})
			continue
		case i >= len(wanted):
			out = append(out, Difference{where, "no row", string(text)})
			continue
		}
		var want, got map[string]any
		if err := decode(wanted[i].JSON, &want); err != nil {
			return nil, fmt.Errorf("read the row wanted at line %d: %w", wanted[i].Line, err)
		}
		if err := decode(text, &got); err != nil {
			return nil, fmt.Errorf("read %s: %w", where, err)
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			typ, known := types[name]
			switch {
			case want[name] == nil && got[name] == nil:
			case !known:
				out = append(out, Difference{where + " " + name, show(want[name]), "no such column; there are " + strings.Join(names, ", ")})
			case !equal(typed(want[name], typ), typed(got[name], typ)):
				out = append(out, Difference{where + " " + name, show(want[name]), show(got[name])})
			}
		}
	}
	return out, nil
}

// show writes a value as JSON.
func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// typed makes moments and days of one form of texts that stand for them.
func typed(v any, typ event.ColumnType) any {
	text, ok := v.(string)
	if !ok || typ != event.TimestampColumn && typ != event.DateColumn {
		return v
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			if typ == event.DateColumn {
				return at.Format(time.DateOnly)
			}
			return at.UTC().Format(row.TimeLayout)
		}
	}
	return v
}

// equal compares values of JSON: numbers by their value, and what is absent of an
// object is null.
func equal(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		n, ok := b.(json.Number)
		return ok && sameNumber(a, n)
	case []any:
		l, ok := b.([]any)
		return ok && slices.EqualFunc(a, l, equal)
	case map[string]any:
		m, ok := b.(map[string]any)
		if !ok {
			return false
		}
		for k := range m {
			if _, both := a[k]; !both && m[k] != nil {
				return false
			}
		}
		for k := range a {
			if !equal(a[k], m[k]) {
				return false
			}
		}
		return true
	}
	return a == b
}

func sameNumber(a, b json.Number) bool {
	i, err1 := a.Int64()
	j, err2 := b.Int64()
	if err1 == nil && err2 == nil {
		return i == j
	}
	x, err1 := a.Float64()
	y, err2 := b.Float64()
	return a == b || err1 == nil && err2 == nil && x == y
}
