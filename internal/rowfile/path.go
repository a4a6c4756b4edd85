package rowfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/row"
)

// Path makes the folder of a row's file of what stands in the row:
// "year={_time:%Y}/platform={channel}". Each part between slashes becomes one
// folder, whatever the values are.
type Path struct {
	text  string
	parts [][]piece
}

// piece is a text, a column, or a time of a column.
type piece struct {
	literal string
	column  string
	layout  string // strftime; empty: the value as text
}

// Limits of paths. A value's text takes at most longestValue bytes, so that no
// folder's name is longer than file systems take, 255 bytes.
const (
	longestValue = 100
	longestName  = 240
	mostParts    = 16
)

// Null and Empty stand in a path for null and for the empty text.
const (
	Null  = "__null__"
	Empty = "__empty__"
)

// ParsePath reads a template. An empty one is the path of everything.
func ParsePath(text string) (*Path, error) {
	p := &Path{text: text}
	if text == "" {
		return p, nil
	}
	for part := range strings.SplitSeq(text, "/") {
		pieces, err := parsePart(part)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		p.parts = append(p.parts, pieces)
	}
	if len(p.parts) > mostParts {
		return nil, fmt.Errorf("has %d folders, at most %d are possible", len(p.parts), mostParts)
	}
	return p, nil
}

func parsePart(part string) (pieces []piece, err error) {
	longest := 0
	for rest := part; rest != ""; {
		literal, column, found := strings.Cut(rest, "{")
		if literal != "" {
			if strings.ContainsFunc(literal, func(r rune) bool { return r == '}' || r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) }) {
				return nil, errors.New("has a }, a backslash or a control character")
			}
			pieces = append(pieces, piece{literal: literal})
			longest += len(literal)
		}
		if !found {
			break
		}
		column, rest, found = strings.Cut(column, "}")
		if !found {
			return nil, errors.New("has a { without a }")
		}
		name, layout, timed := strings.Cut(column, ":")
		if name == "" || timed && layout == "" {
			return nil, errors.New("wants {column} or {column:%Y}")
		}
		if timed {
			if err := checkLayout(layout); err != nil {
				return nil, err
			}
		}
		pieces = append(pieces, piece{column: name, layout: layout})
		longest += longestValue
	}
	switch {
	case len(pieces) == 0:
		return nil, errors.New("a folder has no name: no / at the beginning or end, and no //")
	case strings.HasPrefix(pieces[0].literal, "."):
		return nil, errors.New("a folder's name cannot begin with a point")
	case longest > longestName:
		return nil, fmt.Errorf("may get %d bytes long, %d are possible: put values into folders of their own", longest, longestName)
	}
	return pieces, nil
}

// directives of strftime, all in UTC.
var directives = map[byte]func([]byte, time.Time) []byte{
	'Y': func(b []byte, t time.Time) []byte { return appendPadded(b, t.Year(), 4) },
	'm': func(b []byte, t time.Time) []byte { return appendPadded(b, int(t.Month()), 2) },
	'd': func(b []byte, t time.Time) []byte { return appendPadded(b, t.Day(), 2) },
	'H': func(b []byte, t time.Time) []byte { return appendPadded(b, t.Hour(), 2) },
	'M': func(b []byte, t time.Time) []byte { return appendPadded(b, t.Minute(), 2) },
	'S': func(b []byte, t time.Time) []byte { return appendPadded(b, t.Second(), 2) },
	'j': func(b []byte, t time.Time) []byte { return appendPadded(b, t.YearDay(), 3) },
	'F': func(b []byte, t time.Time) []byte { return t.AppendFormat(b, time.DateOnly) },
	'G': func(b []byte, t time.Time) []byte { y, _ := t.ISOWeek(); return appendPadded(b, y, 4) },
	'V': func(b []byte, t time.Time) []byte { _, w := t.ISOWeek(); return appendPadded(b, w, 2) },
	's': func(b []byte, t time.Time) []byte { return strconv.AppendInt(b, t.Unix(), 10) },
	'%': func(b []byte, _ time.Time) []byte { return append(b, '%') },
}

func appendPadded(dst []byte, n, width int) []byte { return fmt.Appendf(dst, "%0*d", width, n) }

func checkLayout(layout string) error {
	if strings.ContainsFunc(layout, func(r rune) bool { return !unicode.IsPrint(r) || r == '\\' }) {
		return errors.New("has a backslash or a control character")
	}
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			continue
		}
		if i++; i == len(layout) || directives[layout[i]] == nil {
			return fmt.Errorf("%s is none of %%Y %%m %%d %%H %%M %%S %%j %%F %%G %%V %%s %%%%", layout[i-1:min(i+1, len(layout))])
		}
	}
	if len(layout) > longestValue/2 {
		return fmt.Errorf("the layout %s is too long", layout)
	}
	return nil
}

// String is the template.
func (p *Path) String() string { return p.text }

// Of makes the folders of rows with certain columns.
type Of struct {
	path    *Path
	values  *row.Reader
	columns []event.Column
	at      map[string]int // by column: among the values
}

