package columnar

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/jsonscan"
)

// Times outside these seconds since 1970 have no place in engines' calendars
// (years 1 to 9999).
const (
	minSecond = -62135596800 // 0001-01-01T00:00:00Z
	maxSecond = 253402300799 // 9999-12-31T23:59:59Z
)

// maxAhead is how far an event time may lie ahead of its receipt.
const maxAhead = 24 * time.Hour

// columnBytes is what a row takes in each column at most, beside texts and lists.
const columnBytes = 9

const microsPerDay = 24 * 60 * 60 * 1e6

// rowTime is the value of _time: the event's time; the time of receipt when
// there is none, when it is later than receipt + 24 h, or when no calendar
// holds it.
func rowTime(e *event.Event) (micros int64, clamped bool) {
	t := e.Time
	if !t.IsZero() && !e.ReceivedAt.IsZero() { // what nearly all are, by whole seconds
		if s := t.Unix(); s >= minSecond && s <= maxSecond && s-e.ReceivedAt.Unix() < int64(maxAhead/time.Second) {
			return s*1e6 + int64(t.Nanosecond())/1e3, false
		}
	}
	switch {
	case t.IsZero():
		t = e.ReceivedAt
	case !e.ReceivedAt.IsZero() && t.Sub(e.ReceivedAt) > maxAhead, t.Unix() < minSecond, t.Unix() > maxSecond:
		t, clamped = e.ReceivedAt, true
	}
	if t.IsZero() {
		return 0, clamped
	}
	return toMicros(t), clamped
}

func toMicros(t time.Time) int64 {
	if s := t.Unix(); s < minSecond || s > maxSecond {
		return min(max(s, minSecond), maxSecond) * 1e6
	}
	return t.UnixMicro()
}

// fixedText appends to an envelope column; nil is null.
func (b *Builder) fixedText(col *column, v []byte) {
	if v == nil || col.repeat(b.cur.rows, v) {
		return
	}
	if !utf8.Valid(v) {
		b.text = appendUTF8(b.text[:0], v)
		v = b.text
	}
	col.begin(b.cur.rows)
	col.putText(v)
}

func (b *Builder) fixedLong(col *column, v int64) {
	col.begin(b.cur.rows)
	col.putLong(v)
}

func (b *Builder) envelope(e *event.Event, inc event.Incarnation, partition int32) {
	cols, at := b.cur.cols, &b.paths.fixed
	b.fixedText(cols[at[idID]], e.ID)
	b.fixedText(cols[at[idType]], e.Type)
	b.fixedText(cols[at[idSource]], e.Source)
	b.fixedText(cols[at[idSubject]], e.Subject)
	micros, clamped := rowTime(e)
	if clamped {
		b.counters.ClampedTimes++
	}
	b.fixedLong(cols[at[idTime]], micros)
	if !e.ReceivedAt.IsZero() {
		b.fixedLong(cols[at[idReceivedAt]], toMicros(e.ReceivedAt))
	}
	if inc != b.inc || len(b.log) == 0 {
		b.inc, b.log = inc, append(b.log[:0], inc.String()...)
	}
	b.fixedText(cols[at[idLog]], b.log)
	cols[at[idPartition]].begin(b.cur.rows)
	cols[at[idPartition]].putInt(partition)
	b.fixedLong(cols[at[idOffset]], e.Offset)
	b.cur.since += int64(columnBytes*len(cols) + len(e.ID) + len(e.Type) + len(e.Source) + len(e.Subject) + len(e.Data))
}

// flat reads the event's data into columns by path.
func (b *Builder) flat(e *event.Event) {
	saved := b.counters
	b.follow(e)
	b.rescued.reset()
	b.checked, b.broken = false, false
	if len(e.Data) > 0 {
		if media := mediaOf(e.ContentType); media != mediaJSON {
			b.opaque(e.Data, media == mediaText)
		} else if b.data = b.json(e); !b.parse(b.data) {
			b.cur.cut(b.schema)
			b.rescued.reset()
			b.counters = saved
			b.counters.NotJSON++
			b.opaque(e.Data, utf8.Valid(e.Data))
		} else {
			b.settle()
		}
	}
	b.extensions(e)
	b.violations(e)
	b.endRescued()
}

// json is the event's data, strings that hold JSON unpacked, without what its
// contract leaves out. It follows the event's contract.
func (b *Builder) json(e *event.Event) []byte {
	data := e.Data
	if len(e.JSONStrings) > 0 {
		data = b.unpacked(data, e.JSONStrings)
	}
	return b.onlyKnown(data)
}

