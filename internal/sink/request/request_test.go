package request

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/quantity"
)

func TestPausesGrow(t *testing.T) {
	var pauses []time.Duration
	a := Attempts{Most: 12, Wait: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }}
	down := errors.New("down")
	err := a.Until(t.Context(), func() (time.Duration, error) { return 0, fault.Transient(down) })
	require.ErrorIs(t, err, down)
	require.Len(t, pauses, 11)
	for i, p := range pauses {
		most := min(pauseMin<<i, pauseMax)
		require.True(t, p <= most && p >= most/2, "pause %d is %s", i, p)
	}
}

func TestUntil(t *testing.T) {
	var pauses []time.Duration
	a := Attempts{Most: 3, Wait: func(ctx context.Context, d time.Duration) error { pauses = append(pauses, d); return ctx.Err() }}
	until := func(after time.Duration, errs ...error) (int, error) {
		pauses = nil
		made := 0
		err := a.Until(t.Context(), func() (time.Duration, error) { made++; return after, errs[made-1] })
		return made, err
	}
	full, wrong := fault.Transient(errors.New("full")), errors.New("wrong")
	made, err := until(3*time.Second, full, nil)
	require.NoError(t, err)
	require.Equal(t, 2, made)
	require.Equal(t, []time.Duration{3 * time.Second}, pauses)
	made, err = until(0, full, wrong)
	require.Equal(t, wrong, err)
	require.Equal(t, 2, made)
	var later *fault.RetryAfter
	made, err = until(time.Second, full, full, full)
	require.ErrorAs(t, err, &later)
	require.Equal(t, time.Second, later.After)
	require.Equal(t, 3, made)
	// Longer than it waits by itself.
	made, err = until(time.Minute, full)
	require.ErrorAs(t, err, &later)
	require.Equal(t, time.Minute, later.After)
	require.Equal(t, 1, made)

	// A stop is told as such, whatever the last attempt has said.
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the server stops")
	require.ErrorIs(t, a.Until(ctx, func() (time.Duration, error) { cancel(stop); return 0, full }), stop)
	require.ErrorIs(t, rest(ctx, time.Hour), stop)
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "-4": 0, "nonsense": 0, "86400": LongestRetryAfter, "99999999999999999999": 0,
		"Sun, 01 Mar 2026 12:00:20 GMT": 20 * time.Second, "Sun, 01 Mar 2026 11:00:00 GMT": 0, "Mon, 02 Mar 2026 12:00:00 GMT": LongestRetryAfter,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {text}}, now), text)
	}
}

func TestDo(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte("0123456789"))
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("0123456789a")) })
	mux.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("0123"))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/long", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/hangs", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/s3cr3t", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // from then on the server notices a client that leaves
		mux.ServeHTTP(w, r)
	}))
	defer srv.Close()
	do := func(path string, timeout time.Duration) (*Answer, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path, strings.NewReader("x"))
		require.NoError(t, err)
		return Do(NewClient(http.DefaultTransport), req, quantity.Duration(timeout), 10)
	}
	a, err := do("/busy", time.Minute)
	require.NoError(t, err)
	require.Equal(t, &Answer{Status: 429, Body: []byte("0123456789"), RetryAfter: 7 * time.Second}, a)
	a, err = do("/long", time.Minute)
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(a.Body))
	require.ErrorIs(t, a.Cut, fault.ErrLimit)
	a, err = do("/short", time.Minute)
	require.NoError(t, err)
	require.ErrorContains(t, a.Cut, "read answer: unexpected EOF")
	a, err = do("/moved", time.Minute)
	require.NoError(t, err)
	require.Equal(t, http.StatusMovedPermanently, a.Status)
	_, err = do("/hangs", 30*time.Millisecond)
	require.EqualError(t, err, "no answer within 30ms")
	_, err = do("/s3cr3t", time.Minute)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cr3t")
}
