package lake

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"naru/internal/event"
)

// MaxName is the longest table name in bytes.
const MaxName = 128

// OtherTable takes the events of all types beyond the limit of tables.
const OtherTable = "_other"

// TableName is the name of the table for events of a type: lower snake case.
//
//   - Letters and digits of any script are kept, in lower case, with the
//     combining marks that belong to them; every other character becomes '_'.
//   - A '_' goes between a lower-case letter or digit and a following capital
//     (PageView → page_view, orderID → order_id), and before the last of
//     several capitals when a lower-case letter follows (HTTPRequest →
//     http_request).
//   - A name of more than 128 bytes is cut at a character.
//   - A name that begins with '_', and `rejected`, get `type_` in front. The
//     empty type is `event`.
//
// Types that give one name share the table; the column _type tells them apart.
func TableName(typ string) string {
	if typ == "" {
		return event.DefaultType
	}
	var b strings.Builder
	b.Grow(len(typ) + 8)
	prev := rune(0)
	for i, r := range typ {
		if r == utf8.RuneError || !(unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)) {
			b.WriteByte('_')
			prev = 0
			continue
		}
		if isCapital(r) && startsWord(prev, r, typ[i:]) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
		if !unicode.IsMark(r) { // a mark belongs to the letter before it
			prev = r
		}
	}
	name := b.String()
	if name[0] == '_' || name == event.RejectedStream {
		name = "type_" + name
	}
	return cutName(name)
}

// startsWord tells whether the capital r begins a new word behind prev; rest
// begins with r.
func startsWord(prev, r rune, rest string) bool {
	switch {
	case unicode.IsLower(prev) || unicode.IsDigit(prev):
		return true
	case isCapital(prev):
		next, _ := utf8.DecodeRuneInString(rest[utf8.RuneLen(r):])
		return unicode.IsLower(next)
	default:
		return false
	}
}

// isCapital tells whether r has a lower case; some letters that Unicode calls
// upper case have none.
func isCapital(r rune) bool { return unicode.ToLower(r) != r }

func cutName(name string) string {
	if len(name) <= MaxName {
		return name
	}
	cut := MaxName
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut]
}