// opaque keeps data that is no JSON: text under the path data, bytes in base64
// under data_base64.
func (b *Builder) opaque(data []byte, text bool) {
	key := []byte("data")
	if text {
		b.data = jsonscan.AppendQuoted(nil, data)
	} else {
		key = []byte("data_base64")
		b.data = append(base64.StdEncoding.AppendEncode([]byte{'"'}, data), '"')
	}
	b.cur.since += int64(len(b.data))
	b.checked, b.broken = false, false
	b.value(b.data, 0, b.paths.root, b.paths.root.find(key), key)
}

// extensions puts the CloudEvents extension attributes into _extensions.
func (b *Builder) extensions(e *event.Event) {
	if len(e.Extensions) == 0 {
		return
	}
	j := AppendExtensions(nil, e.Extensions)
	b.cur.since += int64(len(j))
	at := b.paths.extensions()
	b.cur.follow(b.schema)
	if at < 0 {
		b.rescue(b.paths.root, []byte(ColumnExtensions), j)
		return
	}
	b.cur.cols[at].begin(b.cur.rows)
	b.cur.cols[at].putText(j)
}

// violations puts what a contract found into _violations.
func (b *Builder) violations(e *event.Event) {
	if len(e.Violations) == 0 {
		return
	}
	at := b.paths.violations()
	b.cur.follow(b.schema)
	if at < 0 {
		b.rescue(b.paths.root, []byte(ColumnViolations), e.Violations)
		return
	}
	b.cur.since += int64(len(e.Violations))
	col := b.cur.cols[at]
	col.begin(b.cur.rows)
	col.putText(appendJSON(nil, e.Violations))
}

// AppendExtensions appends CloudEvents extension attributes as one JSON object;
// nothing when there are none.
func AppendExtensions(dst []byte, attrs []event.Attr) []byte {
	if len(attrs) == 0 {
		return dst
	}
	dst = append(dst, '{')
	for i, x := range attrs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(jsonscan.AppendQuoted(dst, x.Name), ':')
		dst = jsonscan.AppendQuoted(dst, x.Value)
	}
	return append(dst, '}')
}

// endRescued writes _rescued of the row and counts its paths.
func (b *Builder) endRescued() {
	r := &b.rescued
	if len(r.json) == 0 {
		return
	}
	r.json = append(r.json, '}')
	b.cur.since += int64(len(r.json))
	col := b.cur.cols[b.paths.fixed[idRescued]]
	col.begin(b.cur.rows)
	col.putText(r.json)
	from := 0
	for _, end := range r.ends {
		b.top.add(r.paths[from:end], 1)
		from = end
	}
	b.counters.Rescued += int64(len(r.ends))
}

// whole keeps the event's data as one JSON text, for the table _other.
func (b *Builder) whole(e *event.Event) {
	b.follow(e)
	b.rescued.reset()
	b.extensions(e)
	b.violations(e)
	b.endRescued()
	if len(e.Data) == 0 {
		return
	}
	var j []byte
	switch media := mediaOf(e.ContentType); {
	case media == mediaJSON && b.scan.valid(e.Data):
		j = appendJSON(nil, b.json(e))
	case media == mediaText || media == mediaJSON && utf8.Valid(e.Data):
		j = jsonscan.AppendQuoted(nil, e.Data)
	default:
		j = append(base64.StdEncoding.AppendEncode([]byte(`{"data_base64":"`), e.Data), `"}`...)
	}
	if n := b.paths.root.find([]byte("data")); n != nil && n.col >= 0 {
		b.cur.cols[n.col].begin(b.cur.rows)
		b.cur.cols[n.col].putText(j)
	}
}

// refusal fills the columns of the stream `rejected`. Data of such an event is
// the bytes as they were sent.
func (b *Builder) refusal(e *event.Event) {
	r := e.Refusal
	if r == nil {
		r = &event.Rejection{}
	}
	for i, f := range b.schema.Fields {
		if f.ID <= idOffset || f.Dropped || f.Kind == Foreign {
			continue
		}
		col := b.cur.cols[i]
		if f.ID > idContentType {
			b.fixedText(col, laterText(f.Name, e, r))
			continue
		}
		switch f.ID {
		case idReason:
			b.fixedText(col, orNull(string(r.Reason)))
		case idDetail:
			b.fixedText(col, orNull(r.Detail))
		case idStream:
			b.fixedText(col, orNull(r.Stream))
		case idEventType:
			b.fixedText(col, orNull(r.Type))
		case idEventID:
			b.fixedText(col, orNull(r.ID))
		case idItemIndex:
			if e.Refusal != nil {
				b.fixedLong(col, int64(r.Index))
			}
		case idOriginal:
			col.begin(b.cur.rows)
			col.putText(e.Data)
		case idContentType:
			b.fixedText(col, e.ContentType)
		}
	}
}

