package native

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/web"
)

// Sources: CloudEvents 1.0.2, its JSON event format and its HTTP protocol binding.

// takeStructured reads one CloudEvent in JSON.
func (wk *work) takeStructured(body []byte) error {
	scan := &wk.req.Scan
	start := jsonscan.Space(body, jsonscan.SkipMark(body))
	end := scan.Value(body, start, nil)
	if end < 0 {
		return notJSON(body, &scan.Err, "nothing was stored")
	}
	if body[start] != '{' {
		return &web.Error{
			Status: http.StatusBadRequest, Title: "not an object",
			Detail: fmt.Sprintf("the value at byte %d is no CloudEvent; send an object, or an array of them as application/cloudevents-batch+json", start),
		}
	}
	if rest := jsonscan.Space(body, end); rest < len(body) {
		return &web.Error{
			Status: http.StatusBadRequest, Title: "text behind the object",
			Detail: fmt.Sprintf("the CloudEvent ends at byte %d, but more follows at byte %d; nothing was stored; send several as application/cloudevents-batch+json", end, rest),
		}
	}
	return wk.structured(body, jsonscan.Item{Start: start, End: end})
}

// takeBatch reads an array of CloudEvents, which may be empty.
func (wk *work) takeBatch(body []byte) error {
	start := jsonscan.Space(body, jsonscan.SkipMark(body))
	if body[start] != '[' {
		scan := &wk.req.Scan
		if !scan.Valid(body[start:]) {
			scan.Err.Offset += start
			return notJSON(body, &scan.Err, "nothing was stored")
		}
		return &web.Error{
			Status: http.StatusBadRequest, Title: "not an array",
			Detail: fmt.Sprintf("the value at byte %d is no batch; send an array of CloudEvents, or one as application/cloudevents+json", start),
		}
	}
	return wk.takeArray(body, start, (*work).structured)
}

// structured takes one CloudEvent in JSON that the scan has found well-formed.
func (wk *work) structured(body []byte, it jsonscan.Item) error {
	if it.Err != nil {
		return wk.refuseItem(body, it)
	}
	original := body[it.Start:it.End:it.End]
	item := &wk.item
	*item = collect.Item{}
	wk.ext = wk.ext[:0]
	a := attributes{work: wk}
	wk.members.Reset(body, it.Start, it.End)
	for {
		name, value, ok := wk.members.Next(&wk.req.Scan)
		if !ok {
			break
		}
		a.member(body, jsonscan.Text(body, name), value)
	}
	a.finish(body)
	if a.bad == "" && wk.req.TooLarge(len(original)) {
		item.Data = original
		return wk.refuse(event.TooLarge, wk.tooLarge(len(original)), eventMedia)
	}
	if a.bad != "" {
		item.Data = original
		return wk.refuse(event.BadAttribute, a.bad, eventMedia)
	}
	if a.hasTime && item.Time == nil {
		wk.req.TimeUnparsable()
	}
	return wk.req.Accept(item)
}

// attributes gathers what a CloudEvent says of itself into wk.item. The first
// fault stays in bad.
type attributes struct {
	*work
	bad         string
	specVersion bool
	hasTime     bool
	data        jsonscan.Value
	base64      jsonscan.Value
}

func (a *attributes) fail(format string, args ...any) {
	if a.bad == "" {
		a.bad = fmt.Sprintf(format, args...)
	}
}

// member takes one member of a structured event.
func (a *attributes) member(body, name []byte, v jsonscan.Value) {
	switch string(name) {
	case "data":
		a.data = v
		return
	case "data_base64":
		a.base64 = v
		return
	}
	if !isAttributeName(name) {
		a.fail("attribute %q: a name has only a-z and 0-9", short(string(name)))
		return
	}
	if v.Kind == jsonscan.Null {
		return // as if it were not there
	}
	var text []byte
	switch v.Kind {
	case jsonscan.String, jsonscan.Escaped:
		text = jsonscan.Text(body, v)
	case jsonscan.Number, jsonscan.True, jsonscan.False:
		if isOwnAttribute(name) {
			a.fail("attribute %s must be a string", name)
			return
		}
		text = body[v.Start:v.End]
		if v.Kind == jsonscan.Number && bytes.ContainsAny(text, ".eE") {
			a.fail("attribute %s is the number %s; only whole numbers, strings and booleans are attributes", name, short(string(text)))
			return
		}
	default:
		a.fail("attribute %s is neither a string nor a whole number nor a boolean", name)
		return
	}
	a.attribute(name, text)
}

// attribute takes one attribute whose text is known.
func (a *attributes) attribute(name, text []byte) {
	it := &a.item
	switch string(name) {
	case "specversion":
		a.specVersion = true
		if string(text) != "1.0" {
			a.fail("attribute specversion is %q, only 1.0 is taken", short(string(text)))
		}
	case "id":
		it.ID = text
	case "source":
		it.Source = text
	case "type":
		it.Type = text
	case "subject":
		if len(text) > 0 {
			it.Subject = text
		}
	case "time":
		a.hasTime = true
		if t, ok := collect.TimeText(a.timeBuf[:], text); ok {
			it.Time = t
		}
	case "datacontenttype":
		if len(text) > 0 {
			it.ContentType = text
		}
	default: // dataschema and the extensions
		for i := range a.ext {
			if bytes.Equal(a.ext[i].Name, name) {
				a.ext[i].Value = text
				return
			}
		}
		a.ext = append(a.ext, event.Attr{Name: name, Value: text})
	}
}

