package contract

import (
	"fmt"
	"strings"
)

// clock is a date, a time of day, or both, as it was written.
type clock struct {
	year, month, day     int
	hour, minute, second int
	fraction             []byte // digits behind the point
	offset               int    // minutes east of UTC
	zoned                bool
}

// moment is what clocks are compared by: seconds, then the digits behind the
// point.
type moment struct {
	seconds  int64
	fraction string
}

func (c *clock) seconds() int64 {
	return daysFrom1970(c.year, c.month, c.day)*86400 + int64(c.hour*3600+c.minute*60+c.second-c.offset*60)
}

func (c *clock) compare(m moment) int {
	switch s := c.seconds(); {
	case s < m.seconds:
		return -1
	case s > m.seconds:
		return 1
	}
	return compareDigits(c.fraction, m.fraction)
}

// compareDigits compares digits behind a point.
func compareDigits(a []byte, b string) int {
	for i := range max(len(a), len(b)) {
		x, y := byte('0'), byte('0')
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return sign(x < y)
		}
	}
	return 0
}

// daysFrom1970 counts the days of the proleptic Gregorian calendar.
func daysFrom1970(y, m, d int) int64 {
	if m <= 2 {
		y--
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yearOfEra := y - era*400
	dayOfYear := (153*((m+9)%12)+2)/5 + d - 1
	return int64(era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468)
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// part is one step of a layout.
type part struct {
	what  byte // a letter of the JDK's patterns; ' for a literal; f z: RFC 3339's fraction and offset
	width int
	text  string
}

// layout says how a date or a time is written.
type layout struct {
	name  string
	parts []part
}

var (
	rfcDate      = mustLayout("an RFC 3339 date, as in 2026-01-31", "uuuu-MM-dd")
	rfcTimestamp = rfc("an RFC 3339 time with its offset, as in 2026-01-31T09:00:00.5+09:00", part{what: 'z'})
	rfcLocal     = rfc("a time without an offset, as in 2026-01-31T09:00:00.5")
	rfcEither    = rfc("an RFC 3339 time, as in 2026-01-31T09:00:00.5+09:00, or one without an offset", part{what: 'o'})
	rfcTime      = &layout{name: "a time of day, as in 09:00:00.5, with or without an offset",
		parts: append(mustLayout("", "HH:mm:ss").parts, part{what: 'f'}, part{what: 'o'})}
)

func rfc(name string, end ...part) *layout {
	l := &layout{name: name, parts: mustLayout("", "uuuu-MM-dd").parts}
	l.parts = append(l.parts, part{what: 'T'})
	l.parts = append(l.parts, mustLayout("", "HH:mm:ss").parts...)
	l.parts = append(append(l.parts, part{what: 'f'}), end...)
	return l
}

func mustLayout(name, pattern string) *layout {
	l, err := newLayout(pattern)
	if err != nil {
		panic(err) // a constant
	}
	l.name = name
	return l
}

// newLayout reads a pattern of the JDK's DateTimeFormatter, as ODCS has them,
// of those letters that say numbers.
func newLayout(pattern string) (*layout, error) {
	l := &layout{name: "a time written as " + pattern}
	if len(pattern) > 100 {
		return nil, fmt.Errorf("is longer than 100 bytes")
	}
	for i := 0; i < len(pattern); {
		c := pattern[i]
		if c == '\'' {
			end := strings.IndexByte(pattern[i+1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("has a quote that is not closed")
			}
			text := pattern[i+1 : i+1+end]
			if end == 0 {
				text = "'"
			}
			l.parts = append(l.parts, part{what: '\'', text: text})
			i += end + 2
			continue
		}
		n := 1
		for i+n < len(pattern) && pattern[i+n] == c {
			n++
		}
		letter := (c|0x20)-'a' < 26
		known := map[byte]int{'y': 4, 'u': 4, 'M': 2, 'd': 2, 'H': 2, 'm': 2, 's': 2, 'S': 9, 'X': 3, 'x': 3, 'Z': 3}[c]
		switch {
		case letter && known == 0, letter && n > known, c == '[', c == ']':
			return nil, fmt.Errorf("has %q, which is not read: of the JDK's letters yyyy, uuuu, MM, dd, HH, mm, ss, S, X, x and Z are; without a format RFC 3339 holds", pattern[i:i+n])
		case (c == 'y' || c == 'u') && n != 4:
			return nil, fmt.Errorf("has a year of %d digits: write yyyy", n)
		case letter:
			l.parts = append(l.parts, part{what: c, width: n})
		default:
			l.parts = append(l.parts, part{what: '\'', text: pattern[i : i+n]})
		}
		i += n
	}
	if len(l.parts) == 0 {
		return nil, fmt.Errorf("is empty")
	}
	return l, nil
}

// zoned tells whether every time of the layout has an offset.
func (l *layout) zoned() bool {
	for _, p := range l.parts {
		if strings.IndexByte("zXxZ", p.what) >= 0 {
			return true
		}
	}
	return false
}

// readTime reads the whole of t.
func readTime(l *layout, t []byte) (c clock, ok bool) {
	c = clock{year: 1970, month: 1, day: 1}
	i := 0
	for p := range l.parts {
		if i = c.read(&l.parts[p], t, i); i < 0 {
			return c, false
		}
	}
	return c, i == len(t) && c.exists()
}

// exists checks the ranges. A leap second is one only at the end of a day in UTC.
func (c *clock) exists() bool {
	if c.month < 1 || c.month > 12 || c.day < 1 || c.day > daysIn(c.year, c.month) || c.hour > 23 || c.minute > 59 || c.second > 60 {
		return false
	}
	if c.second == 60 {
		utc := (c.hour*60 + c.minute - c.offset + 2*1440) % 1440
		return !c.zoned || utc == 1439
	}
	return true
}

// read reads one part of t at i and returns the place behind it, or -1.
func (c *clock) read(p *part, t []byte, i int) int {
	switch p.what {
	case '\'':
		if len(t)-i >= len(p.text) && string(t[i:i+len(p.text)]) == p.text {
			return i + len(p.text)
		}
		return -1
	case 'T':
		if i < len(t) && (t[i] == 'T' || t[i] == 't' || t[i] == ' ') {
			return i + 1
		}
		return -1
	case 'y', 'u':
		return digits(t, i, 4, 4, &c.year)
	case 'M':
		return digits(t, i, p.width, 2, &c.month)
	case 'd':
		return digits(t, i, p.width, 2, &c.day)
	case 'H':
		return digits(t, i, p.width, 2, &c.hour)
	case 'm':
		return digits(t, i, p.width, 2, &c.minute)
	case 's':
		return digits(t, i, p.width, 2, &c.second)
	case 'S':
		end := skipDigits(t, i)
		if end < i+p.width {
			return -1
		}
		c.fraction = t[i : i+p.width]
		return i + p.width
	case 'f':
		if i >= len(t) || t[i] != '.' {
			return i
		}
		end := skipDigits(t, i+1)
		c.fraction = t[i+1 : end]
		if end == i+1 {
			return -1
		}
		return end
	case 'o':
		if i == len(t) {
			return i
		}
	}
	return c.zone(p, t, i)
}

// zone reads an offset: Z, ±hh:mm as in RFC 3339, or as one of the JDK's letters.
func (c *clock) zone(p *part, t []byte, i int) int {
	c.zoned = true
	rfc := p.what == 'z' || p.what == 'o'
	if i < len(t) && (t[i] == 'Z' && (rfc || p.what == 'X') || t[i] == 'z' && rfc) {
		return i + 1
	}
	if i >= len(t) || t[i] != '+' && t[i] != '-' {
		return -1
	}
	var hours, minutes int
	sign := 1
	if t[i] == '-' {
		sign = -1
	}
	i = digits(t, i+1, 2, 2, &hours)
	colon, short := true, false
	switch p.what {
	case 'X', 'x':
		colon, short = p.width == 3, p.width == 1
	case 'Z': // the JDK's is ±hhmm; people mean ±hh:mm too, as the standard's own examples do
		colon = i >= 0 && i < len(t) && t[i] == ':'
	}
	if i >= 0 && short && (i >= len(t) || t[i]-'0' > 9) {
		c.offset = sign * hours * 60
		return i
	}
	if i >= 0 && colon {
		if i >= len(t) || t[i] != ':' {
			return -1
		}
		i++
	}
	if i < 0 {
		return -1
	}
	i = digits(t, i, 2, 2, &minutes)
	if hours > 23 || minutes > 59 {
		return -1
	}
	c.offset = sign * (hours*60 + minutes)
	return i
}

// digits reads from least to most digits.
func digits(t []byte, i, least, most int, into *int) int {
	end, v := i, 0
	for end < len(t) && end-i < most && t[end]-'0' < 10 {
		v = v*10 + int(t[end]-'0')
		end++
	}
	if end-i < least {
		return -1
	}
	*into = v
	return end
}

func skipDigits(t []byte, i int) int {
	for i < len(t) && t[i]-'0' < 10 {
		i++
	}
	return i
}

// The years that engines' calendars hold, in seconds since 1970.
const (
	firstSecond = -62135596800 // 0001-01-01T00:00:00Z
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z
)

// Micros reads an RFC 3339 time as the logical type timestamp has it, in
// microseconds since 1970; what is finer is cut off. utc: one without an offset is
// in UTC, else it is none. A leap second is the second behind it.
func Micros(text []byte, utc bool) (int64, bool) {
	if micros, ok := plainMicros(text); ok {
		return micros, true
	}
	l := rfcTimestamp
	if utc {
		l = rfcEither
	}
	c, ok := readTime(l, text)
	if !ok {
		return 0, false
	}
	s := c.seconds()
	if s < firstSecond || s > lastSecond {
		return 0, false
	}
	micros, digit := int64(0), int64(100_000)
	for _, d := range c.fraction {
		micros, digit = micros+int64(d-'0')*digit, digit/10
	}
	return s*1e6 + micros, true
}

// plainMicros reads what nearly all times are, 2026-01-31T09:00:00.5Z, by position.
func plainMicros(t []byte) (int64, bool) {
	const seconds = "2026-01-31T09:00:00"
	if len(t) <= len(seconds) || t[4] != '-' || t[7] != '-' || t[10] != 'T' || t[13] != ':' || t[16] != ':' || t[len(t)-1] != 'Z' {
		return 0, false
	}
	two := func(i int) int {
		if a, b := t[i]-'0', t[i+1]-'0'; a < 10 && b < 10 {
			return int(a)*10 + int(b)
		}
		return 100 // beyond all bounds
	}
	century, rest, month, day := two(0), two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	year := century*100 + rest
	if century > 99 || rest > 99 || year < 1 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 || day > daysIn(year, month) {
		return 0, false
	}
	micros, digit := int64(0), int64(100_000)
	if fraction := t[len(seconds) : len(t)-1]; len(fraction) > 0 {
		if fraction[0] != '.' || len(fraction) == 1 {
			return 0, false
		}
		for _, c := range fraction[1:] {
			if c-'0' > 9 {
				return 0, false
			}
			micros, digit = micros+int64(c-'0')*digit, digit/10
		}
	}
	return (daysFrom1970(year, month, day)*86400+int64(hour*3600+minute*60+second))*1e6 + micros, true
}

// Days reads an RFC 3339 date, in days since 1970.
func Days(text []byte) (int32, bool) {
	c, ok := readTime(rfcDate, text)
	if !ok || c.year < 1 {
		return 0, false
	}
	return int32(daysFrom1970(c.year, c.month, c.day)), true
}
