package query

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Ref is a place where a statement reads a table. Schema is empty for a bare
// name. At is the byte offset of the name in the statement, -1 when unknown.
type Ref struct {
	Schema string
	Name   string
	At     int
}

func (r Ref) String() string {
	if r.Schema == "" {
		return r.Name
	}
	return r.Schema + "." + r.Name
}

// Statement is one statement on its way through the gate.
type Statement struct {
	// Text is what the client sent.
	Text string
	// Inner is the query to be judged: Text without EXPLAIN [ANALYZE].
	Inner string
	// Explain and Analyze tell which words stood before Inner.
	Explain, Analyze bool

	// ShowTables: the statement is SHOW [ALL] TABLES, which the engine answers
	// from the lake's list. Set by Judge.
	ShowTables bool
	// Refs are the tables that the statement reads, CTEs left out, in the order
	// of the tree. Set by Judge.
	Refs []Ref
	// Filters are what the WHERE over each of Refs surely asks of its rows; nil:
	// nothing is known. As long as Refs. Set by Judge.
	Filters [][]Comparison
	// CountsRows: all that the statement asks of its one table is how many rows it
	// has. Set by Judge.
	CountsRows bool
	own        map[string]bool // functions of naru's that it may call

	// Guarded are the functions of GuardedFunctions that the statement calls,
	// each once. Set by Judge.
	Guarded []string
}

// Error is a statement's error with its place. Its class is ErrSQL or
// ErrRefused.
type Error struct {
	Class        error
	Text         string // for people, with the line and a caret when the place is known
	Line, Column int    // from 1, in characters; 0 when unknown
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Class }

// NewStatement reads what stands before the query itself. It refuses text that
// a parser and a reader could see differently.
func NewStatement(sql string) (*Statement, error) {
	if !utf8.ValidString(sql) {
		return nil, &Error{Class: ErrSQL, Text: "the statement is not valid UTF-8"}
	}
	if i := strings.IndexByte(sql, 0); i >= 0 {
		return nil, errorAt(ErrRefused, sql, i, "a NUL byte is refused: a statement ends there for some readers and goes on for others")
	}
	s := &Statement{Text: sql, Inner: sql}
	word, rest := firstWord(sql)
	if word == "" && rest == "" {
		return nil, &Error{Class: ErrSQL, Text: "the statement is empty"}
	}
	if word != "EXPLAIN" {
		return s, nil
	}
	s.Explain, s.Inner = true, rest
	if word, rest := firstWord(rest); word == "ANALYZE" || word == "ANALYSE" {
		s.Analyze, s.Inner = true, rest
	}
	return s, nil
}

// Executable is the text to run. It has its errors at the places where Text has
// them. Of an EXPLAIN only the words and what was judged are left: the comments
// between them become blanks.
func (s *Statement) Executable() string {
	if !s.Explain {
		return s.Text
	}
	words := "EXPLAIN "
	if s.Analyze {
		words = "EXPLAIN ANALYZE "
	}
	b := []byte(words)
	prefix := s.Text[:len(s.Text)-len(s.Inner)]
	// The words and one separator each stood in the prefix, so it is no shorter
	// than both words; only the last separator can be missing, as in
	// EXPLAIN(SELECT 1), and then a bracket begins Inner and needs none.
	if len(prefix) < len(b) {
		b = b[:len(prefix)]
	}
	for i := len(b); i < len(prefix); i++ {
		if prefix[i] == '\n' {
			b = append(b, '\n')
		} else {
			b = append(b, ' ')
		}
	}
	return string(b) + s.Inner
}

// offset turns a place in Inner into one in Text.
func (s *Statement) offset(inner int) int {
	if inner < 0 || inner > len(s.Inner) {
		return -1
	}
	return len(s.Text) - len(s.Inner) + inner
}

func (s *Statement) refuse(inner int, format string, args ...any) error {
	return errorAt(ErrRefused, s.Text, s.offset(inner), fmt.Sprintf(format, args...))
}

// ErrorAt is an error of the statement at a byte offset of its text (as in
// Ref.At); -1 when the place is unknown.
func (s *Statement) ErrorAt(class error, at int, text string) error {
	return errorAt(class, s.Text, at, text)
}

func errorAt(class error, sql string, at int, text string) error {
	if at < 0 || at > len(sql) {
		return &Error{Class: class, Text: text}
	}
	line := 1 + strings.Count(sql[:at], "\n")
	start := strings.LastIndexByte(sql[:at], '\n') + 1
	end := len(sql)
	if i := strings.IndexByte(sql[at:], '\n'); i >= 0 {
		end = at + i
	}
	column := utf8.RuneCountInString(sql[start:at]) + 1

	// A long line is shown around its place only.
	const around = 60
	before, after := []rune(sql[start:at]), []rune(sql[at:end])
	lead, tail := "", ""
	if len(before) > around {
		before, lead = before[len(before)-around:], "..."
	}
	if len(after) > around {
		after, tail = after[:around], "..."
	}
	label := fmt.Sprintf("LINE %d: %s", line, lead)
	pad := make([]rune, 0, len(label)+len(before))
	for range label {
		pad = append(pad, ' ')
	}
	for _, r := range before {
		if r != '\t' {
			r = ' '
		}
		pad = append(pad, r)
	}
	return &Error{
		Class: class, Line: line, Column: column,
		Text: fmt.Sprintf("%s\n\n%s%s%s%s\n%s^", text, label, string(before), string(after), tail, string(pad)),
	}
}

// firstWord skips blanks and comments and returns the first word in upper case
// and what follows it; the word is empty when something else comes first, and
// then rest begins there.
func firstWord(sql string) (word, rest string) {
	i := skipBlank(sql, 0)
	j := i
	for j < len(sql) && (isLetter(sql[j]) || j > i && '0' <= sql[j] && sql[j] <= '9') {
		j++
	}
	return strings.ToUpper(sql[i:j]), sql[j:]
}

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

// skipBlank returns the first offset from i that is neither white space nor
// inside a comment. Block comments nest, as in PostgreSQL.
func skipBlank(sql string, i int) int {
	for i < len(sql) {
		switch c := sql[i]; {
		case c == ' ' || '\t' <= c && c <= '\r':
			i++
		case strings.HasPrefix(sql[i:], "--"):
			n := strings.IndexByte(sql[i:], '\n')
			if n < 0 {
				return len(sql)
			}
			i += n + 1
		case strings.HasPrefix(sql[i:], "/*"):
			depth := 0
			for i < len(sql) {
				if strings.HasPrefix(sql[i:], "/*") {
					depth, i = depth+1, i+2
				} else if strings.HasPrefix(sql[i:], "*/") {
					depth, i = depth-1, i+2
					if depth == 0 {
						break
					}
				} else {
					i++
				}
			}
		default:
			return i
		}
	}
	return i
}

// IsStatementError tells whether err names something wrong with the statement.
func IsStatementError(err error) bool {
	return errors.Is(err, ErrSQL) || errors.Is(err, ErrRefused)
}
