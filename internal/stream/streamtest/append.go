package streamtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

func order(t *testing.T, s *suite) {
	var want []string
	for i := range 50 {
		vs := numbers(string(rune('a'+i%26)), 1+i%4)
		s.append(Write("events", 0, vs...))
		want = append(want, vs...)
	}
	got, end := s.take("events", event.Position{}, len(want))
	equal(t, got, want)
	s.nothingBehind("events", end)
}

func appendIsAtomic(t *testing.T, s *suite) {
	at := s.append(Write("events", 0, "a", "b"), Write("rejected", 0, "x"), Write("events", 0, "c"), Write("events", 1, "p"), Write("events", 0, "d"))
	for i, want := range []int64{0, 0, 2, 0, 3} {
		if at[i].Offset != want {
			t.Errorf("write %d stands at %d, want %d", i, at[i].Offset, want)
		}
	}
	got, end := s.take("events", event.Position{}, 4)
	equal(t, got, []string{"a", "b", "c", "d"})
	s.nothingBehind("events", end)
	got, _ = s.take("rejected", event.Position{}, 1)
	equal(t, got, []string{"x"})
	got, _ = s.take("events", event.Position{Partition: 1}, 1)
	equal(t, got, []string{"p"})
}

func positionsAreReturned(t *testing.T, s *suite) {
	first := s.append(Write("events", 0, "a", "b", "c"))[0]
	second := s.append(Write("events", 0, "d"))[0]
	third := s.append(Write("events", 2, "e"))[0]
	if first.Offset != 0 || second.Offset != 3 || third.Offset != 0 || third.Partition != 2 {
		t.Fatalf("positions %s, %s, %s", first, second, third)
	}
	if first.Incarnation.IsZero() || first.Incarnation != second.Incarnation || first.Incarnation != s.stat("events").Incarnation {
		t.Fatalf("incarnations %s, %s, %s", first.Incarnation, second.Incarnation, s.stat("events").Incarnation)
	}
	equal(t, Values(t, s.read("events", second, 1)), []string{"d"})
}

func baseOffsetIsSetInPlace(t *testing.T, s *suite) {
	s.append(Write("events", 0, "a", "b"))
	w := Write("events", 0, "c")
	recordbatch.SetBaseOffset(w.Batch, 12345)
	s.append(w)
	b := s.read("events", event.Position{Incarnation: s.stat("events").Incarnation, Offset: 2}, 1)
	if h, _ := recordbatch.ReadHead(b.Raw[0]); h.BaseOffset != 2 {
		t.Fatalf("base offset %d", h.BaseOffset)
	}
}

func bytesAreKept(t *testing.T, s *suite) {
	var b recordbatch.Builder
	for range 30 {
		b.AppendEvent(&event.Event{ID: []byte("id"), Source: []byte("/s"), Type: []byte("t"), Data: bytes.Repeat([]byte(`{"a":1}`), 5)})
	}
	for i, codec := range []recordbatch.Codec{recordbatch.None, recordbatch.Snappy} {
		raw := b.Finish(nil, codec)
		want := bytes.Clone(raw)
		at := s.append(stream.Write{Stream: "events", Batch: raw, Count: 30})
		got := s.read("events", at[0], 1)
		recordbatch.SetBaseOffset(want, int64(30*i))
		if !bytes.Equal(got.Raw[0], want) {
			t.Fatalf("codec %d: %d bytes came back, not those of %d sent", codec, len(got.Raw[0]), len(want))
		}
	}
}

func callerMayReuse(t *testing.T, s *suite) {
	w := Write("events", 0, "first")
	s.append(w)
	copy(w.Batch, bytes.Repeat([]byte{0xff}, len(w.Batch)))
	got, _ := s.take("events", event.Position{}, 1)
	equal(t, got, []string{"first"})
}

// Kafka's compaction and control records leave gaps: the last delta counts,
// not the number of records.
func offsetsMayHaveGaps(t *testing.T, s *suite) {
	w := Write("events", 0, "a", "b")
	binary.BigEndian.PutUint32(w.Batch[23:], 9)
	binary.BigEndian.PutUint32(w.Batch[17:], crc32.Checksum(w.Batch[21:], crc32.MakeTable(crc32.Castagnoli)))
	s.append(w)
	at := s.append(Write("events", 0, "c"))
	if at[0].Offset != 10 {
		t.Fatalf("the next record stands at %d, want 10", at[0].Offset)
	}
	st := s.stat("events")
	if st.Acknowledged != 3 || st.Ranges[0].End != 11 {
		t.Fatalf("stat %+v", st)
	}
	b := s.read("events", event.Position{Incarnation: at[0].Incarnation, Offset: 5}, 1<<20)
	equal(t, Values(t, b), []string{"c"})
}

