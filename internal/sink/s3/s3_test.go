package s3

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

var life = sinktest.Lives[0]

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		w := newWorld(t)
		w.cfg.Path, w.cfg.Compress, w.cfg.Roll.Bytes = "id={_id}", "gzip", 500
		return sinktest.Harness{
			Exact: true, Rewinds: sinktest.Anywhere,
			Open: func(t *testing.T) sink.Sink {
				s, err := w.open(t.Context())
				require.NoError(t, err)
				return s
			},
			IDs: w.store.ids,
		}
	})
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/s3.md") }

func numbers(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("a-", i))
	}
	slices.Sort(ids)
	return ids
}

func (w *world) requireIDs(t *testing.T, want []string) {
	t.Helper()
	got := w.store.ids(t)
	slices.Sort(got)
	require.Equal(t, want, got)
}

func TestObject(t *testing.T) {
	w := newWorld(t)
	w.cfg.Path = "raw/type={_type}"
	s, err := w.open(t.Context())
	require.NoError(t, err)
	var header http.Header
	w.store.fault = func(_ http.ResponseWriter, r *http.Request, _ func()) bool {
		if r.Method == http.MethodPut {
			header = r.Header
		}
		return true
	}
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 3, sinktest.Spec{ID: "a", Type: "x/y", Data: "{}"})))
	require.Empty(t, w.store.keys())
	_, err = s.(sink.Drainer).Drain(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"raw/type=x%2Fy/part-a1000000-0-00000000000000000003.ndjson"}, w.store.keys())
	require.Equal(t, "application/x-ndjson", header.Get("Content-Type"))
	require.Contains(t, header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=naru/")
	left, err := w.fs.List("/p/data/pipelines/p/s3/spool")
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, s.Close())
}

// Whatever the store answers and whenever it is killed: every row is in one object.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel() // it mostly waits
			history(t, seed)
		})
	}
}

