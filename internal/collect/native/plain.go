package native

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/web"
)

// fields are the top-level members of plain JSON that mean something here.
type fields struct {
	names            *jsonscan.Names
	typ, event, id   int // places in names; id is -1 without an id field
	times            []int
	timeName, idName string
}

// timeFields are looked at in this order, unless the configuration names one.
var timeFields = []string{"time", "timestamp", "ts", "@timestamp", "event_time"}

func newFields(timeName, idName string) (*fields, error) {
	list := []string{"type", "event"}
	times := timeFields
	if timeName != "" {
		times = []string{timeName}
	}
	list = append(list, times...)
	if idName != "" {
		list = append(list, idName)
	}
	names, err := jsonscan.NewNames(list...)
	if err != nil {
		return nil, fmt.Errorf("set up fields: %w", err)
	}
	f := &fields{names: names, typ: 0, event: 1, id: -1, timeName: timeName, idName: idName}
	for _, t := range times {
		f.times = append(f.times, names.Index(t))
	}
	if idName != "" {
		f.id = names.Index(idName)
	}
	return f, nil
}

// takeLines reads NDJSON: bad lines are refused one by one.
func (wk *work) takeLines(body []byte) error {
	scan := &wk.req.Scan
	wk.lines.Reset(body)
	for {
		it, ok := wk.lines.Next(scan, wk.fields.names)
		if !ok {
			return nil
		}
		var err error
		if it.Err == nil {
			err = wk.object(body, it.Start, it.End)
		} else {
			err = wk.refuseItem(body, it)
		}
		if err != nil {
			return err
		}
	}
}

// takeJSON reads one object or one array, all or nothing. Several objects one
// behind the other are NDJSON, with line breaks between them or without, as mobile
// measurement partners send them under application/json. When the framing is to be
// found out, so is a broken first line before a line that begins an object.
func (wk *work) takeJSON(body []byte, sniff bool) error {
	scan := &wk.req.Scan
	start := jsonscan.Space(body, jsonscan.SkipMark(body))
	if body[start] == '[' {
		return wk.takeArray(body, start, (*work).element)
	}
	end := scan.Value(body, start, wk.fields.names)
	rest := end
	if end >= 0 {
		rest = jsonscan.Space(body, end)
	}
	switch {
	case sniff && (end < 0 || body[start] != '{') && linesFollow(body, start),
		sniff && end >= 0 && body[start] == '{' && rest < len(body),
		end >= 0 && body[start] == '{' && rest < len(body) && body[rest] == '{':
		return wk.takeLines(body)
	case end < 0:
		return notJSON(body, &scan.Err, "nothing was stored")
	case body[start] != '{':
		return &web.Error{
			Status: http.StatusBadRequest, Title: "not an object",
			Detail: fmt.Sprintf("the value at byte %d is no event; send a JSON object, a JSON array of objects or NDJSON", start),
		}
	case rest < len(body):
		return &web.Error{
			Status: http.StatusBadRequest, Title: "text behind the object",
			Detail: fmt.Sprintf("the object ends at byte %d, but more follows at byte %d; nothing was stored; send several objects as application/x-ndjson, or as a JSON array", end, rest),
		}
	}
	return wk.object(body, start, end)
}

// linesFollow tells whether the next line that is not blank begins an object.
func linesFollow(body []byte, from int) bool {
	n := bytes.IndexByte(body[from:], '\n')
	if n < 0 {
		return false
	}
	i := jsonscan.Space(body, from+n)
	return i < len(body) && body[i] == '{'
}

// takeArray reads the elements of the array at body[start], all or nothing.
func (wk *work) takeArray(body []byte, start int, take func(*work, []byte, jsonscan.Item) error) error {
	scan := &wk.req.Scan
	wk.array.Reset(body, start)
	for {
		it, ok, err := wk.array.Next(scan, wk.fields.names)
		if err != nil {
			return notJSON(body, &scan.Err, "the whole array was refused and nothing stored; mend it, or send NDJSON, where a bad line is refused alone")
		}
		if !ok {
			break
		}
		if err := take(wk, body, it); err != nil {
			return err
		}
	}
	if rest := jsonscan.Space(body, wk.array.End()); rest < len(body) {
		return &web.Error{
			Status: http.StatusBadRequest, Title: "text behind the array",
			Detail: fmt.Sprintf("the array ends at byte %d, but more follows at byte %d; nothing was stored", wk.array.End(), rest),
		}
	}
	return nil
}

func (wk *work) element(body []byte, it jsonscan.Item) error {
	if it.Err != nil {
		return wk.refuseItem(body, it)
	}
	return wk.object(body, it.Start, it.End)
}

// notJSON is the answer to a body that is refused as a whole.
func notJSON(body []byte, e *jsonscan.Error, then string) error {
	at := min(e.Offset, len(body))
	line := 1 + bytes.Count(body[:at], []byte{'\n'})
	detail := fmt.Sprintf("%s at byte %d (line %d)", e.Reason, e.Offset, line)
	if at < len(body) {
		detail += ", found " + strconv.QuoteToASCII(string(body[at:min(at+16, len(body))]))
	}
	if bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		then += "; the body looks like gzip: say so with Content-Encoding: gzip"
	} else if bytes.HasPrefix(body, []byte("\x28\xb5\x2f\xfd")) {
		then += "; the body looks like zstd: say so with Content-Encoding: zstd"
	}
	return &web.Error{Status: http.StatusBadRequest, Title: "not JSON", Detail: detail + "; " + then}
}