// finish checks what must be there and chooses key and data.
func (a *attributes) finish(body []byte) {
	a.required()
	it := &a.item
	it.Extensions = a.ext
	it.Key = it.Subject
	for i := range a.ext {
		if string(a.ext[i].Name) == "partitionkey" && len(a.ext[i].Value) > 0 {
			it.Key = a.ext[i].Value
		}
	}
	if it.ContentType == nil {
		it.ContentType = jsonMedia
	}
	switch {
	case a.data.Kind != jsonscan.None && a.base64.Kind != jsonscan.None:
		a.fail("both data and data_base64 are given")
	case a.base64.Kind == jsonscan.String || a.base64.Kind == jsonscan.Escaped:
		data, err := decodeBase64(jsonscan.Text(body, a.base64))
		if err != nil {
			a.fail("data_base64 is not base64: %v", err)
		}
		it.Data = data
	case a.base64.Kind != jsonscan.None && a.base64.Kind != jsonscan.Null:
		a.fail("data_base64 must be a string")
	case a.data.Kind == jsonscan.String || a.data.Kind == jsonscan.Escaped:
		// JSON format 3.1: under a media type that is not JSON the string stands
		// for its characters.
		if isJSONMedia(it.ContentType) {
			it.Data = body[a.data.Start:a.data.End]
		} else {
			it.Data = jsonscan.Text(body, a.data)
		}
	case a.data.Kind != jsonscan.None:
		it.Data = body[a.data.Start:a.data.End]
	}
}

func (a *attributes) required() {
	switch {
	case !a.specVersion:
		a.fail("attribute specversion is missing; it is 1.0")
	case len(a.item.ID) == 0:
		a.fail("attribute id is missing or empty")
	case len(a.item.Source) == 0:
		a.fail("attribute source is missing or empty")
	case len(a.item.Type) == 0:
		a.fail("attribute type is missing or empty")
	}
}

func decodeBase64(text []byte) ([]byte, error) {
	enc := base64.StdEncoding.Strict()
	if len(text)%4 != 0 {
		enc = base64.RawStdEncoding.Strict()
	}
	out := make([]byte, enc.DecodedLen(len(text)))
	n, err := enc.Decode(out, text)
	return out[:n], err
}

// isAttributeName: lower-case letters and digits (CloudEvents 1.0.2, "Naming
// conventions").
func isAttributeName(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(name) > 0
}

func isOwnAttribute(name []byte) bool {
	switch string(name) {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

// isJSONMedia tells whether a media type means JSON: json, or anything +json.
func isJSONMedia(media []byte) bool {
	m, _, _ := bytes.Cut(media, []byte{';'})
	m = bytes.ToLower(bytes.TrimSpace(m))
	return bytes.HasSuffix(m, []byte("/json")) || bytes.HasSuffix(m, []byte("+json"))
}

// takeBinary takes a CloudEvent whose attributes are headers and whose data is
// the body, of any media type. What is wrong with it is 400, and it is not kept:
// a rejection keeps bytes, and headers are none.
func (wk *work) takeBinary(h http.Header, body []byte) error {
	wk.item, wk.ext = collect.Item{}, wk.ext[:0]
	a := attributes{work: wk}
	a.headers(h)
	a.finish(nil)
	if a.bad != "" {
		return &web.Error{Status: http.StatusBadRequest, Title: "bad CloudEvent", Detail: a.bad + "; nothing was stored"}
	}
	if wk.req.TooLarge(len(body)) {
		return &web.Error{Status: http.StatusRequestEntityTooLarge, Title: "event too large", Detail: wk.tooLarge(len(body)) + "; nothing was stored"}
	}
	it := &wk.item
	it.Data = body
	it.ContentType = []byte(h.Get("Content-Type"))
	switch string(it.ContentType) {
	case "", "application/x-www-form-urlencoded": // nobody chose it
		if len(body) == 0 || wk.req.Scan.Valid(body) {
			it.ContentType = jsonMedia
		} else if len(it.ContentType) == 0 {
			it.ContentType = bytesMedia
		}
	}
	if a.hasTime && it.Time == nil {
		wk.req.TimeUnparsable()
	}
	return wk.req.Accept(it)
}

// headers reads the ce- headers in the order of their names.
func (a *attributes) headers(h http.Header) {
	names := make([]string, 0, 16)
	for name := range h {
		if strings.HasPrefix(name, "Ce-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, header := range names {
		values := h[header]
		name := []byte(strings.ToLower(header[len("Ce-"):]))
		switch {
		case !isAttributeName(name):
			a.fail("header %s: the name of an attribute has only a-z and 0-9", strconv.Quote(short(header)))
			continue
		case string(name) == "data" || string(name) == "datacontenttype":
			a.fail("header ce-%s: the data is the body, and its media type is Content-Type", name)
			continue
		case len(values) != 1:
			a.fail("header ce-%s is given %d times", name, len(values))
			continue
		}
		a.attribute(name, decodeHeader(values[0]))
	}
}

// decodeHeader undoes quotes and then one round of percent-encoding (HTTP
// binding, 3.1.3.2). A percent sign without two hexadecimal digits stays.
func decodeHeader(s string) []byte {
	s = textproto.TrimString(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		var b strings.Builder
		for i := 1; i < len(s)-1; i++ {
			if s[i] == '\\' && i+1 < len(s)-1 {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}
