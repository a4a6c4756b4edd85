package http

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/request"
	"naru/internal/sink/sinktest"
)

var life = sinktest.Lives[0]

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"ndjson":  func(*Settings) {},
		"json":    func(s *Settings) { s.Format, s.Batch = jsonArray, 2 },
		"gzip":    func(s *Settings) { s.Compress, s.BatchBytes = gzipped, 100 },
		"results": func(s *Settings) { s.Results, s.Batch = true, 3 },
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				x := newTarget(t)
				h := sinktest.Harness{
					Open: func(t *testing.T) sink.Sink { s, _ := x.open(t, change); return s },
					IDs:  func(*testing.T) []string { return x.ids() },
				}
				if name == "results" {
					h.Refuse = func(ids ...string) {
						for _, id := range ids {
							x.refuse[id] = true
						}
					}
				}
				return h
			})
		})
	}
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/http.md") }

func TestRequest(t *testing.T) {
	x := newTarget(t)
	s, _ := x.open(t, func(s *Settings) {
		s.Batch, s.Headers, s.HeadersEnv = 2, map[string]string{"X-Team": "shop"}, map[string]string{"Authorization": "TOKEN"}
		s.HMAC.SecretEnv = "SECRET"
	})
	b := sinktest.Batch(life, 1, 7, sinktest.Spec{ID: "a", Type: "t", Data: `{"n":1,"_key":"spoofed"}`}, sinktest.Spec{ID: "b", Type: "t"}, sinktest.Spec{ID: "c", Type: "t"})
	require.NoError(t, s.Write(t.Context(), b))
	require.Len(t, x.requests, 1, "a whole batch goes at once")
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Len(t, x.requests, 2)
	q := x.requests[0]
	require.Equal(t, "application/x-ndjson", q.header.Get("Content-Type"))
	require.Equal(t, "shop", q.header.Get("X-Team"))
	require.Equal(t, "Bearer t0k3n", q.header.Get("Authorization"))
	require.Empty(t, q.header.Get("Content-Encoding"))
	key := "a1000000000000000000000000000000/1/7/0"
	require.Equal(t, key, q.rows[0]["_key"], "the last of two members is the sink's")
	require.Equal(t, 1.0, q.rows[0]["n"])
	require.True(t, strings.HasPrefix(q.header.Get("Idempotency-Key"), key+"..a1000000000000000000000000000000/1/8/0.."), q.header.Get("Idempotency-Key"))
	// As a receiver checks it.
	var seconds int64
	_, err = fmt.Sscanf(q.header.Get("Naru-Signature"), "t=%d,", &seconds)
	require.NoError(t, err)
	require.InDelta(t, time.Now().Unix(), seconds, 60)
	require.Equal(t, sign([]byte("s3cr3t"), time.Unix(seconds, 0), q.body), q.header.Get("Naru-Signature"))
}

// The value was made with openssl dgst -sha256 -hmac k.
func TestSign(t *testing.T) {
	require.Equal(t, "t=1492774577,v1=ea2752ecf23e55a0766a5517360b0e22ac0e27f6d582a0b5c5b9c502e1fc8164", sign([]byte("k"), time.Unix(1492774577, 0), []byte(`{"a":1}`)))
}

// The receiver of the page, as it stands there.
func TestReceiverOfThePage(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs python3")
		}
		t.Skip("needs python3")
	}
	page, err := os.ReadFile("../../../docs/sinks/http.md")
	require.NoError(t, err)
	_, code, ok := strings.Cut(string(page), "```python\n")
	require.True(t, ok)
	code, _, _ = strings.Cut(code, "```")
	header := sign([]byte("s3cr3t"), time.Now(), []byte("body"))
	code += fmt.Sprintf("\nassert genuine(%q, b'body', b's3cr3t')\nassert not genuine(%q, b'body', b's3cr3')\n", header, header)
	out, err := exec.Command(python, "-c", code).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Each status, as the first answer to a batch of three.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status         int
		again          bool // sent again and taken
		refused        int
		err, hint, ask string
	}{
		{status: 200}, {status: 204},
		{status: 408, again: true}, {status: 425, again: true}, {status: 429, again: true}, {status: 500, again: true}, {status: 501, again: true}, {status: 503, again: true}, {status: 599, again: true},
		{status: 400, refused: 3}, {status: 422, refused: 3},
		{status: 413, again: true}, // by halves
		{status: 301, err: "301 Moved Permanently", hint: "redirects are not followed"},
		{status: 401, err: "401 Unauthorized", hint: "credentials"}, {status: 403, hint: "credentials"},
		{status: 404, hint: "nothing at this path"}, {status: 410, hint: "nothing at this path"}, {status: 405, hint: "method"},
		{status: 415, hint: "format"}, {status: 409, hint: "request itself"},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			x := newTarget(t)
			x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
				if len(x.requests) > 1 {
					return true
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				return false
			}
			s, _ := x.open(t, nil)
			b := sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)
			require.NoError(t, s.Write(t.Context(), b))
			done, err := s.Commit(t.Context())
			if c.hint != "" {
				require.ErrorContains(t, err, "send 3 rows from a1000000-0000-0000-0000-000000000000/0/0 to "+x.URL+": the target answers "+c.err)
				require.Contains(t, fault.HintOf(err), c.hint)
				require.False(t, fault.IsTransient(err))
				require.Len(t, x.requests, 1)
				return
			}
			require.NoError(t, err)
			require.True(t, done.Covers(event.Position{Incarnation: life, Offset: 2}))
			refused := s.Refused()
			require.Len(t, refused, c.refused)
			for i, r := range refused {
				require.Equal(t, int64(i), r.At.Offset)
				require.Contains(t, r.Detail, fmt.Sprint("the target answers ", c.status))
			}
			if c.again {
				require.Len(t, x.ids(), 3)
			}
			require.Empty(t, s.Refused(), "once")
		})
	}
}

