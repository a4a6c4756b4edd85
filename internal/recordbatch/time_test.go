package recordbatch

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// The quick way says what time.Parse says, to the last bit, in any order of days.
func TestTimes(t *testing.T) {
	var x times
	check := func(text string) {
		t.Helper()
		want, err := time.Parse(time.RFC3339, text)
		got, ok := x.parse([]byte(text))
		if ok != (err == nil) || !reflect.DeepEqual(got, want) && ok { // zone and all
			t.Errorf("%q: %v %t, want %v %v", text, got, ok, want, err)
		}
	}
	for _, day := range []string{"2026-11-21", "2026-11-21", "1969-12-31", "0000-01-01", "9999-12-31", "2024-02-29", "2023-02-29", "2026-13-01"} {
		for _, clock := range []string{
			"00:00:00", "23:59:59", "24:00:00", "12:60:00", "12:00:60", "1:00:00", "12:00", "12:00:00.", "12:00:00.5", "12:00:00.123456789", "12:00:00.1234567891",
			"12:00:00,5", "12:00:00.5x", "1x:00:00", "12-00-00", "", "12:00:00.00000000a", "12:00:0:",
		} {
			for _, zone := range []string{"Z", "+00:00", "+09:00", "-00:30", "z", ""} {
				check(day + "T" + clock + zone)
				check(day + " " + clock + zone)
				check(day + "t" + clock + zone)
			}
		}
	}
	rng := rand.New(rand.NewPCG(2, 2))
	for range 20_000 {
		at := time.Unix(rng.Int64N(20e9)-10e9, rng.Int64N(1e9)).UTC()
		check(at.Format(time.RFC3339Nano))
		check(at.Add(time.Duration(rng.Int64N(int64(time.Hour)))).Format(time.RFC3339Nano))
		text := []byte(at.Format(time.RFC3339Nano))
		text[rng.IntN(len(text))] = byte(' ' + rng.IntN(95))
		check(string(text))
	}
}

func BenchmarkTimes(b *testing.B) {
	var all [1000][]byte
	for i := range all {
		all[i] = fmt.Appendf(nil, "2026-01-01T00:%02d:%02d.%03dZ", i/60%60, i%60, i)
	}
	var x times
	for i := 0; b.Loop(); i++ {
		if _, ok := x.parse(all[i%len(all)]); !ok {
			b.Fatal("no time")
		}
	}
}