// Of looks up the columns of the template; nil columns are those of events as they
// came: their envelope, and any field of their data.
func (p *Path) Of(columns []event.Column) (*Of, error) {
	o := &Of{path: p, at: map[string]int{}}
	for _, part := range p.parts {
		for _, pc := range part {
			if pc.column == "" {
				continue
			}
			c, err := lookUp(pc.column, pc.layout != "", columns)
			if err != nil {
				return nil, err
			}
			if i, ok := o.at[pc.column]; !ok {
				o.at[pc.column] = len(o.columns)
				o.columns = append(o.columns, c)
			} else if c.Type == event.TimestampColumn {
				o.columns[i] = c // of {at} and {at:%Y}
			}
		}
	}
	if len(o.columns) > 0 {
		o.values = row.NewReader(o.columns)
	}
	return o, nil
}

func lookUp(name string, timed bool, columns []event.Column) (event.Column, error) {
	if columns == nil {
		if event.InEnvelope(name) {
			columns = event.Envelope
		} else if timed {
			return event.Column{Name: name, Type: event.TimestampColumn}, nil
		} else {
			return event.Column{Name: name, Type: event.JSONColumn}, nil
		}
	}
	i := slices.IndexFunc(columns, func(c event.Column) bool { return c.Name == name })
	if i < 0 {
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = c.Name
		}
		return event.Column{}, fmt.Errorf("path: there is no column %s; there are %s", name, strings.Join(names, ", "))
	}
	c := columns[i]
	if timed && c.Type != event.TimestampColumn && c.Type != event.DateColumn {
		return event.Column{}, fmt.Errorf("path: the column %s is %s, no time: make it one in a step, as in %s::TIMESTAMPTZ", name, c.Type, name)
	}
	return c, nil
}

// Append appends the folder of a row, without a slash at its ends.
func (o *Of) Append(dst []byte, e *event.Event, partition int32) []byte {
	var values []any
	if o.values != nil {
		values = o.values.Values(e, partition)
	}
	for i, part := range o.path.parts {
		if i > 0 {
			dst = append(dst, '/')
		}
		for _, pc := range part {
			if pc.column == "" {
				dst = append(dst, pc.literal...)
				continue
			}
			v := values[o.at[pc.column]]
			at, isTime := v.(time.Time)
			switch {
			case pc.layout != "" && isTime:
				dst = appendTime(dst, pc.layout, at.UTC())
			case v == nil || pc.layout != "":
				dst = append(dst, Null...)
			default:
				dst = appendSafe(dst, plain(v, o.columns[o.at[pc.column]].Type))
			}
		}
	}
	return dst
}

func appendTime(dst []byte, layout string, at time.Time) []byte {
	var text []byte
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			text = append(text, layout[i])
			continue
		}
		i++
		text = directives[layout[i]](text, at)
	}
	return appendSafe(dst, string(text))
}

// plain is a value as text; of JSON, a text without its quotes.
func plain(v any, t event.ColumnType) string {
	switch v := v.(type) {
	case json.RawMessage:
		var s string
		if len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil {
			return s
		}
	case time.Time:
		if t == event.DateColumn {
			return v.Format(time.DateOnly)
		}
	}
	return string(appendValue(nil, v))
}

// appendSafe appends a text so that it is a part of one folder's name on every file
// system and in every object store, and is read back by Hive, Spark and DuckDB:
// bytes with a meaning are percent-encoded, as they do it. Two texts never become
// one, but for the hash of those that are too long.
func appendSafe(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, Empty...)
	}
	start := len(dst)
	escape := func(b byte) { dst = append(dst, '%', "0123456789ABCDEF"[b>>4], "0123456789ABCDEF"[b&15]) }
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				escape(s[i]) // no UTF-8
				continue
			}
		}
		first := i == 0 && (r == '.' || s == Null || s == Empty) // no . nor .., nor what stands for another value
		if first || !unicode.IsPrint(r) || r < utf8.RuneSelf && strings.IndexByte(`"#%'*/:=?\{}[]^<>|~`, byte(r)) >= 0 {
			for _, b := range []byte(string(r)) {
				escape(b)
			}
			continue
		}
		dst = utf8.AppendRune(dst, r)
	}
	if last := dst[len(dst)-1]; last == '.' || last == ' ' {
		dst = dst[:len(dst)-1]
		escape(last)
	}
	if len(dst)-start <= longestValue {
		return dst
	}
	h := fnv.New64a()
	h.Write([]byte(s))
	cut := start + longestValue - 17
	for !utf8.RuneStart(dst[cut]) {
		cut--
	}
	for back := 1; back <= 2; back++ { // not within %XX
		if cut-back >= start && dst[cut-back] == '%' {
			cut -= back
		}
	}
	return fmt.Appendf(dst[:cut], "~%016x", h.Sum64())
}

// Depth is how many folders deep files are.
func (p *Path) Depth() int { return len(p.parts) }

// Fits tells whether a folder's name, so many folders deep from 0, can be one of
// these paths.
func (p *Path) Fits(depth int, name string) bool {
	return depth < len(p.parts) && strings.HasPrefix(name, p.parts[depth][0].literal)
}