func TestRefusedStops(t *testing.T) {
	x := newTarget(t)
	x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
		http.Error(w, "no\nfield `a`\x00", http.StatusUnprocessableEntity)
		return false
	}
	s, _ := x.open(t, func(s *Settings) { s.OnRefused = stop })
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err := s.Commit(t.Context())
	require.ErrorContains(t, err, "the target answers 422: no field `a`")
	require.Contains(t, fault.HintOf(err), "on_refused: reject")
}

// Rows too large for the target go alone, and are refused alone.
func TestTooLarge(t *testing.T) {
	x := newTarget(t)
	x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
		if len(q.body) > 800 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return false
		}
		return true
	}
	s, _ := x.open(t, nil)
	specs := sinktest.Events("a", 9)
	specs[4].Data = `{"a":"` + strings.Repeat("x", 900) + `"}`
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, specs...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	refused := s.Refused()
	require.Len(t, refused, 1)
	require.Equal(t, int64(4), refused[0].At.Offset)
	require.Len(t, x.ids(), 8)
}

func TestBatches(t *testing.T) {
	x := newTarget(t)
	s, _ := x.open(t, func(s *Settings) { s.BatchBytes = 700 })
	specs := sinktest.Events("a", 20)
	specs[7].Data = `{"a":"` + strings.Repeat("x", 2000) + `"}`
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, specs...)))
	_, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Len(t, x.ids(), 20)
	for _, q := range x.requests {
		require.True(t, len(q.body) <= 720 || len(q.rows) == 1, "%d bytes, %d rows", len(q.body), len(q.rows))
	}
	require.Less(t, len(x.requests), 15)
}

func TestRetryAfter(t *testing.T) {
	x := newTarget(t)
	after := []string{"3", "", "20", "", ""}
	x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
		w.Header().Set("Retry-After", after[len(x.requests)-1])
		w.WriteHeader(429)
		return false
	}
	s, pauses := x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	_, err := s.Commit(t.Context())
	require.True(t, fault.IsTransient(err))
	require.ErrorContains(t, err, "429")
	require.Len(t, *pauses, 4, "five attempts")
	require.Equal(t, 3*time.Second, (*pauses)[0])
	require.Equal(t, 20*time.Second, (*pauses)[2])

	// Longer than the sink waits by itself: the pipeline is told, and has a bound.
	after = []string{"86400"}
	x.requests = nil
	s, pauses = x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	_, err = s.Commit(t.Context())
	var retry *fault.RetryAfter
	require.ErrorAs(t, err, &retry)
	require.Equal(t, request.LongestRetryAfter, retry.After)
	require.Empty(t, *pauses)
}

// A target that hangs does not hold up a stop, nor longer than the timeout.
func TestHang(t *testing.T) {
	x := newTarget(t)
	came := make(chan struct{}, 9)
	x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
		came <- struct{}{}
		<-r.Context().Done()
		return false
	}
	s, _ := x.open(t, nil)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	_, err := s.Commit(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, s.Close())

	s, _ = x.open(t, func(s *Settings) { s.Timeout, s.Attempts = quantity.Duration(30*time.Millisecond), 2 })
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	_, err = s.Commit(t.Context())
	require.True(t, fault.IsTransient(err))
	require.ErrorContains(t, err, "no answer within 30ms")
}

