package contract

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// ecmaSpace is what \s means in ECMA-262, as the inside of a class; RE2's is
// ASCII without \v.
const ecmaSpace = `\t\n\x0b\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}`

// compilePattern compiles a pattern of ECMA-262 by RE2, which takes time linear
// in the text whatever the pattern. What RE2 cannot do is an error with the cure.
// A pattern matches anywhere unless it has ^ and $.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > MaxPattern {
		return nil, fmt.Errorf("has %d bytes: at most %d; say it with an enum, or with several fields", len(pattern), MaxPattern)
	}
	text := fromECMA(pattern)
	re, err := regexp.Compile(text)
	if err == nil {
		if n := steps(text); n > MaxProgram {
			return nil, fmt.Errorf("takes %d steps for each character: at most %d; nest fewer repetitions, or say it with lengths", n, MaxProgram)
		}
		return re, nil
	}
	var bad *syntax.Error
	if !errors.As(err, &bad) {
		return nil, err
	}
	switch {
	case strings.HasPrefix(bad.Expr, "(?="), strings.HasPrefix(bad.Expr, "(?!"), strings.HasPrefix(bad.Expr, "(?<"):
		return nil, fmt.Errorf("looks ahead or behind (%s), which RE2 cannot, so that no text can make it slow: split it into a pattern and a length, or an enum", bad.Expr)
	case bad.Code == syntax.ErrInvalidEscape && len(bad.Expr) == 2 && bad.Expr[1] >= '1' && bad.Expr[1] <= '9':
		return nil, fmt.Errorf("refers back to a group (%s), which RE2 cannot, so that no text can make it slow: write out what may repeat", bad.Expr)
	case bad.Code == syntax.ErrInvalidRepeatSize:
		return nil, fmt.Errorf("repeats more than 1000 times (%s): say it with minLength and maxLength", bad.Expr)
	}
	return nil, fmt.Errorf("is no pattern of RE2's: %s (%s)", bad.Code, cut(bad.Expr, 60))
}

// steps is the size of RE2's program for a pattern that compiles.
func steps(text string) int {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0 // cannot be
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0
	}
	return len(prog.Inst)
}

// fromECMA rewrites what the two syntaxes write differently.
func fromECMA(p string) string {
	if !strings.ContainsAny(p, `\.`) {
		return p
	}
	var b strings.Builder
	inClass := false
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '[' && !inClass:
			inClass = true
			b.WriteByte(c)
		case c == ']':
			inClass = false
			b.WriteByte(c)
		case c == '.' && !inClass:
			b.WriteString(`[^\n\r\x{2028}\x{2029}]`)
		case c == '\\' && i+1 < len(p):
			i += escapeFromECMA(&b, p[i+1:], inClass)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// escapeFromECMA writes the escape whose backslash stands before rest, and tells
// how many bytes of rest it took.
func escapeFromECMA(b *strings.Builder, rest string, inClass bool) int {
	switch c := rest[0]; {
	case c == 's' && inClass:
		b.WriteString(ecmaSpace)
	case c == 's':
		b.WriteString("[" + ecmaSpace + "]")
	case c == 'S' && !inClass:
		b.WriteString("[^" + ecmaSpace + "]")
	case c == 'u' && len(rest) >= 5 && isHex4(rest[1:5]):
		b.WriteString(`\x{` + rest[1:5] + `}`)
		return 5
	case c == 'c' && len(rest) >= 2 && (rest[1]|0x20)-'a' < 26:
		fmt.Fprintf(b, `\x%02x`, rest[1]&31)
		return 2
	case c == '0' && (len(rest) == 1 || rest[1]-'0' > 9):
		b.WriteString(`\x00`)
	case c == '/', c == '-':
		b.WriteByte('\\')
		b.WriteByte(c)
	case c == 'b' && inClass:
		b.WriteString(`\x08`)
	default:
		b.WriteByte('\\')
		b.WriteByte(c)
	}
	return 1
}

func isHex4(s string) bool {
	for i := range len(s) {
		if c := s[i]; c-'0' > 9 && (c|0x20)-'a' > 5 {
			return false
		}
	}
	return true
}
