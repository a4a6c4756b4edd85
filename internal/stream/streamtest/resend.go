package streamtest

import (
	"bytes"
	"testing"

	"naru/internal/event"
	"naru/internal/stream"
)

// resentEvents: what is sent again from `rejected` moves in the counts and is no
// new acknowledgement, also when the log is opened again.
func resentEvents(t *testing.T, s *suite) {
	refused := Write(event.RejectedStream, 0, "x", "y", "z")
	refused.RefusedFrom = "events"
	s.append(Write("events", 0, "a"), refused)
	resent := Write("events", 0, "x", "y")
	resent.Resent = true
	s.append(resent, Write(event.RejectedStates, 0, "x is replayed", "y is replayed"))
	// Of a stream that counts no refusal it is a new acknowledgement.
	strange := Write("other", 0, "x")
	strange.Resent = true
	s.append(strange)
	check := func() {
		t.Helper()
		for name, want := range map[string][2]int64{"events": {4, 1}, event.RejectedStream: {3, 2}, event.RejectedStates: {2, 0}, "other": {1, 0}} {
			if st := s.stat(name); st.Acknowledged != want[0] || st.Refused != want[1] {
				t.Errorf("%s: acknowledged %d, refused %d; want %v", name, st.Acknowledged, st.Refused, want)
			}
		}
	}
	check()
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
		check()
	}
	got, _ := s.take("events", event.Position{}, 3)
	equal(t, got, []string{"a", "x", "y"})

	bad := []stream.Write{Write("events", 0, "x"), Write(event.RejectedStream, 0, "x"), Write(event.RejectedStream, 0, "x")}
	bad[0].Resent, bad[0].RefusedFrom = true, "other"
	bad[1].Resent = true
	bad[2].RefusedFrom = event.RejectedStream
	for _, w := range bad {
		if _, err := s.log.Append(s.ctx(), w); err == nil {
			t.Errorf("%s, resent %v, refused from %q: no error", w.Stream, w.Resent, w.RefusedFrom)
		}
	}
	check()
}

// bindKnowsPlaces: a record can name the place of another of its own append.
func bindKnowsPlaces(t *testing.T, s *suite) {
	s.append(Write("events", 0, "a", "b", "c"))
	target := Write("events", 0, "d", "e")
	naming := Write("names", 0, "the place is ?")
	var told []event.Position
	naming.Bind = func(at []event.Position, batch []byte) {
		told = append(told, at...)
		batch[bytes.Index(batch, []byte("is ?"))+3] = byte('0' + at[1].Offset)
	}
	at := s.append(naming, target)
	if len(told) != 2 || told[0] != at[0] || told[1] != at[1] || at[1].Offset != 3 {
		t.Errorf("bind was told %v, the places are %v", told, at)
	}
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
	}
	got, _ := s.take("names", event.Position{}, 1)
	equal(t, got, []string{"the place is 3"})
}
