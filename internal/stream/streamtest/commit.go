package streamtest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/stream"
)

func at(inc event.Incarnation, offset int64) event.Positions {
	return event.Positions{inc: {0: offset}}
}

func (s *suite) progress(reader string) stream.Progress {
	s.t.Helper()
	p, err := s.log.Progress(s.ctx(), reader)
	if err != nil {
		s.t.Fatalf("progress: %v", err)
	}
	return p
}

func same(t *testing.T, got, want stream.Progress) {
	t.Helper()
	if got.Stream != want.Stream || got.Counts != want.Counts || !got.Positions.Equal(want.Positions) {
		t.Fatalf("progress %+v, want %+v", got, want)
	}
}

func commitIsOneStep(t *testing.T, s *suite) {
	inc := s.append(Write("events", 0, "a", "b"))[0].Incarnation
	want := stream.Progress{Stream: "events", Positions: at(inc, 2), Counts: stream.Counts{Written: 1, Rejections: 2, Duplicates: 3, Filtered: 4}}
	if err := s.log.Commit(s.ctx(), []stream.Write{Write("rejected", 0, "x"), Write("rejected", 0, "y")}, "r", want); err != nil {
		t.Fatal(err)
	}
	same(t, s.progress("r"), want)
	got, _ := s.take("rejected", event.Position{}, 2)
	equal(t, got, []string{"x", "y"})
	// The caller's maps are its own again.
	want.Positions[inc][0] = 99
	if p := s.progress("r"); p.Positions[inc][0] != 2 {
		t.Fatalf("progress follows the caller's map: %+v", p)
	}
	p := s.progress("r")
	p.Positions[inc][0] = 98
	if p := s.progress("r"); p.Positions[inc][0] != 2 {
		t.Fatalf("progress follows the reader's map: %+v", p)
	}
}

func commitWithoutWrites(t *testing.T, s *suite) {
	inc := s.append(Write("events", 0, "a", "b"))[0].Incarnation
	other := event.Incarnation{1, 2, 3} // positions may name another log's life
	for _, offset := range []int64{1, 2, 0} {
		want := stream.Progress{Stream: "events", Positions: event.Positions{inc: {0: offset, 3: 7}, other: {0: 5}}}
		if err := s.log.Commit(s.ctx(), nil, "r", want); err != nil {
			t.Fatal(err)
		}
		same(t, s.progress("r"), want) // also when it goes back
	}
	if st := s.stat("events"); st.Acknowledged != 2 {
		t.Fatalf("acknowledged %d", st.Acknowledged)
	}
	if err := s.log.Commit(s.ctx(), nil, "", stream.Progress{}); err == nil {
		t.Error("a reader without a name is stored")
	}
	if err := s.log.Commit(s.ctx(), nil, strings.Repeat("x", stream.MaxName+1), stream.Progress{}); err == nil {
		t.Error("a reader with an endless name is stored")
	}
}

func progressUnknown(t *testing.T, s *suite) {
	if p := s.progress("nobody"); p.Positions != nil || p.Stream != "" {
		t.Fatalf("progress %+v", p)
	}
}

