package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/client"
	"naru/internal/client/records"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// door is a fake: it accepts lines that begin with a brace, and keeps their
// ids. before, if set, is asked first.
type door struct {
	ids    []string
	lines  []string
	calls  int
	before func(call int) error
	after  func(call int) error // the batch is stored, the answer lost
	lists  int                  // refusals at most that an answer lists; 0: all
}

func (d *door) Append(ctx context.Context, b client.Batch) (*client.Answer, error) {
	d.calls++
	if d.before != nil {
		if err := d.before(d.calls); err != nil {
			return nil, err
		}
	}
	a := &client.Answer{}
	for i, line := range strings.Split(strings.TrimSuffix(string(b.Body), "\n"), "\n") {
		if strings.HasPrefix(line, "{") {
			d.ids = append(d.ids, fmt.Sprint(b.IDPrefix, b.FirstID+int64(i)))
			d.lines = append(d.lines, line)
			a.Accepted++
		} else {
			a.Rejected = append(a.Rejected, client.Rejected{Index: i, Reason: "not_object", Detail: "an event is an object"})
		}
	}
	if d.after != nil {
		if err := d.after(d.calls); err != nil {
			return nil, err
		}
	}
	if d.lists > 0 && len(a.Rejected) > d.lists {
		a.RejectedCount = int64(len(a.Rejected))
		a.Rejected = a.Rejected[:d.lists]
	}
	return a, nil
}

func source(t *testing.T, text, name string) Source {
	t.Helper()
	r, err := records.NewReader(strings.NewReader(text), name, records.Auto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"n\":%d}\n", i)
	}
	return b.String()
}

func small() Options {
	o := DefaultOptions()
	o.IDPrefix, o.BatchRecords = "p:", 10
	return o
}

func key() Key {
	return Key{File: "/in.ndjson", Size: 7, Modified: time.Unix(1, 5), URL: "http://x", Stream: "events"}
}

// checkOnce fails unless the door holds records 0..n-1 in order, each once.
func checkOnce(t *testing.T, d *door, n int) {
	t.Helper()
	if len(d.ids) != n {
		t.Fatalf("the door holds %d events, want %d", len(d.ids), n)
	}
	for i := range n {
		if d.ids[i] != fmt.Sprint("p:", i) || d.lines[i] != fmt.Sprintf(`{"n":%d}`, i) {
			t.Fatalf("event %d is %s %s", i, d.ids[i], d.lines[i])
		}
	}
}

func TestSendsAllInOrder(t *testing.T) {
	d := &door{}
	res, err := New(d, source(t, numbered(25), "x.ndjson"), small(), nil).Run(t.Context(), nil)
	if err != nil || res.Records != 25 || res.Accepted != 25 || d.calls != 3 {
		t.Fatalf("%+v in %d calls, %v", res, d.calls, err)
	}
	checkOnce(t, d, 25)
}

func TestBatchesAreBoundedInBytes(t *testing.T) {
	d := &door{}
	o := small()
	o.BatchRecords, o.BatchBytes = 1000, 100
	biggest := 0
	in := source(t, strings.Repeat("{\"a\":\"0123456789\"}\n", 50), "x.ndjson")
	wrap := doorFunc(func(ctx context.Context, b client.Batch) (*client.Answer, error) {
		biggest = max(biggest, len(b.Body))
		return d.Append(ctx, b)
	})
	if _, err := New(wrap, in, o, nil).Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(d.ids) != 50 || biggest > 100+19 {
		t.Errorf("%d events, largest body %d bytes", len(d.ids), biggest)
	}
}

type doorFunc func(context.Context, client.Batch) (*client.Answer, error)

func (f doorFunc) Append(ctx context.Context, b client.Batch) (*client.Answer, error) {
	return f(ctx, b)
}