// object takes the plain object body[start:end], whose members the scan has found.
func (wk *work) object(body []byte, start, end int) error {
	scan, f, it := &wk.req.Scan, wk.fields, &wk.item
	*it = collect.Item{Data: body[start:end:end], ContentType: jsonMedia, Source: wk.source}
	it.Type = wk.plainType(body)
	it.ID = wk.plainID(body)
	if wk.req.TooLarge(end - start) {
		return wk.refuse(event.TooLarge, wk.tooLarge(end-start), jsonMedia)
	}
	seen := false
	for _, slot := range f.times {
		if scan.Has>>slot&1 == 0 {
			continue
		}
		v := scan.Found[slot]
		var ok bool
		switch v.Kind {
		case jsonscan.String:
			it.Time, ok = collect.TimeText(wk.timeBuf[:], body[v.Start+1:v.End-1])
		case jsonscan.Escaped:
			it.Time, ok = collect.TimeText(wk.timeBuf[:], jsonscan.Text(body, v))
		case jsonscan.Number:
			it.Time, ok = collect.TimeNumber(wk.timeBuf[:], body[v.Start:v.End])
		case jsonscan.Null:
			continue
		}
		if ok {
			return wk.req.Accept(it)
		}
		seen = true
	}
	it.Time = nil
	if seen {
		wk.req.TimeUnparsable()
	}
	return wk.req.Accept(it)
}

var (
	jsonMedia     = []byte("application/json")
	eventMedia    = []byte("application/cloudevents+json")
	bytesMedia    = []byte("application/octet-stream")
	defaultSource = []byte(DefaultSource)
	defaultType   = []byte(event.DefaultType)
)

// plainType is the request's type, else the top-level string `type`, else
// `event`, else the word event.
func (wk *work) plainType(body []byte) []byte {
	if wk.typ != nil {
		return wk.typ
	}
	scan := &wk.req.Scan
	for _, slot := range [2]int{wk.fields.typ, wk.fields.event} {
		if scan.Has>>slot&1 == 0 {
			continue
		}
		switch v := scan.Found[slot]; {
		case v.Kind == jsonscan.String && v.End-v.Start > 2:
			return body[v.Start+1 : v.End-1]
		case v.Kind == jsonscan.Escaped:
			wk.typBuf = jsonscan.AppendString(wk.typBuf[:0], body, v)
			return wk.typBuf
		}
	}
	return defaultType
}

// plainID is the id that the request or the id field gives, or nil.
func (wk *work) plainID(body []byte) []byte {
	if wk.params.hasPrefix {
		wk.idBuf = append(wk.idBuf[:0], wk.params.idPrefix...)
		wk.idBuf = strconv.AppendInt(wk.idBuf, wk.params.idFirst+int64(wk.req.Items()), 10)
		return wk.idBuf
	}
	slot := wk.fields.id
	if slot < 0 || wk.req.Scan.Has>>slot&1 == 0 {
		return nil
	}
	switch v := wk.req.Scan.Found[slot]; {
	case v.Kind == jsonscan.String && v.End-v.Start > 2:
		return body[v.Start+1 : v.End-1]
	case v.Kind == jsonscan.Escaped:
		wk.idBuf = jsonscan.AppendString(wk.idBuf[:0], body, v)
		return wk.idBuf
	case v.Kind == jsonscan.Number:
		return body[v.Start:v.End]
	}
	return nil
}

func (wk *work) tooLarge(size int) string {
	return fmt.Sprintf("the event has %d bytes, at most %s are taken (collect.event); send large contents elsewhere and their address here", size, wk.req.MaxEvent())
}

// refuseItem refuses an item that is not JSON, or no object.
func (wk *work) refuseItem(body []byte, it jsonscan.Item) error {
	item := &wk.item
	*item = collect.Item{Type: wk.typ, Data: body[it.Start:it.End]}
	var other *jsonscan.NotObject
	if errors.As(it.Err, &other) {
		return wk.refuse(event.NotObject, other.Error()+"; an event is a JSON object", jsonMedia)
	}
	e := &wk.req.Scan.Err
	return wk.refuse(event.NotJSON, fmt.Sprintf("%s at byte %d of the body (byte %d of the item)", e.Reason, e.Offset, e.Offset-it.Start), bytesMedia)
}

// refuse refuses wk.item.
func (wk *work) refuse(reason event.Reason, detail string, media []byte) error {
	it := &wk.item
	if wk.params.hasPrefix && it.ID == nil {
		it.ID = wk.plainID(nil)
	}
	source := it.Source
	if len(source) == 0 {
		source = defaultSource
	}
	return wk.req.Refuse(event.Rejection{
		ID: clip(it.ID), Type: clip(it.Type), Reason: reason, Detail: detail, Original: it.Data,
	}, source, media)
}

// clip makes a string of what may be a megabyte of somebody's id.
func clip(b []byte) string {
	if len(b) > 512 {
		b = b[:512]
	}
	return string(b)
}