// laterText is the text of a column of laterRejected; nil for none.
func laterText(name string, e *event.Event, r *event.Rejection) []byte {
	switch name {
	case columnRule:
		return orNull(r.Rule)
	case columnPath:
		return orNull(r.Path)
	case columnContract:
		return e.Contract.ID
	case columnContractVersion:
		return e.Contract.Version
	case columnContractHash:
		return e.Contract.Hash
	case columnSent:
		return e.Sent
	case columnEventTime:
		return exactTime(e)
	case columnAttributes:
		return AppendExtensions(nil, e.Extensions)
	}
	return nil
}

// exactTime is the event's time where _time does not say it: it is finer than a
// microsecond or was clamped, or it equals the receipt, which stands in where there
// is none. Sent again, the event is to have the very time that it had.
func exactTime(e *event.Event) []byte {
	if e.Time.IsZero() {
		return nil
	}
	micros, clamped := rowTime(e)
	if !clamped && e.Time.Nanosecond()%1000 == 0 && micros != toMicros(e.ReceivedAt) {
		return nil
	}
	return e.Time.AppendFormat(nil, time.RFC3339Nano)
}

func orNull(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

type media uint8

const (
	mediaJSON media = iota
	mediaText
	mediaBytes
)

var jsonType = []byte("application/json")

// mediaOf sorts a media type: JSON when absent, application/json, text/json or
// a +json suffix; text when text/* or one of the textual application types.
func mediaOf(contentType []byte) media {
	if len(contentType) == 0 || bytes.Equal(contentType, jsonType) {
		return mediaJSON
	}
	t, _, _ := bytes.Cut(contentType, []byte(";"))
	t = bytes.ToLower(bytes.TrimSpace(t))
	switch {
	case bytes.Equal(t, jsonType), string(t) == "text/json", bytes.HasSuffix(t, []byte("+json")):
		return mediaJSON
	case bytes.HasPrefix(t, []byte("text/")), bytes.HasSuffix(t, []byte("+xml")), bytes.HasSuffix(t, []byte("+yaml")):
		return mediaText
	}
	switch string(t) {
	case "application/xml", "application/yaml", "application/javascript", "application/x-www-form-urlencoded",
		"application/x-ndjson", "application/ndjson", "application/sql", "application/graphql":
		return mediaText
	}
	return mediaBytes
}

// promote makes a long column of the current chunk a double one.
func (b *Builder) promote(at int) {
	old := b.schema.Fields[at]
	b.schema.LastID++
	b.schema.Fields[at] = Field{ID: b.schema.LastID, Name: old.Name, Path: old.Path, Kind: Double}
	b.plain[b.schema.LastID] = b.plain[old.ID]
	rescuedAt := b.paths.fixed[idRescued]
	var unfit int64
	b.cur.cols[at], b.cur.cols[rescuedAt], unfit = toDouble(&b.scan, b.cur.cols[at], b.cur.cols[rescuedAt], old.Path)
	b.counters.Rescued += unfit
	b.counters.UnfitNumbers += unfit
	if unfit > 0 {
		b.top.add([]byte(old.Path), unfit)
	}
}

// toDouble turns a Long column into a Double one. Values that a double cannot
// hold become null, and go to the column _rescued of the same rows.
func toDouble(s *scanner, long, rescued *column, path string) (doubles, merged *column, unfit int64) {
	doubles = &column{}
	doubles.reset(Double, false)
	extra := map[int]int64{}
	for row, v := range long.longs {
		if long.isNull(row) {
			doubles.pad(row + 1)
			continue
		}
		f, ok := exactLong(v)
		if !ok {
			extra[row] = v
			doubles.pad(row + 1)
			continue
		}
		doubles.putDouble(f)
	}
	if len(extra) == 0 {
		return doubles, rescued, 0
	}
	merged = &column{}
	merged.reset(JSON, false)
	for row := range max(rescued.n, len(long.longs)) {
		var text []byte
		if row < rescued.n && !rescued.isNull(row) {
			text = rescued.textAt(row)
		}
		if v, ok := extra[row]; ok {
			text = mergeRescued(s, text, path, strconv.AppendInt(nil, v, 10))
		}
		if text == nil {
			continue
		}
		merged.begin(row)
		merged.putText(text)
	}
	return doubles, merged, int64(len(extra))
}
