package streamtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"naru/internal/event"
	"naru/internal/stream"
)

type result struct {
	batch *event.Batch
	err   error
}

// start reads in the background.
func (s *suite) start(ctx context.Context, name string, from event.Position) <-chan result {
	ch := make(chan result, 1)
	go func() {
		b, err := s.log.Read(ctx, name, from, 1<<20)
		ch <- result{b, err}
	}()
	return ch
}

func readBlocks(t *testing.T, s *suite) {
	at := s.append(Write("events", 0, "a"))[0]
	at.Offset++
	for i := range 20 {
		ch := s.start(s.ctx(), "events", at)
		select {
		case r := <-ch:
			t.Fatalf("read at the end returned %v, %v", r.batch, r.err)
		default:
		}
		s.append(Write("other", 0, "noise"), Write("events", 1, "noise"))
		v := fmt.Sprint(i)
		s.append(Write("events", 0, v))
		r := <-ch
		if r.err != nil {
			t.Fatal(r.err)
		}
		equal(t, Values(t, r.batch), []string{v})
		at = r.batch.End()
	}
}

func readWakesAll(t *testing.T, s *suite) {
	at := s.append(Write("events", 0, "a"))[0]
	at.Offset++
	var all []<-chan result
	for range 10 {
		all = append(all, s.start(s.ctx(), "events", at))
	}
	s.append(Write("events", 0, "b"))
	for _, ch := range all {
		r := <-ch
		if r.err != nil {
			t.Fatal(r.err)
		}
		equal(t, Values(t, r.batch), []string{"b"})
	}
}

func readIsCancelled(t *testing.T, s *suite) {
	at := s.append(Write("events", 0, "a"))[0]
	at.Offset++
	ctx, cancel := context.WithCancel(s.ctx())
	ch := s.start(ctx, "events", at)
	cancel()
	wantErr(t, (<-ch).err, context.Canceled)
	// One reader's end is nobody else's.
	s.append(Write("events", 0, "b"))
	equal(t, Values(t, s.read("events", at, 1)), []string{"b"})
}

func readMaxBytes(t *testing.T, s *suite) {
	size := 0
	for range 20 {
		w := Write("events", 0, strings.Repeat("x", 1000))
		size = len(w.Batch)
		s.append(w)
	}
	from := event.Position{Incarnation: s.stat("events").Incarnation}
	for _, c := range []struct{ limit, batches int }{{0, 1}, {1, 1}, {size - 1, 1}, {size, 1}, {2*size - 1, 1}, {2 * size, 2}, {5 * size, 5}, {100 * size, 20}} {
		if b := s.read("events", from, stream.Bytes(c.limit)); len(b.Raw) != c.batches {
			// A driver may return less than the limit allows, never more.
			if len(b.Raw) > c.batches {
				t.Errorf("limit %d (a batch has %d): %d batches", c.limit, size, len(b.Raw))
			}
		}
	}
	got, _ := s.take("events", from, 20)
	if len(got) != 20 {
		t.Fatalf("%d events", len(got))
	}
}

func readFromTheMiddle(t *testing.T, s *suite) {
	want := numbers("v", 30)
	inc := s.append(Write("events", 0, want[:10]...), Write("events", 0, want[10:20]...))[0].Incarnation
	s.append(Write("events", 0, want[20:]...))
	for offset := range int64(30) {
		b := s.read("events", event.Position{Incarnation: inc, Offset: offset}, 1<<20)
		if b.From != offset {
			t.Fatalf("asked for %d, from is %d", offset, b.From)
		}
		got := Values(t, b)
		if len(got) == 0 || got[0] != want[offset] {
			t.Fatalf("at %d: %q", offset, short(got))
		}
		got, _ = s.take("events", event.Position{Incarnation: inc, Offset: offset}, 30-int(offset))
		equal(t, got, want[offset:])
	}
}

func readZeroIncarnation(t *testing.T, s *suite) {
	inc := s.append(Write("events", 0, "a", "b"))[0].Incarnation
	for _, offset := range []int64{0, 1, 99} {
		b := s.read("events", event.Position{Offset: offset}, 1<<20)
		if b.From != 0 || b.Incarnation != inc {
			t.Fatalf("offset %d: from %d in %s", offset, b.From, b.Incarnation)
		}
		equal(t, Values(t, b), []string{"a", "b"})
	}
}

