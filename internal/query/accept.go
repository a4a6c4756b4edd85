package query

import (
	"mime"
	"strconv"
	"strings"
)

// offers are the formats that HTTP serves, the preferred one first.
var offers = []struct {
	media  string
	format Format
}{
	{"application/json", JSON},
	{"application/x-ndjson", NDJSON},
	{"application/ndjson", NDJSON},
	{"application/jsonl", NDJSON},
	{"text/csv", CSV},
	{"text/tab-separated-values", TSV},
}

// MediaTypes that an Accept header may ask for.
func MediaTypes() []string {
	return []string{"application/json", "application/x-ndjson", "text/csv", "text/tab-separated-values"}
}

// Negotiate chooses the format by an Accept header (RFC 9110, 12.5.1): the
// client's highest quality, then its order, then ours. No header means JSON;
// false means that the client takes none of ours.
func Negotiate(accept string) (Format, bool) {
	if strings.TrimSpace(accept) == "" {
		return JSON, true
	}
	best, bestQ, bestAt := JSON, 0.0, 0
	for _, o := range offers {
		q, at := quality(accept, o.media)
		if q > bestQ || q == bestQ && q > 0 && at < bestAt {
			best, bestQ, bestAt = o.format, q, at
		}
	}
	return best, bestQ > 0
}

// quality of a media type: that of the most specific range that covers it, and
// where that range stands.
func quality(accept, media string) (q float64, at int) {
	family, _, _ := strings.Cut(media, "/")
	most := 0
	for i, item := range strings.Split(accept, ",") {
		rng, params, err := mime.ParseMediaType(item)
		if err != nil && rng == "" {
			continue
		}
		specific := 0
		switch rng {
		case media:
			specific = 3
		case family + "/*":
			specific = 2
		case "*/*":
			specific = 1
		}
		if specific <= most {
			continue
		}
		most, q, at = specific, 1, i
		if p, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(p, 64); err != nil || q < 0 || q > 1 {
				q = 0
			}
		}
	}
	return q, at
}