func TestRefusalsNameRecordAndLine(t *testing.T) {
	d := &door{}
	in := "a,b\n1,2\n3\n4,5\n6,7,8\n"
	res, err := New(d, source(t, in, "x.csv"), small(), nil).Run(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Refusal{
		{Record: 2, Line: 3, Reason: "not_object", Detail: "1 values, the header names 2"},
		{Record: 4, Line: 5, Reason: "not_object", Detail: "3 values, the header names 2"},
	}
	if fmt.Sprint(res.Refusals) != fmt.Sprint(want) || res.Accepted != 2 || res.Rejected != 2 {
		t.Errorf("got %+v\nwant %+v", res, want)
	}
}

func TestRefusalsShownAreFew(t *testing.T) {
	res, err := New(&door{}, source(t, strings.Repeat("nope\n", 35), "x.ndjson"), small(), nil).Run(t.Context(), nil)
	if err != nil || res.Rejected != 35 || len(res.Refusals) != shownRefusals || res.Refusals[9].Record != 10 {
		t.Errorf("%+v, %v", res, err)
	}
}

// An answer lists only the first refusals; all of them count.
func TestRefusalsBeyondTheListCount(t *testing.T) {
	res, err := New(&door{lists: 3}, source(t, strings.Repeat("nope\n", 35), "x.ndjson"), small(), nil).Run(t.Context(), nil)
	if err != nil || res.Rejected != 35 || res.Records != 35 {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestContinuesWhereItStopped breaks an upload off at every request in turn,
// by an error that does not pass, and runs it again with the state it left.
func TestContinuesWhereItStopped(t *testing.T) {
	broken := errors.New("broken")
	for at := 1; at <= 6; at++ {
		mem := vfs.NewMemory()
		d := &door{before: func(call int) error {
			if call == at {
				return broken
			}
			return nil
		}}
		run := func() (Result, error) {
			st, err := OpenState(mem, "/state/x.json", key(), false)
			if err != nil {
				t.Fatal(err)
			}
			return New(d, source(t, numbered(55), "x.ndjson"), small(), st).Run(t.Context(), nil)
		}
		first, err := run()
		if !errors.Is(err, broken) || first.Records != int64(at-1)*10 {
			t.Fatalf("broken at %d: %+v, %v", at, first, err)
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("send records %d-", (at-1)*10+1)) {
			t.Errorf("the error does not name the records: %v", err)
		}
		second, err := run()
		if err != nil || second.Skipped != first.Records || second.Skipped+second.Records != 55 {
			t.Fatalf("continued: %+v, %v", second, err)
		}
		checkOnce(t, d, 55)
		st, err := OpenState(mem, "/state/x.json", key(), false)
		if err != nil || !st.Done || st.Records != 55 || st.Items != 55 {
			t.Fatalf("state at the end: %+v, %v", st, err)
		}
	}
}

// TestLostAnswerKeepsIDs: a batch that is sent again because its answer was
// lost carries the ids of the first copy.
func TestLostAnswerKeepsIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{after: func(call int) error {
			if call == 2 {
				return fault.Transient(io.ErrUnexpectedEOF)
			}
			return nil
		}}
		res, err := New(d, source(t, numbered(25), "x.ndjson"), small(), nil).Run(t.Context(), nil)
		if err != nil || res.Records != 25 || len(d.ids) != 35 {
			t.Fatalf("%+v, %d stored, %v", res, len(d.ids), err)
		}
		for i := range 10 {
			if d.ids[10+i] != d.ids[20+i] || d.lines[10+i] != d.lines[20+i] {
				t.Errorf("copy of %s is %s", d.ids[10+i], d.ids[20+i])
			}
		}
	})
}

func TestRunTogetherObjectsKeepIDsApart(t *testing.T) {
	// The door finds two items on the first line; the next batch begins behind both.
	var firsts []int64
	d := doorFunc(func(_ context.Context, b client.Batch) (*client.Answer, error) {
		firsts = append(firsts, b.FirstID)
		return &client.Answer{Accepted: int64(bytes.Count(b.Body, []byte("{")))}, nil
	})
	o := small()
	o.BatchRecords = 1
	in := source(t, "{\"a\":1}{\"a\":2}\n{\"a\":3}\n{\"a\":4}\n", "x.ndjson")
	res, err := New(d, in, o, nil).Run(t.Context(), nil)
	if err != nil || fmt.Sprint(firsts) != "[0 2 3]" || res.Accepted != 4 || res.Records != 3 {
		t.Errorf("first ids %v, %+v, %v", firsts, res, err)
	}
}

