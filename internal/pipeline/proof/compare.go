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
func compare(t *definition.Test, done *transform.Applied) (out []Difference, err error) {
	rows, columns := done.Batch.Rows, done.Batch.Columns
	types := map[string]event.ColumnType{}
	var names []string
	for _, c := range columns {
		types[c.Name] = c.Type
		names = append(names, c.Name)
	}
	for i := range max(len(rows), len(t.Rows)) {
		where := fmt.Sprintf("row %d", i+1)
		var text []byte
		if i < len(rows) {
			text = row.AppendJSON(nil, columns, &rows[i], done.Batch.Partition)
		}
		switch {
		case i >= len(rows):
			out = append(out, Difference{where, string(t.Rows[i].JSON), "no row"})
			continue
		case i >= len(t.Rows):
			out = append(out, Difference{where, "no row", string(text)})
			continue
		}
		var want, got map[string]any
		if err := decode(t.Rows[i].JSON, &want); err != nil {
			return nil, fmt.Errorf("read the row wanted at line %d: %w", t.Rows[i].Line, err)
		}
		if err := decode(text, &got); err != nil {
			return nil, fmt.Errorf("read row %d: %w", i+1, err)
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
	if len(done.Refused) != t.Rejections {
		got := fmt.Sprint(len(done.Refused))
		for _, r := range done.Refused {
			got += fmt.Sprintf("; event %d by step %s: %s", r.Offset+1, r.Step, r.Detail)
		}
		out = append(out, Difference{"rejections", fmt.Sprint(t.Rejections), got})
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
