package native

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"naru/internal/web"
)

// mode is how a body is read.
type mode int

const (
	sniffed         mode = iota // JSON of some framing: the body decides
	form                        // the same, if it is JSON at all
	jsonText                    // one object or one array
	jsonLines                   // NDJSON
	structuredEvent             // one CloudEvent as JSON
	eventBatch                  // an array of CloudEvents
	binaryEvent                 // a CloudEvent whose attributes are headers
)

func (m mode) isCloudEvents() bool { return m >= structuredEvent }

// readMode decides by the media type and the ce- headers. CloudEvents' HTTP
// binding (3.) puts the media types of events first, then the ce- headers.
func readMode(h http.Header) (mode, error) {
	given := ""
	if v := h["Content-Type"]; len(v) > 0 {
		given = v[0]
	}
	media, charset, ok := parseMedia(given)
	isEvent := strings.HasPrefix(media, "application/cloudevents")
	if !isEvent && hasEventHeaders(h) {
		return binaryEvent, nil // whatever the type: it is the data's
	}
	if !ok {
		return 0, unsupported("Content-Type " + strconv.Quote(short(given)) + " cannot be read")
	}
	m := sniffed
	switch media {
	case "", "text/plain":
	case "application/x-www-form-urlencoded":
		m = form
	case "application/json":
		m = jsonText
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl", "application/jsonlines", "application/x-jsonlines":
		m = jsonLines
	case "application/cloudevents+json":
		m = structuredEvent
	case "application/cloudevents-batch+json":
		m = eventBatch
	default:
		return 0, unsupported("Content-Type is " + strconv.Quote(short(media)))
	}
	switch charset {
	case "", "utf-8", "utf8", "us-ascii":
		return m, nil
	}
	return 0, unsupported("the charset is " + strconv.Quote(short(charset)) + ", JSON is UTF-8")
}

func unsupported(what string) error {
	return &web.Error{
		Status: http.StatusUnsupportedMediaType, Title: "unsupported media type",
		Detail: what + "; send application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json or a CloudEvent in ce- headers, in UTF-8",
	}
}

func parseMedia(s string) (media, charset string, ok bool) {
	switch s { // as nearly everybody writes them
	case "", "application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/plain":
		return s, "", true
	}
	media, values, err := mime.ParseMediaType(s)
	if err != nil {
		return "", "", false
	}
	return media, strings.ToLower(values["charset"]), true
}

func hasEventHeaders(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Ce-") {
			return true
		}
	}
	return false
}