func TestRetries(t *testing.T) {
	busy := func(after time.Duration) error {
		return &fault.RetryAfter{Err: &client.Problem{Status: 503, Title: "stopping"}, After: after}
	}
	t.Run("waits as long as the server says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d := &door{before: func(call int) error {
				if call <= 3 {
					return busy(7 * time.Second)
				}
				return nil
			}}
			pauses := 0
			o := small()
			o.Observe = func(_ Result, pause time.Duration, reason error) {
				if reason != nil {
					pauses++
				}
			}
			if _, err := New(d, source(t, numbered(5), "x.ndjson"), o, nil).Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 21*time.Second || pauses != 3 {
				t.Errorf("took %v with %d pauses", took, pauses)
			}
			checkOnce(t, d, 5)
		})
	})
	t.Run("gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d := &door{before: func(int) error { return busy(0) }}
			_, err := New(d, source(t, numbered(5), "x.ndjson"), small(), nil).Run(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), "gave up after") || !strings.Contains(err.Error(), "stopping (503)") {
				t.Fatalf("got %v", err)
			}
			if took := time.Since(began); took > time.Minute || took < 40*time.Second {
				t.Errorf("gave up after %v, want about a minute", took)
			}
		})
	})
	t.Run("a batch that came through starts the clock anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &door{}
			failed := map[int]bool{}
			d.before = func(int) error {
				n := len(d.ids)
				if n%10 == 0 && !failed[n] {
					failed[n] = true
					return busy(50 * time.Second)
				}
				return nil
			}
			if _, err := New(d, source(t, numbered(30), "x.ndjson"), small(), nil).Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			checkOnce(t, d, 30)
		})
	})
	t.Run("what cannot pass ends it", func(t *testing.T) {
		d := &door{before: func(int) error { return &client.Problem{Status: 413, Title: "too large", Detail: "limits.body"} }}
		_, err := New(d, source(t, numbered(5), "x.ndjson"), small(), nil).Run(t.Context(), nil)
		if err == nil || d.calls != 1 || err.Error() != "send records 1-5: too large (413): limits.body" {
			t.Errorf("%d calls, %v", d.calls, err)
		}
	})
	t.Run("a stalled body may pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := &door{before: func(call int) error {
				if call == 1 {
					return &client.Problem{Status: 408}
				}
				return nil
			}}
			if _, err := New(d, source(t, numbered(5), "x.ndjson"), small(), nil).Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestStopCountsTheRequestInFlight(t *testing.T) {
	stop := make(chan struct{})
	d := &door{after: func(call int) error {
		if call == 2 {
			close(stop)
		}
		return nil
	}}
	mem := vfs.NewMemory()
	st, err := OpenState(mem, "/s.json", key(), false)
	if err != nil {
		t.Fatal(err)
	}
	res, err := New(d, source(t, numbered(55), "x.ndjson"), small(), st).Run(t.Context(), stop)
	if !errors.Is(err, ErrInterrupted) || res.Records != 20 || d.calls != 2 {
		t.Fatalf("%+v after %d calls, %v", res, d.calls, err)
	}
	if st, err = OpenState(mem, "/s.json", key(), false); err != nil || st.Records != 20 || st.Done {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestStopEndsAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		d := &door{before: func(int) error { return fault.Transient(errors.New("refused")) }}
		time.AfterFunc(3*time.Second, func() { close(stop) })
		began := time.Now()
		_, err := New(d, source(t, numbered(5), "x.ndjson"), small(), nil).Run(t.Context(), stop)
		if !errors.Is(err, ErrInterrupted) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestSlowInputIsOnItsWaySoon: what comes through a pipe does not wait for a
// full batch, and a stop does not wait for the pipe.
func TestSlowInputIsOnItsWaySoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		stop, sent := make(chan struct{}), make(chan string, 10)
		d := doorFunc(func(_ context.Context, b client.Batch) (*client.Answer, error) {
			sent <- string(b.Body)
			return &client.Answer{Accepted: int64(bytes.Count(b.Body, []byte("\n")))}, nil
		})
		in, err := records.NewReader(io.MultiReader(strings.NewReader("{\"n\":0}\n"+strings.Repeat(" ", 64<<10)+"\n"), r), "-", records.NDJSON)
		if err != nil {
			t.Fatal(err)
		}
		o := small()
		o.Blocking = true
		ended := make(chan error)
		go func() {
			_, err := New(d, in, o, nil).Run(t.Context(), stop)
			ended <- err
		}()
		began := time.Now()
		if got := <-sent; got != "{\"n\":0}\n" || time.Since(began) != o.Linger {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		go func() { _, _ = w.Write([]byte("{\"n\":1}\n{\"n\":2}\n")) }()
		if got := <-sent; got != "{\"n\":1}\n{\"n\":2}\n" || time.Since(began) != 2*o.Linger {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		close(stop)
		if err := <-ended; !errors.Is(err, ErrInterrupted) {
			t.Errorf("stopped with %v", err)
		}
		w.Close() // lets the reader end
	})
}

func TestErrorInTheInputSendsWhatStandsBeforeIt(t *testing.T) {
	d := &door{}
	res, err := New(d, source(t, `[{"n":0},{"n":1},{"n":`, "x.json"), small(), nil).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "ends in the middle") || res.Records != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	checkOnce(t, d, 2)
}

