package recordbatch

import "time"

// times reads event times. Most are of the same day as the one before, in UTC,
// and then only the clock has to be read.
type times struct {
	day   [len("2006-01-02")]byte // zero: none yet
	begin int64                   // its first second since 1970
}

const secondsPerDay = 24 * 60 * 60

// parse reads RFC 3339.
func (x *times) parse(v []byte) (t time.Time, ok bool) {
	utc := len(v) > len("2006-01-02T") && v[len(x.day)] == 'T' && v[len(v)-1] == 'Z'
	if utc && string(v[:len(x.day)]) == string(x.day[:]) {
		if t, ok := x.clock(v[len("2006-01-02T") : len(v)-1]); ok {
			return t, true
		}
	}
	t, err := time.Parse(time.RFC3339, string(v))
	if err != nil {
		return time.Time{}, false
	}
	if utc {
		copy(x.day[:], v)
		now := t.Unix()
		x.begin = now - (now%secondsPerDay+secondsPerDay)%secondsPerDay
	}
	return t, true
}

// clock reads 15:04:05, with up to nine digits of a fraction, as a time of the
// day; false: time.Parse may know.
func (x *times) clock(v []byte) (t time.Time, ok bool) {
	const seconds = len("15:04:05")
	if len(v) < seconds || v[2] != ':' || v[5] != ':' {
		return t, false
	}
	hour, minute, second := twoDigits(v), twoDigits(v[3:]), twoDigits(v[6:])
	if hour > 23 || minute > 59 || second > 59 {
		return t, false
	}
	nanos := int64(0)
	if len(v) > seconds {
		fraction := v[seconds+1:]
		if v[seconds] != '.' || len(fraction) == 0 || len(fraction) > 9 {
			return t, false
		}
		for i := range 9 {
			digit := byte(0)
			if i < len(fraction) {
				if digit = fraction[i] - '0'; digit > 9 {
					return t, false
				}
			}
			nanos = 10*nanos + int64(digit)
		}
	}
	return time.Unix(x.begin+int64(3600*hour+60*minute+second), nanos).UTC(), true
}

// twoDigits is more than 99 when they are none.
func twoDigits(v []byte) int {
	tens, ones := v[0]-'0', v[1]-'0'
	if tens > 9 || ones > 9 {
		return 100
	}
	return 10*int(tens) + int(ones)
}