func TestResults(t *testing.T) {
	key := func(i int) string {
		return string(sink.AppendKey(nil, event.Position{Incarnation: life, Offset: int64(i)}, 0))
	}
	all := func(result ...string) string {
		var b strings.Builder
		for i, r := range result {
			fmt.Fprintf(&b, `,{"recordId":%q,"result":%s,"data":"ignored"}`, key(i), r)
		}
		return `{"records":[` + strings.TrimPrefix(b.String(), ",") + `]}`
	}
	for _, c := range []struct {
		answer, err string
		refused     []sink.Refusal
	}{
		{answer: all(`"Ok"`, `"Ok"`, `"Ok"`)},
		{answer: all(`"Dropped"`, `"Ok"`, `"ProcessingFailed","error":"no such user"`), refused: []sink.Refusal{
			{At: event.Position{Incarnation: life}, Dropped: true}, {At: event.Position{Incarnation: life, Offset: 2}, Detail: "no such user"}}},
		{answer: all(`"ProcessingFailed"`, `"Ok"`, `"Ok"`), refused: []sink.Refusal{{At: event.Position{Incarnation: life}, Detail: "the target answers ProcessingFailed"}}},
		{answer: all(`"Ok"`, `"Ok"`), err: "1 of 3 records are missing, " + key(2)},
		{answer: all(`"Ok"`, `"Ok"`, `"Ok"`, `"Ok"`), err: `the record "` + key(3) + `" was not sent`},
		{answer: strings.Replace(all(`"Ok"`, `"Ok"`, `"Ok"`), key(1), key(0), 1), err: `the record "` + key(0) + `" was not sent, or is named twice`},
		{answer: all(`"Ok"`, `"ok"`, `"Ok"`), err: `has the result "ok"`},
		{answer: ``, err: "read results: unexpected end"},
		{answer: `{"records":[` + strings.Repeat(" ", 2000) + `]}`, err: "longer than answer_bytes, 1KiB"},
	} {
		x := newTarget(t)
		x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
			w.Write([]byte(c.answer))
			return false
		}
		s, _ := x.open(t, func(s *Settings) { s.Results, s.AnswerBytes = true, quantity.KiB })
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
		_, err := s.Commit(t.Context())
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			require.True(t, fault.IsTransient(err), "the target may have been half updated: it may pass")
			continue
		}
		require.NoError(t, err, c.answer)
		require.Equal(t, c.refused, s.Refused())
	}
}

// Nothing that people read shows a secret.
func TestSecretsAreNotShown(t *testing.T) {
	x := newTarget(t)
	s, _ := x.open(t, func(s *Settings) { s.URL, s.URLEnv, s.Attempts = "", "URL", 1 })
	x.CloseClientConnections()
	x.Close()
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 1)...)))
	_, err := s.Commit(t.Context())
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, fault.Sentence(err), "t0k3n")

	for variable, want := range map[string]string{"NONE": "the variable NONE is empty", "LINES": "must be one line"} {
		bad := DefaultSettings()
		bad.URL, bad.HeadersEnv = "http://x", map[string]string{"A": variable}
		_, err = bad.Open(t.Context(), sink.Env{Name: "hook", Getenv: func(v string) string { return strings.Repeat("a\nb", len(v)-4) }})
		require.ErrorContains(t, err, want)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"url: must be set":                      func(s *Settings) { s.URL = "" },
		"url: must be http://":                  func(s *Settings) { s.URL = "ftp://x" },
		"url: must be without user":             func(s *Settings) { s.URL = "http://a:t0k3n@x" },
		"url: url_env is set too":               func(s *Settings) { s.URLEnv = "X" },
		`method: "GET" is none of`:              func(s *Settings) { s.Method = "GET" },
		`format: "csv" is none of`:              func(s *Settings) { s.Format = "csv" },
		`compress: "zstd" is none of`:           func(s *Settings) { s.Compress = "zstd" },
		`on_refused: "drop" is none of`:         func(s *Settings) { s.OnRefused = "drop" },
		"batch: must be":                        func(s *Settings) { s.Batch = 0 },
		"batch_bytes: must be":                  func(s *Settings) { s.BatchBytes = 0 },
		"answer_bytes: must be":                 func(s *Settings) { s.AnswerBytes = 0 },
		"timeout: must be":                      func(s *Settings) { s.Timeout = 0 },
		"attempts: must be":                     func(s *Settings) { s.Attempts = 0 },
		"results: the answer names rows":        func(s *Settings) { s.Results, s.Key = true, "" },
		"key: _id is a column":                  func(s *Settings) { s.Key = "_id" },
		"headers.a b: is not a name":            func(s *Settings) { s.Headers = map[string]string{"a b": "x"} },
		"headers.content-length: is set by":     func(s *Settings) { s.Headers = map[string]string{"content-length": "1"} },
		"headers.A: must be one line":           func(s *Settings) { s.Headers = map[string]string{"A": "x\r\nB: y"} },
		"headers_env.A: is in headers too":      func(s *Settings) { s.Headers, s.HeadersEnv = map[string]string{"A": "x"}, map[string]string{"A": "X"} },
		"headers_env.naru-signature: is set by": func(s *Settings) { s.HMAC.SecretEnv, s.HeadersEnv = "X", map[string]string{"naru-signature": "X"} },
		`hmac.header: "Host" cannot be`:         func(s *Settings) { s.HMAC = HMAC{SecretEnv: "X", Header: "Host"} },
	} {
		s := DefaultSettings()
		s.URL = "http://127.0.0.1:9000/hook"
		require.NoError(t, s.Validate())
		change(&s)
		err := s.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "t0k3n")
	}
}

