package seglog

import (
	"testing"
	"time"
)

// A clock that was far ahead for a while and was set right does not keep the log
// for as long as it was ahead.
func TestClockAheadForAWhileDoesNotStopRetention(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	retained(t, func(*Config) {}, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		clock.jump(years)
		fillSegments(t, l, clock, 2)
		clock.jump(-years)
		sleep(100 * time.Hour) // nothing tells yet how old they are
		if len(gone.list()) != 0 {
			t.Fatalf("gone: %+v", gone.list())
		}
		fillSegments(t, l, clock, 2)
		sleep(23 * time.Hour)
		if len(gone.list()) != 0 {
			t.Fatalf("gone before what came behind them is old: %+v", gone.list())
		}
		sleep(10 * time.Hour)
		if n := len(gone.list()); n != 4 {
			t.Fatalf("%d of 4 segments are gone: %+v", n, gone.list())
		}
	})
}