func history(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 4))
	const total = 100
	specs := sinktest.Events("a", total)
	for i := range specs {
		specs[i].Type = fmt.Sprint("t", rng.IntN(4))
	}
	w := newWorld(t)
	w.cfg.Path, w.cfg.Roll.Bytes = "t={_type}", quantity.Bytes(1+rng.IntN(2000))
	mood := rand.New(rand.NewPCG(seed, 5)) // of the store's goroutines
	var hurried atomic.Bool                // the sink waits for an answer no longer than 100 ms
	faults := 0
	w.store.fault = func(rw http.ResponseWriter, r *http.Request, kept func()) bool {
		if faults > 40 {
			return true
		}
		x := mood.IntN(16)
		if x < 5 {
			faults++
		}
		switch x {
		case 0:
			refuse(rw, http.StatusInternalServerError, "InternalError")
		case 1: // stored, and the answer is lost
			kept()
			panic(http.ErrAbortHandler)
		case 2:
			kept()
			refuse(rw, http.StatusServiceUnavailable, "SlowDown")
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			if faults%8 != 0 || !hurried.Load() {
				return true
			}
			<-r.Context().Done()
		default:
			return true
		}
		return false
	}
	mark := int64(0)
	for session := 0; mark < total; session++ {
		require.Less(t, session, 300, "it does not come to an end")
		if rng.IntN(4) == 0 && session < 40 {
			w.fs.Inject(vfs.Rule{Ops: vfs.OpAny &^ vfs.OpClose, Skip: rng.IntN(40), Times: 1})
		}
		w.cfg.Timeout = quantity.Duration(time.Minute)
		if hurried.Store(rng.IntN(2) == 0); hurried.Load() { // in the other sessions a slow machine gets on, too
			w.cfg.Timeout = quantity.Duration(100 * time.Millisecond)
		}
		s, err := w.open(t.Context())
		if err != nil {
			w.fs.Heal()
			continue
		}
		at := mark
		for mark < total {
			if n := min(int64(1+rng.IntN(30)), total-at); n > 0 {
				b := sinktest.Batch(life, 0, at, specs[at:at+n]...)
				if s.Write(t.Context(), b) != nil {
					break
				}
				at = b.Next
			}
			var done event.Positions
			if at == total || rng.IntN(4) == 0 {
				done, err = s.(sink.Drainer).Drain(t.Context())
			} else {
				done, err = s.Commit(t.Context())
			}
			if err != nil {
				break
			}
			if off, ok := done.Get(life, 0); ok && rng.IntN(4) > 0 { // or the watermark is lost
				mark = max(mark, off)
			}
		}
		w.fs.Heal()
		switch rng.IntN(3) {
		case 0:
			w.fs = w.fs.CrashClone(rng.Uint64())
		case 1:
			w.fs = w.fs.KillClone()
		default:
			require.NoError(t, s.Close())
		}
	}
	w.requireIDs(t, numbers(total))
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, hint string
	}{
		{404, "NoSuchBucket", "make the bucket"}, {403, "AccessDenied", "s3:ListBucket"}, {403, "InvalidAccessKeyId", "credentials"},
		{301, "PermanentRedirect", "another region"}, {400, "AuthorizationHeaderMalformed", "another region"}, {503, "SlowDown", ""}, {500, "InternalError", ""},
	} {
		w := newWorld(t)
		w.store.fault = func(rw http.ResponseWriter, r *http.Request, _ func()) bool {
			if r.Method == http.MethodHead && c.status != 403 {
				return true
			}
			refuse(rw, c.status, c.code)
			return false
		}
		s, err := w.open(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
		_, err = s.(sink.Drainer).Drain(t.Context())
		require.ErrorContains(t, err, " s3://lake/part-a1000000-0-00000000000000000000.ndjson: ", c.code)
		require.Contains(t, fault.HintOf(err), c.hint)
		require.Equal(t, c.hint == "", fault.IsTransient(err), c.code)
		require.NotContains(t, fault.Sentence(err), "s3cr3t")
		require.NoError(t, s.Close())
		w.store.fault = nil
		s, err = w.open(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
		_, err = s.(sink.Drainer).Drain(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Close())
		w.requireIDs(t, numbers(3))
	}
	for want, change := range map[string]func(*Settings){
		"bucket: must be":         func(s *Settings) { s.Bucket = "" },
		"endpoint: must be":       func(s *Settings) { s.Endpoint = "127.0.0.1:9000" },
		"region: must be":         func(s *Settings) { s.Region = "" },
		"access_key_env: must be": func(s *Settings) { s.AccessKeyEnv = "" },
		"secret_key_env: must be": func(s *Settings) { s.SecretKeyEnv = "" },
		"timeout: must be":        func(s *Settings) { s.Timeout = 0 },
		"roll.bytes: must be at":  func(s *Settings) { s.Roll.Bytes = 5 * quantity.GiB },
		"format: \"x\" is none":   func(s *Settings) { s.Format = "x" },
	} {
		w := newWorld(t)
		change(&w.cfg)
		require.ErrorContains(t, w.cfg.Validate(), want)
	}
	w := newWorld(t)
	w.cfg.AccessKeyEnv = "NONE"
	_, err := w.open(t.Context())
	require.ErrorContains(t, err, "the variable NONE is empty")
}

// Something is at the key already: nothing is overwritten.
func TestTaken(t *testing.T) {
	w := newWorld(t)
	w.store.objects["lake/part-a1000000-0-00000000000000000000.ndjson"] = []byte(`{"_id":"old"}`)
	s, err := w.open(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err = s.(sink.Drainer).Drain(t.Context())
	require.ErrorContains(t, err, "it is there already")
	require.NoError(t, s.Close())
	w.requireIDs(t, []string{"old"})
}

// The store fails while objects are taken back: the next start goes on with it.
func TestRewindFails(t *testing.T) {
	w := newWorld(t)
	for at := int64(0); at < 9; at += 3 {
		s, err := w.open(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, at, sinktest.Events("a", int(at)+3)[at:]...)))
		_, err = s.(sink.Drainer).Drain(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	rewind := func() error {
		s, err := w.open(t.Context())
		if err != nil {
			return err
		}
		defer s.Close()
		return s.(sink.Rewinder).Rewind(t.Context(), event.Positions{life: {0: 3}}, false)
	}
	for i, code := range []string{"SlowDown", "AccessDenied", ""} {
		n := 0
		w.store.fault = func(rw http.ResponseWriter, r *http.Request, kept func()) bool {
			if r.Method != http.MethodDelete {
				return true
			}
			if n++; n != 1 { // one of two goes
				refuse(rw, []int{503, 403, 500}[i], code)
				return false
			}
			return true
		}
		if code == "" {
			w.store.fault = nil
			break
		}
		err := rewind()
		require.ErrorContains(t, err, "remove s3://lake/part-a1000000-0-")
		if code == "AccessDenied" {
			require.Contains(t, fault.HintOf(err), "a rewind needs s3:DeleteObject")
		}
	}
	require.NoError(t, rewind())
	w.requireIDs(t, numbers(3))
	left, err := w.fs.List("/p/data/pipelines/p/s3")
	require.NoError(t, err)
	require.Contains(t, left, "published.ndjson")
}
