package mysql

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"naru/internal/event"
)

// quote makes a name safe whatever is in it, reserved words among them.
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteName quotes database.table.
func quoteName(name string) string {
	db, table, ok := strings.Cut(name, ".")
	if !ok {
		return quote(name)
	}
	return quote(db) + "." + quote(table)
}

func quoteAll(columns []string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = quote(c)
	}
	return strings.Join(out, ", ")
}

func names(columns []event.Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name
	}
	return out
}

// text is a text as a literal.
func text(s string) string { return string(appendText(nil, s)) }

// The layouts of times: UTC, as the session's time zone is.
const (
	timeLayout = "'2006-01-02 15:04:05.000000'"
	dateLayout = "'2006-01-02'"
)

// AppendRow implements relational.Database: a row of VALUES and a comma.
func (d *database) AppendRow(dst []byte, columns []event.Column, values []any) []byte {
	for i, v := range values {
		if i == 0 {
			dst = append(dst, '(')
		} else {
			dst = append(dst, ',')
		}
		switch v := v.(type) {
		case nil:
			dst = append(dst, "NULL"...)
		case bool:
			dst = strconv.AppendBool(dst, v)
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case float64:
			dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
		case string:
			dst = appendText(dst, v)
		case json.RawMessage:
			dst = appendText(dst, v)
		case time.Time:
			layout := timeLayout
			if columns[i].Type == event.DateColumn {
				layout = dateLayout
			}
			dst = v.UTC().AppendFormat(dst, layout)
		}
	}
	return append(dst, "),"...)
}

// appendText appends a text as a literal, valid UTF-8 in any case.
func appendText[T string | json.RawMessage](dst []byte, s T) []byte {
	if !utf8.ValidString(string(s)) {
		s = T(strings.ToValidUTF8(string(s), "\uFFFD"))
	}
	dst = append(dst, '\'')
	for i := range len(s) {
		switch c := s[i]; c {
		case 0:
			dst = append(dst, '\\', '0')
		case '\\', '\'':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '\'')
}
