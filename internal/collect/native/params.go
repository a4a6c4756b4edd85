package native

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"naru/internal/event"
	"naru/internal/web"
)

// params are the query parameters of the door.
type params struct {
	stream, typ, source       string
	idField, idPrefix         string
	idFirst                   int64
	hasPrefix, hasFirst       bool
	hasType, hasSrc, hasField bool
	strict                    bool
}

var paramNames = []string{"stream", "type", "source", "strict", "id_field", "id_prefix", "id_first"}

// maxParam is the longest value of a parameter in bytes.
const maxParam = 1024

func badParam(name, why string) error {
	return &web.Error{Status: http.StatusBadRequest, Title: "bad parameter", Detail: "parameter " + name + ": " + why}
}

// readParams reads the query. A name that the door does not know is an error,
// so that a slip of the pen does not silently do nothing.
func readParams(query string) (params, error) {
	p := params{stream: event.DefaultStream}
	if query == "" {
		return p, nil
	}
	seen := 0
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := unescape(name)
		if err == nil {
			value, err = unescape(value)
		}
		if err != nil {
			return p, badParam(strconv.Quote(short(part)), "it is not percent-encoded correctly")
		}
		at := -1
		for i, n := range paramNames {
			if n == name {
				at = i
			}
		}
		if at < 0 {
			return p, unknownParam(name)
		}
		if seen>>at&1 != 0 {
			return p, badParam(name, "it is given twice")
		}
		seen |= 1 << at
		if len(value) > maxParam {
			return p, badParam(name, fmt.Sprintf("its value has %d bytes, at most %d", len(value), maxParam))
		}
		if value == "" {
			return p, badParam(name, "its value is empty; leave the parameter out or give it a value")
		}
		if err := p.set(name, value); err != nil {
			return p, err
		}
	}
	switch {
	case p.hasField && p.hasPrefix:
		return p, badParam("id_prefix", "the ids come from id_field already; give one of the two")
	case p.hasFirst && !p.hasPrefix:
		return p, badParam("id_first", "it numbers the ids of id_prefix, which is missing")
	}
	return p, nil
}

func (p *params) set(name, value string) error {
	switch name {
	case "stream":
		p.stream = value
	case "type":
		p.typ, p.hasType = value, true
	case "source":
		p.source, p.hasSrc = value, true
	case "strict":
		switch value {
		case "1", "true":
			p.strict = true
		case "0", "false":
		default:
			return badParam(name, strconv.Quote(short(value))+" is neither 1 nor 0")
		}
	case "id_field":
		p.idField, p.hasField = value, true
	case "id_prefix":
		p.idPrefix, p.hasPrefix = value, true
	case "id_first":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 || n > 1<<62 {
			return badParam(name, strconv.Quote(short(value))+" is not a whole number from 0 on")
		}
		p.idFirst, p.hasFirst = n, true
	}
	return nil
}

// forCloudEvents refuses the parameters that describe plain JSON: a CloudEvent
// carries its own type, source and id.
func (p *params) forCloudEvents() error {
	for _, x := range []struct {
		name  string
		given bool
	}{{"type", p.hasType}, {"source", p.hasSrc}, {"id_field", p.hasField}, {"id_prefix", p.hasPrefix}} {
		if x.given {
			return badParam(x.name, "it describes plain JSON, and a CloudEvent carries its own attributes; leave it out")
		}
	}
	return nil
}

func unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}

func unknownParam(name string) error {
	detail := "parameter " + strconv.Quote(short(name)) + " is not known here"
	best, distance := "", 4
	for _, n := range paramNames {
		if d := editDistance(strings.ToLower(short(name)), n); d < distance && d < len(n) {
			best, distance = n, d
		}
	}
	if best != "" {
		detail += "; did you mean " + best + "?"
	} else {
		detail += "; the parameters are " + strings.Join(paramNames, ", ")
	}
	return &web.Error{Status: http.StatusBadRequest, Title: "unknown parameter", Detail: detail}
}

// editDistance is Levenshtein's: the fewest insertions, deletions and
// replacements of bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func short(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
