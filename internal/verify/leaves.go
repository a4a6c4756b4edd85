package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// An event and its row are compared as what both have to say: a multiset of
// leaves, each a path and a value in one canonical form. Whether a value went
// into a column, into JSON text or into _rescued makes no difference, and
// nothing here shares code with what writes rows. The paths of the envelope
// begin with NUL, which no key of JSON data does that is not escaped.

// leaves takes in leaves one by one.
type leaves struct {
	take func(path, value []byte)
	path []byte
	text []byte
	scan jsonscan.Scanner

	// shape gives what the contract with that hash says of tables; nil: no contract is known.
	shape func(contract []byte) *lake.Shape

	// Paths of strings that hold JSON, of the event being read.
	embedded     map[string]bool
	embeddedText []byte
}

// known are the fields of an event that its row has; nil: all.
func (s *leaves) known(e *event.Event) *lake.Known {
	if s.shape == nil || len(e.Contract.Hash) == 0 {
		return nil
	}
	if shape := s.shape(e.Contract.Hash); shape != nil {
		return shape.Known
	}
	return nil
}

// embed takes over the paths of strings that hold JSON.
func (s *leaves) embed(text []byte) {
	if bytes.Equal(text, s.embeddedText) {
		return
	}
	var paths []string
	s.embedded, s.embeddedText = nil, bytes.Clone(text)
	if json.Unmarshal(text, &paths) == nil && len(paths) > 0 {
		s.embedded = map[string]bool{}
		for _, p := range paths {
			s.embedded[p] = true
		}
	}
}

func (s *leaves) envelope(name string, value []byte) {
	if value == nil {
		return
	}
	s.text = appendString(s.text[:0], value)
	s.path = append(append(s.path[:0], 0), name...)
	s.take(s.path, s.text)
}

func (s *leaves) number(name string, value int64) {
	s.text = appendLong(s.text[:0], value)
	s.path = append(append(s.path[:0], 0), name...)
	s.take(s.path, s.text)
}

// Years 1 to 9999 are what columns of time hold.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func micros(t time.Time) int64 {
	if t.Before(firstTime) {
		t = firstTime
	}
	if t.After(lastTime.Add(time.Second - 1)) {
		t = lastTime
	}
	return t.UnixMicro()
}

// timeOf is what _time has to be (docs/format/tables.md).
func timeOf(e *event.Event) time.Time {
	t := e.Time
	if t.IsZero() || t.After(e.ReceivedAt.Add(24*time.Hour)) || t.Before(firstTime) || t.After(lastTime.Add(time.Second-1)) {
		return e.ReceivedAt
	}
	return t
}

// event gives the leaves of an event.
func (s *leaves) event(e *event.Event, rejected bool) {
	s.envelope(columnar.ColumnID, e.ID)
	s.envelope(columnar.ColumnType, e.Type)
	s.envelope(columnar.ColumnSource, e.Source)
	s.envelope(columnar.ColumnSubject, e.Subject)
	s.number(columnar.ColumnTime, micros(timeOf(e)))
	s.number(columnar.ColumnReceivedAt, micros(e.ReceivedAt))
	if rejected {
		s.refusal(e)
		return
	}
	for _, x := range e.Extensions {
		s.path = appendKey(append(s.path[:0], columnar.ColumnExtensions...), x.Name, false)
		s.text = appendText(s.text[:0], x.Value)
		s.take(s.path, s.text)
	}
	if len(e.Violations) > 0 {
		s.nested([]byte(columnar.ColumnViolations), e.Violations)
	}
	if len(e.Data) == 0 {
		return
	}
	isJSON, isText := columnar.MediaType(e.ContentType)
	switch {
	case isJSON && s.scan.Valid(e.Data):
		s.embed(e.JSONStrings)
		s.json(e.Data, s.known(e))
		s.embed(nil)
	case isText || isJSON && utf8.Valid(e.Data):
		s.take([]byte("data"), appendText(nil, e.Data))
	default:
		s.take([]byte("data_base64"), appendString(nil, base64.StdEncoding.AppendEncode(nil, e.Data)))
	}
}

func (s *leaves) refusal(e *event.Event) {
	if r := e.Refusal; r != nil {
		for name, text := range map[string]string{"reason": string(r.Reason), "detail": r.Detail, "stream": r.Stream, "event_type": r.Type, "event_id": r.ID,
			"rule": r.Rule, "path": r.Path} {
			if text != "" {
				s.envelope(name, []byte(text))
			}
		}
		s.number("item_index", int64(r.Index))
	}
	s.envelope("contract", e.Contract.ID)
	s.envelope("contract_version", e.Contract.Version)
	s.envelope("contract_hash", e.Contract.Hash)
	s.envelope("sent", e.Sent)
	if t := e.Time; !t.IsZero() && (!timeOf(e).Equal(t) || t.Nanosecond()%1000 != 0 || micros(t) == micros(e.ReceivedAt)) {
		s.envelope("event_time", []byte(t.Format(time.RFC3339Nano)))
	}
	s.envelope("extensions", columnar.AppendExtensions(nil, e.Extensions))
	s.bytes("original", e.Data)
	s.envelope("content_type", e.ContentType)
}