func badWritesStoreNothing(t *testing.T, s *suite) {
	good := Write("events", 0, "a")
	wrongCRC := Write("events", 0, "a")
	wrongCRC.Batch[len(wrongCRC.Batch)-1] ^= 1
	wrongCount := Write("events", 0, "a")
	wrongCount.Count = 2
	trailing := Write("events", 0, "a")
	trailing.Batch = append(trailing.Batch, 0)
	noName := Write("", 0, "a")
	negative := Write("events", -1, "a")
	for i, bad := range []stream.Write{wrongCRC, wrongCount, trailing, noName, negative, {Stream: "events"}, {Stream: "events", Batch: Batch()}} {
		if at, err := s.log.Append(s.ctx(), good, bad); err == nil {
			t.Errorf("bad write %d was stored at %v", i, at)
		}
		if err := s.log.Commit(s.ctx(), []stream.Write{bad}, "r", stream.Progress{Stream: "events"}); err == nil {
			t.Errorf("bad write %d was committed", i)
		}
	}
	if names, err := s.log.Streams(s.ctx()); err != nil || len(names) != 0 {
		t.Fatalf("streams %q, %v", names, err)
	}
	if p, err := s.log.Progress(s.ctx(), "r"); err != nil || p.Positions != nil {
		t.Fatalf("progress %+v, %v", p, err)
	}
	s.append(good) // the log is none the worse
}

func emptyAppend(t *testing.T, s *suite) {
	if at := s.append(); len(at) != 0 {
		t.Fatalf("positions %v", at)
	}
	if names, err := s.log.Streams(s.ctx()); err != nil || len(names) != 0 {
		t.Fatalf("streams %q, %v", names, err)
	}
}

func partitionsAreApart(t *testing.T, s *suite) {
	for i := range 30 {
		s.append(Write("events", int32(i%3), string(rune('A'+i))))
	}
	for p := range int32(3) {
		got, end := s.take("events", event.Position{Partition: p}, 10)
		var want []string
		for i := int(p); i < 30; i += 3 {
			want = append(want, string(rune('A'+i)))
		}
		equal(t, got, want)
		s.nothingBehind("events", end)
	}
	if n := len(s.stat("events").Ranges); n != 3 {
		t.Fatalf("%d ranges", n)
	}
}

func streamsAreApart(t *testing.T, s *suite) {
	names := []string{"a", "b", "events", "zürich/한글 1"}
	for i := range 40 {
		s.append(Write(names[i%4], 0, string(rune('A'+i))))
	}
	got, err := s.log.Streams(s.ctx())
	if err != nil || !slices.Equal(got, names) {
		t.Fatalf("streams %q, %v", got, err)
	}
	for n, name := range names {
		got, end := s.take(name, event.Position{}, 10)
		var want []string
		for i := n; i < 40; i += 4 {
			want = append(want, string(rune('A'+i)))
		}
		equal(t, got, want)
		s.nothingBehind(name, end)
	}
}

func countsWithRefusals(t *testing.T, s *suite) {
	refused := Write("rejected", 0, "x", "y")
	refused.RefusedFrom = "events"
	s.append(Write("events", 0, "a", "b", "c"), refused)
	only := Write("rejected", 0, "z")
	only.RefusedFrom = "other"
	check := func() {
		t.Helper()
		for name, want := range map[string][2]int64{"events": {5, 2}, "rejected": {3, 0}, "other": {1, 1}} {
			if st := s.stat(name); st.Acknowledged != want[0] || st.Refused != want[1] || st.Stream != name {
				t.Errorf("%s: acknowledged %d, refused %d; want %v", name, st.Acknowledged, st.Refused, want)
			}
		}
		// A stream of which everything was refused is there, and empty.
		if names, _ := s.log.Streams(s.ctx()); !slices.Equal(names, []string{"events", "other", "rejected"}) {
			t.Errorf("streams %q", names)
		}
	}
	if err := s.log.Commit(s.ctx(), []stream.Write{only}, "r", stream.Progress{Stream: "other"}); err != nil {
		t.Fatal(err)
	}
	check()
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
		check()
	}
	for _, r := range s.stat("other").Ranges {
		if r.Start != r.End {
			t.Errorf("range %+v", r)
		}
	}
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	_, err := s.log.Read(ctx, "other", event.Position{}, 1)
	wantErr(t, err, context.Canceled)
}

func changed(t *testing.T, s *suite) {
	open := func(ch <-chan struct{}) bool {
		select {
		case <-ch:
			return false
		default:
			return true
		}
	}
	told := func(ch <-chan struct{}) {
		select {
		case <-ch:
		case <-s.ctx().Done():
			t.Fatal("nobody was told of what is new")
		}
	}
	ch := s.log.Changed()
	if !open(ch) {
		t.Fatal("changed before the first stream")
	}
	s.append(Write("events", 0, "a"))
	told(ch)
	ch = s.log.Changed()
	s.append(Write("events", 0, "b"))
	if !open(ch) {
		t.Fatal("changed although nothing is new")
	}
	s.append(Write("events", 0, "c"), Write("events", 1, "d"))
	told(ch)
	ch = s.log.Changed()
	s.append(Write("events", 0, "e"), Write("events", 1, "f"))
	if !open(ch) {
		t.Fatal("changed although nothing is new")
	}
	s.append(Write("events", 0, "d"), Write("more", 0, "e"))
	told(ch)
	if names, err := s.log.Streams(s.ctx()); err != nil || !slices.Equal(names, []string{"events", "more"}) {
		t.Fatalf("streams %q, %v", names, err)
	}
}

func cancelledAppend(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.log.Append(ctx, Write("events", 0, "a"))
	wantErr(t, err, context.Canceled)
	wantErr(t, s.log.Commit(ctx, nil, "r", stream.Progress{}), context.Canceled)
	if names, _ := s.log.Streams(s.ctx()); len(names) != 0 {
		t.Fatalf("streams %q: a call that was over before it began has written", names)
	}
}