// A target of many moods: whatever it answers, and however the rows are cut, in the
// end it has every row, by its key, and of those that it refused each is told.
func TestMoods(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { moods(t, seed) })
	}
}

func moods(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	const total = 120
	x := newTarget(t)
	results := rng.IntN(2) == 0
	specs := sinktest.Events("a", total)
	refusals := map[int64]bool{}
	if results {
		for i := range specs {
			if rng.IntN(9) == 0 {
				x.refuse[specs[i].ID], refusals[int64(i)] = true, true
			}
		}
	}
	mood := rand.New(rand.NewPCG(seed, 8)) // of the server's goroutines
	var hurried atomic.Bool                // the sink waits for an answer no longer than 20 ms
	x.answer = func(w http.ResponseWriter, r *http.Request, q received) bool {
		n := mood.IntN(len(q.rows) + 1)
		switch mood.IntN(14) {
		case 0:
			w.WriteHeader(500)
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		case 2: // taken, and the answer is lost
			x.take(discard{http.Header{}}, q, n)
			panic(http.ErrAbortHandler)
		case 3:
			x.take(discard{http.Header{}}, q, n)
			w.WriteHeader(503)
		case 4: // hangs
			if !hurried.Load() {
				return true
			}
			<-r.Context().Done()
		case 5: // an answer that breaks off
			w.Header().Set("Content-Length", "100")
			x.take(w, q, len(q.rows))
			panic(http.ErrAbortHandler)
		case 6:
			if !results {
				return true
			}
			x.take(w, q, n) // tells of some rows only
		case 7:
			if len(q.rows) == 1 {
				return true
			}
			w.WriteHeader(413)
		default:
			return true
		}
		return false
	}
	refused := map[int64]bool{}
	mark := int64(0)
	for session := 0; mark < total; session++ {
		require.Less(t, session, 500, "it does not come to an end")
		s, _ := x.open(t, func(s *Settings) {
			s.Results, s.Batch, s.Attempts = results, 1+rng.IntN(20), 1+rng.IntN(3)
			if hurried.Store(rng.IntN(3) == 0); hurried.Load() { // in the other sessions a slow machine gets on, too
				s.Timeout = quantity.Duration(20 * time.Millisecond)
			}
			s.Format, s.Compress = []string{ndjson, jsonArray}[rng.IntN(2)], []string{none, gzipped}[rng.IntN(2)]
		})
		for at := mark; mark < total; {
			if n := min(int64(1+rng.IntN(30)), total-at); n > 0 {
				b := sinktest.Batch(life, 0, at, specs[at:at+n]...)
				if s.Write(t.Context(), b) != nil {
					break
				}
				at = b.Next
			}
			if rng.IntN(3) > 0 && at < total {
				continue
			}
			done, err := s.Commit(t.Context())
			if err != nil || rng.IntN(6) == 0 { // or it is killed, and the watermark lost
				break
			}
			mark, _ = done.Get(life, 0)
			for _, r := range s.Refused() {
				require.False(t, refused[r.At.Offset], "told twice")
				refused[r.At.Offset] = true
			}
		}
		require.NoError(t, s.Close())
	}
	x.Close()
	require.Equal(t, refusals, refused)
	require.Len(t, x.ids(), total-len(refusals))
	for _, q := range x.requests { // a key of content is that of one content
		for _, p := range x.requests {
			if p.header.Get("Idempotency-Key") == q.header.Get("Idempotency-Key") && p.header.Get("Content-Encoding") == q.header.Get("Content-Encoding") {
				require.True(t, bytes.Equal(p.body, q.body))
			}
		}
	}
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