func (s *leaves) bytes(name string, value []byte) {
	s.path = append(append(s.path[:0], 0), name...)
	s.take(s.path, value)
}

// fixed are the columns that stand in every table, and those of the stream
// rejected, by field id: a column may have been renamed.
var fixed = func() map[columnar.Layout]map[int]string {
	out := map[columnar.Layout]map[int]string{}
	for _, s := range []*columnar.Schema{columnar.NewSchema(), columnar.NewWholeSchema(), columnar.NewRejectedSchema()} {
		out[s.Layout] = map[int]string{}
		for _, f := range s.Fields {
			if f.Path == "" {
				out[s.Layout][f.ID] = f.Name
			}
		}
	}
	return out
}()

// row gives the leaves of a row.
func (s *leaves) row(r *columnar.Row, layout columnar.Layout) {
	for i := range r.Values {
		v := &r.Values[i]
		name := fixed[layout][v.Field.ID]
		if name == "" && layout == columnar.Rejected {
			name = v.Field.Name // those that came later have whatever ids were free
		}
		switch {
		case v.Field.Name == columnar.ColumnViolations && v.Field.Path == "" && name == "":
			s.nested([]byte(columnar.ColumnViolations), v.Text)
		case name == columnar.ColumnRescued:
			s.rescued(v.Text)
		case name != "" && v.Field.Kind == columnar.Binary:
			s.bytes(name, v.Text)
		case name != "" && v.Field.Kind == columnar.String:
			s.envelope(name, v.Text)
		case name != "":
			s.number(name, v.Long)
		case v.Field.Path == "": // _extensions
			s.nested([]byte(columnar.ColumnExtensions), v.Text)
		case layout == columnar.Whole:
			s.json(v.Text, nil)
		case v.Field.Kind == columnar.JSON:
			s.nested([]byte(v.Field.Path), v.Text)
		case v.Field.Kind == columnar.Timestamp:
			s.text = appendMicros(s.text[:0], v.Long)
			s.take([]byte(v.Field.Path), s.text)
		case v.Field.Kind == columnar.Date:
			s.text = time.Unix(v.Long*24*60*60, 0).UTC().AppendFormat(append(s.text[:0], 's'), time.DateOnly)
			s.take([]byte(v.Field.Path), s.text)
		case v.Field.Kind == columnar.String:
			s.text = appendText(s.text[:0], v.Text)
			s.take([]byte(v.Field.Path), s.text)
		default:
			s.text = appendValue(s.text[:0], v)
			s.take([]byte(v.Field.Path), s.text)
		}
	}
}

// json gives the leaves of an event's whole JSON, which is valid; known are the
// fields that count, nil: all.
func (s *leaves) json(text []byte, known *lake.Known) {
	i := jsonscan.Space(text, 0)
	if i < len(text) && text[i] != '{' {
		s.nested([]byte("data"), text)
		return
	}
	s.value(nil, 0, text, i, known)
}

// nested gives the leaves of a value below a path.
func (s *leaves) nested(path, text []byte) {
	s.value(path, 1, text, jsonscan.Space(text, 0), nil)
}

// rescued gives those of _rescued: an object, path → value.
func (s *leaves) rescued(text []byte) {
	i := jsonscan.Space(text, 0)
	if i >= len(text) || text[i] != '{' {
		s.take([]byte{0, '?'}, text)
		return
	}
	members(text, i, func(key []byte, at int) int {
		return s.value(withoutCount(key), 1, text, at, nil)
	})
}

// withoutCount takes off what tells a path's second value from its first: a
// backslash and a number.
func withoutCount(path []byte) []byte {
	for i := 0; i+1 < len(path); i++ {
		if path[i] != '\\' {
			continue
		}
		if path[i+1] == '\\' || path[i+1] == '.' {
			i++
			continue
		}
		return path[:i]
	}
	return path
}

// value gives the leaves of the value at text[i] that known has, and the place
// behind it.
func (s *leaves) value(path []byte, depth int, text []byte, i int, known *lake.Known) int {
	if i >= len(text) {
		s.take([]byte{0, '?'}, text)
		return i
	}
	if text[i] == '{' {
		return members(text, i, func(key []byte, at int) int {
			field, counts := fieldOf(known, key)
			if !counts {
				_, end := appendCanonical(nil, text, at, nil)
				return end
			}
			return s.value(appendKey(path[:len(path):len(path)], key, depth == 0), depth+1, text, at, field)
		})
	}
	b, end := appendCanonical(nil, text, i, known)
	if text[i] == '"' {
		b = asTime(b)
	}
	if text[i] == '"' && s.embedded[string(path)] {
		if in := bytes.TrimSpace(decode(text[i:end])); len(in) > 0 && in[0] != '"' && s.scan.Valid(in) {
			s.value(path, depth, in, 0, known)
			return end
		}
	}
	if text[i] != 'n' {
		s.take(path, b)
	}
	return end
}

