package native

import (
	"net/http/httptest"
	"strings"
	"testing"

	"naru/internal/collect"
	"naru/internal/obs"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

func newDoor(t testing.TB, log stream.Log, change func(*collect.Config)) *Door {
	t.Helper()
	cfg := collect.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	e, err := collect.New(cfg, collect.Deps{Log: log, Registry: obs.NewRegistry(), Logger: obs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSmoke(t *testing.T) {
	d := newDoor(t, memory.New(), nil)
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest("POST", "/v1/events?strict=0", strings.NewReader("{\"type\":\"a\",\"ts\":\"2026-01-01 00:00:00+09\"}\n{\"type\":1}\n{]\n")))
	t.Log(w.Code, w.Body)
}