func readErrors(t *testing.T, s *suite) {
	_, err := s.log.Read(s.ctx(), "none", event.Position{}, 1)
	wantErr(t, err, stream.ErrNoStream)
	_, err = s.log.Stat(s.ctx(), "none")
	wantErr(t, err, stream.ErrNoStream)
	at := s.append(Write("events", 0, "a"))[0]
	at.Offset = 2
	_, err = s.log.Read(s.ctx(), "events", at, 1)
	wantErr(t, err, stream.ErrBeyondEnd)
	if !strings.Contains(err.Error(), "events") || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("error %q names neither stream nor position", err)
	}
	_, err = s.log.Read(s.ctx(), "events", event.Position{Incarnation: at.Incarnation, Partition: 7, Offset: 1}, 1)
	wantErr(t, err, stream.ErrBeyondEnd)
	_, err = s.log.Read(s.ctx(), "events", event.Position{Incarnation: event.Incarnation{1}}, 1)
	wantErr(t, err, stream.ErrUnknownIncarnation)
	_, err = s.log.Read(s.ctx(), "events", event.Position{Incarnation: at.Incarnation, Offset: -1}, 1)
	wantErr(t, err, stream.ErrTrimmed)
}

func appendersAndReaders(t *testing.T, s *suite) {
	const writers, each, readers = 6, 60, 3
	s.append(Write("events", 0, "first"))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				// Two writes to one stream-partition and one to another, to be seen together.
				a, b := fmt.Sprintf("%d.%d.a", w, i), fmt.Sprintf("%d.%d.b", w, i)
				at, err := s.log.Append(s.ctx(), Write("events", 0, a), Write("side", int32(w), a), Write("events", 0, b))
				if err != nil || at[2].Offset != at[0].Offset+1 {
					t.Errorf("append: %v, %v", at, err)
					return
				}
			}
		})
	}
	for range readers {
		wg.Go(func() {
			seen := map[string]bool{}
			next := make([]int, writers)
			from, last := event.Position{}, ""
			for len(seen) < 1+2*writers*each {
				b, err := s.log.Read(s.ctx(), "events", from, 1<<10)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				for _, v := range Values(t, b) {
					if seen[v] {
						t.Errorf("%s came twice", v)
						return
					}
					seen[v] = true
					var w, i int
					var half string
					if n, _ := fmt.Sscanf(strings.ReplaceAll(v, ".", " "), "%d %d %s", &w, &i, &half); n == 3 {
						if half == "a" && i != next[w] {
							t.Errorf("writer %d: %d came, want %d", w, i, next[w])
							return
						}
						if half == "b" {
							next[w]++
							if want := fmt.Sprintf("%d.%d.a", w, i); last != want {
								t.Errorf("%s stands behind %s, want %s", v, last, want)
								return
							}
						}
					}
					last = v
				}
				from = b.End()
			}
		})
	}
	wg.Wait()
	if st := s.stat("events"); st.Acknowledged != 1+2*writers*each {
		t.Errorf("acknowledged %d", st.Acknowledged)
	}
}