func TestStateOfAnotherInput(t *testing.T) {
	mem := vfs.NewMemory()
	st, err := OpenState(mem, "/s.json", key(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.advance(3, &client.Answer{Accepted: 3}); err != nil {
		t.Fatal(err)
	}
	changed := map[string]func(*Key){
		"file": func(k *Key) { k.File += "x" }, "size": func(k *Key) { k.Size++ },
		"time": func(k *Key) { k.Modified = k.Modified.Add(1) }, "url": func(k *Key) { k.URL += "x" },
		"folder": func(k *Key) { k.Folder = "f" }, "stream": func(k *Key) { k.Stream = "s" }, "type": func(k *Key) { k.Type = "t" },
	}
	for what, change := range changed {
		other := key()
		change(&other)
		if _, err := OpenState(mem, "/s.json", other, false); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%s changed: %v", what, err)
		}
		if st, err := OpenState(mem, "/s.json", other, true); err != nil || st.Records != 0 {
			t.Errorf("%s changed, restart: %+v %v", what, st, err)
		}
		a, errA := StatePath("/d", key())
		b, errB := StatePath("/d", other)
		if errA != nil || errB != nil || a == b {
			t.Errorf("%s changed, the same path %s (%v, %v)", what, a, errA, errB)
		}
	}
	f, err := mem.Create("/s.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	var corrupt *fault.Corrupt
	if _, err := OpenState(mem, "/s.json", key(), false); !errors.As(err, &corrupt) {
		t.Errorf("a broken state: %v", err)
	}
}

func TestIDPrefix(t *testing.T) {
	get := func(name string, size int64, content string) string {
		p, err := IDPrefix(name, size, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := get("/a/x.csv", 3, "abc")
	if p != "x.csv:3:ba7816bf8f01cfea:" {
		t.Errorf("prefix %q", p)
	}
	if get("/b/x.csv", 3, "abc") != p {
		t.Error("the folder changes the ids")
	}
	for _, other := range []string{get("/a/y.csv", 3, "abc"), get("/a/x.csv", 4, "abc"), get("/a/x.csv", 3, "abd")} {
		if other == p {
			t.Error("two inputs with the same ids")
		}
	}
	big := strings.Repeat("x", fingerprinted)
	if get("x", 9, big+"a") != get("x", 9, big+"b") {
		t.Error("more than the first MiB is read")
	}
}