func forgetReader(t *testing.T, s *suite) {
	f, ok := s.log.(stream.Forgetter)
	if !ok {
		t.Skip("the driver does not forget")
	}
	inc := s.append(Write("events", 0, "a"))[0].Incarnation
	for _, reader := range []string{"stays", "goes"} {
		if err := s.log.Commit(s.ctx(), nil, reader, stream.Progress{Stream: "events", Positions: at(inc, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Forget(s.ctx(), "goes"); err != nil {
		t.Fatal(err)
	}
	if err := f.Forget(s.ctx(), "never seen"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if p := s.progress("goes"); p.Positions != nil {
			t.Fatalf("progress %+v", p)
		}
		same(t, s.progress("stays"), stream.Progress{Stream: "events", Positions: at(inc, 1)})
		if r, ok := s.log.(stream.Readers); ok {
			all, err := r.Readers(s.ctx())
			if err != nil || len(all) != 1 {
				t.Fatalf("readers %+v, %v", all, err)
			}
			same(t, all["stays"], s.progress("stays"))
		}
	}
	check()
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
		check()
	}
}

func closeEnds(t *testing.T, s *suite) {
	end := s.append(Write("events", 0, "a"))[0]
	end.Offset++
	waiting := s.start(s.ctx(), "events", end)
	if err := s.log.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, (<-waiting).err, stream.ErrClosed)
	_, err := s.log.Append(s.ctx(), Write("events", 0, "b"))
	wantErr(t, err, stream.ErrClosed)
	_, err = s.log.Read(s.ctx(), "events", event.Position{}, 1)
	wantErr(t, err, stream.ErrClosed)
	wantErr(t, s.log.Commit(s.ctx(), nil, "r", stream.Progress{}), stream.ErrClosed)
	_, err = s.log.Progress(s.ctx(), "r")
	wantErr(t, err, stream.ErrClosed)
	_, err = s.log.Stat(s.ctx(), "events")
	wantErr(t, err, stream.ErrClosed)
	_, err = s.log.Streams(s.ctx())
	wantErr(t, err, stream.ErrClosed)
}

func reopen(t *testing.T, s *suite) {
	if s.Reopen == nil {
		t.Skip("the driver keeps nothing")
	}
	inc := s.append(Write("events", 0, "a", "b"), Write("events", 3, "c"), Write("rejected", 0, "x"))[0].Incarnation
	want := stream.Progress{Stream: "events", Positions: at(inc, 1), Counts: stream.Counts{Written: 1}}
	if err := s.log.Commit(s.ctx(), []stream.Write{Write("rejected", 0, "y")}, "r", want); err != nil {
		t.Fatal(err)
	}
	before := []stream.Stat{s.stat("events"), s.stat("rejected")}
	s.log = s.Reopen(t, s.log)
	for i, name := range []string{"events", "rejected"} {
		after := s.stat(name)
		after.Bytes = before[i].Bytes
		if !reflect.DeepEqual(after, before[i]) {
			t.Errorf("%s: before %+v, after %+v", name, before[i], after)
		}
	}
	same(t, s.progress("r"), want)
	next := s.append(Write("events", 0, "d"))[0]
	if next.Incarnation != inc || next.Offset != 2 {
		t.Fatalf("the log goes on at %s", next)
	}
	got, _ := s.take("events", event.Position{}, 3)
	equal(t, got, []string{"a", "b", "d"})
	got, _ = s.take("rejected", event.Position{Incarnation: inc}, 2)
	equal(t, got, []string{"x", "y"})
}

func reopenEmpty(t *testing.T, s *suite) {
	if s.Reopen == nil {
		t.Skip("the driver keeps nothing")
	}
	for range 3 {
		s.log = s.Reopen(t, s.log)
		if names, err := s.log.Streams(s.ctx()); err != nil || len(names) != 0 {
			t.Fatalf("streams %q, %v", names, err)
		}
	}
	s.append(Write("events", 0, "a"))
}

func reopenManyTimes(t *testing.T, s *suite) {
	if s.Reopen == nil {
		t.Skip("the driver keeps nothing")
	}
	var want []string
	var inc event.Incarnation
	for i := range 12 {
		vs := numbers(strings.Repeat("q", i), 1+i*5)
		p := s.append(Write("events", 0, vs...))[0]
		if !inc.IsZero() && p.Incarnation != inc {
			t.Fatalf("a clean restart changed the incarnation from %s to %s", inc, p.Incarnation)
		}
		inc = p.Incarnation
		want = append(want, vs...)
		progress := stream.Progress{Stream: "events", Positions: at(inc, int64(len(want)))}
		if i%3 == 0 {
			if err := s.log.Commit(s.ctx(), nil, "r", progress); err != nil {
				t.Fatal(err)
			}
		}
		s.log = s.Reopen(t, s.log)
		if i%3 == 0 {
			same(t, s.progress("r"), progress)
		}
		got, end := s.take("events", event.Position{}, len(want))
		equal(t, got, want)
		s.nothingBehind("events", end)
	}
	if st := s.stat("events"); st.Acknowledged != int64(len(want)) {
		t.Errorf("acknowledged %d of %d", st.Acknowledged, len(want))
	}
	if names, _ := s.log.Streams(s.ctx()); !slices.Equal(names, []string{"events"}) {
		t.Errorf("streams %q", names)
	}
}
