package tail

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/web"
)

// AppendEvent writes e as one line of JSON, line break included. The envelope has the names of the table's
// columns; the event itself is "data" as it was sent, or "data_text" or
// "data_base64" where it is not JSON.
func AppendEvent(dst []byte, stream string, partition int32, inc event.Incarnation, e *event.Event) []byte {
	text := func(name string, v []byte) {
		dst = append(dst, name...)
		dst = web.AppendJSONString(dst, string(v))
	}
	text(`{"_stream":`, []byte(stream))
	dst = append(dst, `,"_partition":`...)
	dst = strconv.AppendInt(dst, int64(partition), 10)
	dst = append(dst, `,"_offset":`...)
	dst = strconv.AppendInt(dst, e.Offset, 10)
	text(`,"_log":`, []byte(inc.String()))
	text(`,"_id":`, e.ID)
	text(`,"_source":`, e.Source)
	text(`,"_type":`, e.Type)
	if e.Subject != nil {
		text(`,"_subject":`, e.Subject)
	}
	if !e.Time.IsZero() {
		text(`,"_time":`, e.Time.AppendFormat(nil, time.RFC3339Nano))
	}
	text(`,"_received_at":`, e.ReceivedAt.AppendFormat(nil, time.RFC3339Nano))
	for _, x := range e.Extensions {
		dst = append(dst, ',')
		dst = web.AppendJSONString(dst, string(x.Name))
		text(":", x.Value)
	}
	if e.Contract.ID != nil {
		text(`,"_contract":`, e.Contract.ID)
		text(`,"_contract_version":`, e.Contract.Version)
	}
	if e.Violations != nil && json.Valid(e.Violations) {
		dst = append(append(dst, `,"_violations":`...), e.Violations...)
	}
	if r := e.Refusal; r != nil {
		text(`,"_reason":`, []byte(r.Reason))
		text(`,"_detail":`, []byte(r.Detail))
		if r.Rule != "" {
			text(`,"_rule":`, []byte(r.Rule))
			text(`,"_path":`, []byte(r.Path))
		}
		text(`,"_refused_stream":`, []byte(r.Stream))
		text(`,"_refused_type":`, []byte(r.Type))
		text(`,"_refused_id":`, []byte(r.ID))
	}
	dst = appendData(dst, e)
	return append(dst, "}\n"...)
}

func appendData(dst []byte, e *event.Event) []byte {
	switch {
	case len(e.Data) == 0:
		return dst
	case isJSON(e.ContentType) && utf8.Valid(e.Data) && json.Valid(e.Data):
		dst = append(dst, `,"data":`...)
		if bytes.IndexByte(e.Data, '\n') < 0 {
			return append(dst, e.Data...)
		}
		buf := bytes.NewBuffer(dst)
		if err := json.Compact(buf, e.Data); err != nil {
			return append(dst, "null"...) // cannot be: it is valid
		}
		return buf.Bytes()
	case utf8.Valid(e.Data):
		dst = append(dst, `,"data_text":`...)
		return web.AppendJSONString(dst, string(e.Data))
	}
	dst = append(dst, `,"data_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Data)
	return append(dst, '"')
}

func isJSON(contentType []byte) bool {
	if contentType == nil {
		return true
	}
	media, _, err := mime.ParseMediaType(string(contentType))
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