// fieldOf tells whether a member counts, and what of it does.
func fieldOf(object *lake.Known, key []byte) (field *lake.Known, counts bool) {
	if object == nil || object.Fields == nil {
		return nil, true
	}
	field, counts = object.Fields[string(key)]
	return field, counts
}

// appendKey puts a key behind a path, as docs/format/tables.md says.
func appendKey(path, key []byte, first bool) []byte {
	if !first {
		path = append(path, '.')
	}
	for _, c := range key {
		if c == '.' || c == '\\' {
			path = append(path, '\\')
		}
		path = append(path, c)
	}
	return path
}

// members calls fn for each member of the object at text[i]; fn returns the
// place behind the value. It returns the place behind the object. The text is
// valid JSON.
func members(text []byte, i int, fn func(key []byte, at int) int) int {
	i = jsonscan.Space(text, i+1)
	for i < len(text) && text[i] == '"' {
		end := stringEnd(text, i)
		key := decode(text[i:end])
		i = jsonscan.Space(text, end) + 1 // the colon
		i = jsonscan.Space(text, fn(key, jsonscan.Space(text, i)))
		if i < len(text) && text[i] == ',' {
			i = jsonscan.Space(text, i+1)
		}
	}
	return i + 1
}

// stringEnd is the place behind the string at text[i].
func stringEnd(text []byte, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return min(i+1, len(text))
}

// decode gives the text of a JSON string with its quotes.
func decode(quoted []byte) []byte {
	plain := utf8.Valid(quoted)
	for _, c := range quoted {
		plain = plain && c != '\\'
	}
	if plain {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return quoted
	}
	return []byte(text)
}

// appendCanonical puts the value at text[i] into canonical form: numbers by
// their value, strings decoded, no white space, and only what known has. It returns
// the place behind.
func appendCanonical(b, text []byte, i int, known *lake.Known) ([]byte, int) {
	switch c := text[i]; c {
	case '"':
		end := stringEnd(text, i)
		return appendString(b, decode(text[i:end])), end
	case '{':
		b = append(b, '{')
		end := members(text, i, func(key []byte, at int) int {
			field, counts := fieldOf(known, key)
			if !counts {
				_, at = appendCanonical(nil, text, at, nil)
				return at
			}
			b = append(appendString(b, key), ':')
			b, at = appendCanonical(b, text, at, field)
			return at
		})
		return append(b, '}'), end
	case '[':
		b = append(b, '[')
		var items *lake.Known
		if known != nil {
			items = known.Items
		}
		for i = jsonscan.Space(text, i+1); i < len(text) && text[i] != ']'; {
			b, i = appendCanonical(b, text, i, items)
			b = append(b, ',')
			if i = jsonscan.Space(text, i); i < len(text) && text[i] == ',' {
				i = jsonscan.Space(text, i+1)
			}
		}
		return append(b, ']'), i + 1
	case 't':
		return append(b, 't'), i + 4
	case 'f':
		return append(b, 'f'), i + 5
	case 'n':
		return append(b, 'n'), i + 4
	}
	end := i + 1
	for end < len(text) {
		switch text[end] {
		case '+', '-', '.', 'e', 'E', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			end++
			continue
		}
		break
	}
	return appendNumber(b, text[i:end]), end
}

func appendNumber(b, text []byte) []byte {
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return appendLong(b, n)
	}
	f, err := strconv.ParseFloat(string(text), 64)
	mantissa, _, _ := bytes.Cut(bytes.ToLower(text), []byte("e"))
	if err != nil || f == 0 && bytes.ContainsAny(mantissa, "123456789") { // too large or too small: it was kept as it was sent
		return append(append(b, 'x'), text...)
	}
	return appendDouble(b, f)
}

func appendLong(b []byte, n int64) []byte { return strconv.AppendInt(append(b, 'i'), n, 10) }

func appendDouble(b []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
		return appendLong(b, int64(f))
	}
	return strconv.AppendUint(append(b, 'd'), math.Float64bits(f), 16)
}

// appendString appends a text, invalid bytes as U+FFFD.
func appendString(b, text []byte) []byte {
	b = append(b, 's')
	if utf8.Valid(text) {
		return append(b, text...)
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		b = utf8.AppendRune(b, r)
		text = text[n:]
	}
	return b
}

// appendValue puts a column's value into the form that its JSON has.
func appendValue(b []byte, v *columnar.Value) []byte {
	switch {
	case v.Null:
		return append(b, 'n')
	case v.Field.Kind.IsList():
		b = append(b, '[')
		for i := range v.List {
			b = append(appendValue(b, &v.List[i]), ',')
		}
		return append(b, ']')
	}
	switch v.Field.Kind {
	case columnar.Bool:
		if v.Bool {
			return append(b, 't')
		}
		return append(b, 'f')
	case columnar.Double:
		return appendDouble(b, v.Double)
	case columnar.String, columnar.Binary:
		return appendString(b, v.Text)
	}
	return appendLong(b, v.Long)
}