// Readers that stay close behind the writer, far behind it, and that begin
// again and again: with small segments in a driver that has them, they cross
// many borders.
func readersAcrossMuchData(t *testing.T, s *suite) {
	const n = 400
	pad := strings.Repeat("p", 500)
	var wg sync.WaitGroup
	at := s.append(Write("events", 0, "0 "+pad))[0]
	for r := range 4 {
		wg.Go(func() {
			from := event.Position{Incarnation: at.Incarnation, Offset: int64(r) % 2}
			for want := int(from.Offset); want < n; {
				limit := stream.Bytes(1 + r*3000)
				b, err := s.log.Read(s.ctx(), "events", from, limit)
				if err != nil {
					t.Errorf("read at %s: %v", from, err)
					return
				}
				s.wellFormed(b, "events", from)
				for _, v := range Values(t, b) {
					if v != fmt.Sprintf("%d %s", want, pad) {
						t.Errorf("reader %d: got %.10q, want %d", r, v, want)
						return
					}
					want++
				}
				from = b.End()
			}
		})
	}
	for i := 1; i < n; i++ {
		s.append(Write("events", 0, fmt.Sprintf("%d %s", i, pad)))
		if i%50 == 0 {
			if err := s.log.Commit(s.ctx(), nil, "r", stream.Progress{Stream: "events"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	got, _ := s.take("events", event.Position{}, n)
	for i, v := range got {
		if v != fmt.Sprintf("%d %s", i, pad) {
			t.Fatalf("event %d reads %.10q", i, v)
		}
	}
}

func trimmed(t *testing.T, s *suite) {
	if s.Trim == nil {
		t.Skip("the driver keeps everything")
	}
	const n = 200
	pad := strings.Repeat("p", 500)
	var inc event.Incarnation
	for i := range n {
		inc = s.append(Write("events", 0, fmt.Sprintf("%d %s", i, pad)))[0].Incarnation
	}
	s.Trim(t, s.log, "events")
	st := s.stat("events")
	start := st.Ranges[0].Start
	if start == 0 || start >= n || st.Ranges[0].End != n || st.Acknowledged != n {
		t.Fatalf("after the trim: %+v", st)
	}
	_, err := s.log.Read(s.ctx(), "events", event.Position{Incarnation: inc}, 1)
	wantErr(t, err, stream.ErrTrimmed)
	_, err = s.log.Read(s.ctx(), "events", event.Position{Incarnation: inc, Offset: start - 1}, 1)
	wantErr(t, err, stream.ErrTrimmed)
	b := s.read("events", event.Position{}, 1)
	if b.From != start {
		t.Fatalf("the oldest is %d, want %d", b.From, start)
	}
	got, _ := s.take("events", event.Position{Incarnation: inc, Offset: start}, n-int(start))
	if want := fmt.Sprintf("%d %s", start, pad); got[0] != want {
		t.Fatalf("first left is %.10q", got[0])
	}
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
		if again := s.stat("events"); again.Ranges[0].Start != start || again.Acknowledged != n {
			t.Fatalf("after reopening: %+v", again)
		}
	}
}

func closedIncarnation(t *testing.T, s *suite) {
	if s.Cut == nil {
		t.Skip("the driver has one incarnation")
	}
	old := s.append(Write("events", 0, "a", "b"), Write("events", 0, "c"))[0].Incarnation
	cut := s.stat("events").Ranges[0].End
	ahead := event.Position{Incarnation: old, Offset: cut + 1}
	s.log = s.Cut(t, s.log)
	st := s.stat("events")
	if st.Incarnation == old || len(st.Ranges) < 2 || st.Ranges[0].Incarnation != old || st.Ranges[len(st.Ranges)-1].Incarnation != st.Incarnation {
		t.Fatalf("after the cut: %+v", st)
	}
	end := st.Ranges[0].End
	waiting := s.start(s.ctx(), "events", event.Position{Incarnation: old, Offset: end})
	at := s.append(Write("events", 0, "d", "e"))[0]
	if at.Incarnation != st.Incarnation || at.Offset != st.Ranges[len(st.Ranges)-1].Start {
		t.Fatalf("the new incarnation begins at %s", at)
	}
	// At the end of the closed one a reader goes on with the new one.
	r := <-waiting
	if r.err != nil || r.batch.Incarnation != at.Incarnation || r.batch.From != at.Offset {
		t.Fatalf("read goes on with %+v, %v", r.batch, r.err)
	}
	equal(t, Values(t, r.batch), []string{"d", "e"})
	b := s.read("events", event.Position{}, 1<<20)
	if b.Incarnation != old || b.Next > end {
		t.Fatalf("the oldest is %s [%d,%d)", b.Incarnation, b.From, b.Next)
	}
	_, err := s.log.Read(s.ctx(), "events", ahead, 1)
	wantErr(t, err, stream.ErrBeyondEnd)
	got, _ := s.take("events", event.Position{}, int(end)+2)
	equal(t, got, append([]string{"a", "b", "c"}[:end], "d", "e"))
	if s.Reopen != nil {
		s.log = s.Reopen(t, s.log)
		got, _ := s.take("events", event.Position{}, int(end)+2)
		equal(t, got, append([]string{"a", "b", "c"}[:end], "d", "e"))
	}
}
