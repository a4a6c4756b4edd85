package query

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"

	"naru/internal/jsonscan"
)

// AppendJSON appends a value of Rows as JSON. NaN and the infinities, which JSON
// has not, become null; bytes become base64.
func AppendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(dst, "null"...)
		}
		return jsonscan.AppendDouble(dst, v)
	case *big.Int:
		return v.Append(dst, 10)
	case json.Number:
		return append(dst, v...)
	case string:
		return jsonscan.AppendQuoted(dst, v)
	case []byte:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, '"')
	case time.Time:
		dst = append(dst, '"')
		dst = appendTime(dst, v)
		return append(dst, '"')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = AppendJSON(dst, e)
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for i, m := range v {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = jsonscan.AppendQuoted(dst, m.Name)
			dst = append(dst, ": "...)
			dst = AppendJSON(dst, m.Value)
		}
		return append(dst, '}')
	}
	return jsonscan.AppendQuoted(dst, fmt.Sprint(v))
}

// appendTime writes ISO 8601 in UTC, with Z and as many digits as there are.
// Years outside 0 to 9999 have a sign.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	switch y := t.Year(); {
	case y > 9999:
		dst = append(dst, '+')
	case y < 0:
		dst = fmt.Appendf(dst, "-%04d", -y)
		return t.AppendFormat(dst, "-01-02T15:04:05.999999999Z07:00")
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.999999999Z07:00")
}

// appendText appends a value as plain text: what stands in a CSV cell. Lists and
// objects are JSON; nil is nothing.
func appendText(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return dst
	case string:
		return append(dst, v...)
	case float64:
		switch {
		case math.IsNaN(v):
			return append(dst, "NaN"...)
		case math.IsInf(v, 1):
			return append(dst, "Infinity"...)
		case math.IsInf(v, -1):
			return append(dst, "-Infinity"...)
		}
		return jsonscan.AppendDouble(dst, v)
	case []byte:
		return base64.StdEncoding.AppendEncode(dst, v)
	case time.Time:
		return appendTime(dst, v)
	}
	return AppendJSON(dst, v)
}

// Text is a value of Rows as plain text; nil is "NULL".
func Text(v any) string {
	if v == nil {
		return "NULL"
	}
	return string(appendText(nil, v))
}
