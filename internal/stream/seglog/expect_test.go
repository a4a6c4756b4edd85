package seglog

import (
	"testing"
	"testing/synctest"

	"naru/internal/event"
	"naru/internal/stream"
)

// A stream's pipeline registers itself a moment behind the first event. Retention
// that is faster must not drop what it is going to read.
func TestRetentionWaitsForTheReaderThatIsExpected(t *testing.T) {
	expect := func(c *Config) {
		c.RetainAge, c.RetainBytes = 0, 2*c.Segment
		c.Expect = func(stream string) string { return "default/" + stream }
	}
	retained(t, expect, func(t *testing.T, l *Log, clock *wall, gone *dropped) {
		fillSegments(t, l, clock, 6)
		synctest.Wait()
		if len(gone.list()) != 0 {
			t.Fatalf("gone before anybody has read it: %+v", gone.list())
		}
		st, err := l.Stat(testCtx(t), "events")
		if err != nil {
			t.Fatal(err)
		}
		at := stream.Progress{Stream: "events", Positions: event.Positions{st.Incarnation: {0: st.Ranges[0].End}}}
		if err := l.Commit(testCtx(t), nil, "default/events", at); err != nil {
			t.Fatal(err)
		}
		fillSegments(t, l, clock, 1)
		synctest.Wait()
		if len(gone.list()) == 0 {
			t.Fatal("nothing goes although all of it is read")
		}
	})
}
