package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })

func TestGuard(t *testing.T) {
	h := NewGuard("Naru.example.org", "other.example.org:8443", "10.0.0.7").Wrap(ok)
	for _, c := range []struct {
		host    string
		headers []string // name, value, ...
		status  int
		says    string
	}{
		{"localhost", nil, 200, ""},
		{"localhost:8080", nil, 200, ""},
		{"LOCALHOST.:8080", nil, 200, ""},
		{"127.0.0.1:8080", nil, 200, ""},
		{"127.9.9.9", nil, 200, ""},
		{"[::1]:8080", nil, 200, ""},
		{"[::1]", nil, 200, ""},
		{"naru.example.org:1234", nil, 200, ""},
		{"naru.example.org.", nil, 200, ""},
		{"other.example.org:8443", nil, 200, ""},
		{"10.0.0.7:80", nil, 200, ""},
		{"other.example.org:80", nil, 403, "neither loopback nor configured"},
		{"evil.example", nil, 403, `host \"evil.example\"`},
		{"127.0.0.1.evil.example", nil, 403, "host"},
		{"localhost.evil.example:8080", nil, 403, "host"},
		{"0.0.0.0:8080", nil, 403, "host"},
		{"10.0.0.8", nil, 403, "host"},
		{"", nil, 403, "host"},
		{"localhost:8080", []string{"Origin", "http://localhost:8080"}, 200, ""},
		{"naru.example.org", []string{"Origin", "https://NARU.example.org"}, 200, ""},
		{"localhost:8080", []string{"Origin", "http://localhost:3000"}, 403, "other origins"},
		{"localhost:8080", []string{"Origin", "https://evil.example"}, 403, "other origins"},
		{"localhost:8080", []string{"Origin", "null"}, 403, "other origins"},
		{"localhost:8080", []string{"Origin", ""}, 403, "other origins"},
		{"localhost:8080", []string{"Origin", "http://localhost:8080", "Origin", "https://evil.example"}, 403, "other origins"},
		{"localhost", []string{"Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"localhost", []string{"Sec-Fetch-Site", "none"}, 200, ""},
		{"localhost", []string{"Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		{"localhost", []string{"Sec-Fetch-Site", "Cross-Site"}, 403, "another site"},
	} {
		r := httptest.NewRequest("POST", "/v1/sql", nil)
		r.Host = c.host
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("host %q, %q: %d %s, want %d with %q", c.host, c.headers, w.Code, w.Body, c.status, c.says)
		}
		if w.Code == 403 && w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("host %q, %q: CORS on a refusal", c.host, c.headers)
		}
	}
}

func TestCORS(t *testing.T) {
	h := CORS(ok)
	r := httptest.NewRequest("OPTIONS", "/v1/events", nil)
	r.Header.Set("Origin", "https://shop.example")
	r.Header.Set("Access-Control-Request-Method", "POST")
	r.Header.Set("Access-Control-Request-Headers", "content-type, ce-id, PostHog-Sdk-Info, x-other, ce-a\"b")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":      "https://shop.example",
		"Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Methods":     "POST, GET, OPTIONS",
		"Access-Control-Allow-Headers":     "Authorization, Content-Type, Content-Encoding, X-Retry-Count, AnonymousId, SP-Anonymous, ce-id, PostHog-Sdk-Info",
		"Access-Control-Expose-Headers":    "Retry-After",
		"Access-Control-Max-Age":           "3600",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if w.Code != 204 {
		t.Errorf("preflight: %d", w.Code)
	}
	r = httptest.NewRequest("POST", "/v1/events", nil)
	r.Header.Set("Origin", "null")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Host = "tracking.shop.example"
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "null" || w.Header().Get("Vary") != "Origin" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/events", nil))
	if w.Code != 200 || len(w.Header()) != 0 {
		t.Errorf("without an origin: %d %v", w.Code, w.Header())
	}
}

func TestMux(t *testing.T) {
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("By", name) })
	}
	var m Mux
	m.Handle("/v1/events", named("events"), "POST", "OPTIONS")
	m.Handle("/v1/sql", named("sql"), "POST")
	m.Handle("/healthz", named("health"), "GET")
	m.HandlePrefix("/iceberg/", named("iceberg"), "GET", "POST")
	m.HandlePrefix("/iceberg/v1/", named("iceberg1"), "GET")
	for _, c := range []struct {
		method, path, by string
		status           int
		allow, says      string
	}{
		{"POST", "/v1/events", "events", 200, "", ""},
		{"OPTIONS", "/v1/events", "events", 200, "", ""},
		{"GET", "/v1/events", "", 405, "POST, OPTIONS", "use POST"},
		{"HEAD", "/v1/events", "", 405, "POST, OPTIONS", ""},
		{"OPTIONS", "/v1/sql", "", 204, "POST, OPTIONS", ""},
		{"GET", "/healthz", "health", 200, "", ""},
		{"HEAD", "/healthz", "health", 200, "", ""},
		{"DELETE", "/healthz", "", 405, "GET, HEAD, OPTIONS", "use GET or HEAD"},
		{"GET", "/iceberg/x", "iceberg", 200, "", ""},
		{"GET", "/iceberg/v1/config", "iceberg1", 200, "", ""},
		{"GET", "/", "", 404, "", "POST /v1/events"},
		{"POST", "/v1/events/", "", 404, "", "the path is /v1/events, exactly"},
		{"POST", "//v1//events", "", 404, "", "the path is /v1/events, exactly"},
		{"POST", "/V1/Events", "", 404, "", "the path is /v1/events, exactly"},
		{"POST", "/v1/../v1/events", "", 404, "", "nothing is served"},
		{"POST", "/v1/event", "", 404, "", "nothing is served"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "/x", nil)
		r.URL.Path = c.path
		m.ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("By") != c.by || w.Header().Get("Allow") != c.allow || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d by %q, allow %q, %s", c.method, c.path, w.Code, w.Header().Get("By"), w.Header().Get("Allow"), w.Body)
		}
		if w.Code/100 == 3 {
			t.Errorf("%s %s: a redirect", c.method, c.path)
		}
	}
}

func TestHealth(t *testing.T) {
	w := httptest.NewRecorder()
	Healthz().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	if w.Code != 200 || w.Body.String() != "{\"status\": \"ok\"}\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	var fault error
	h := Readyz(
		Check{"log", func(context.Context) error { return fault }},
		Check{"disk", func(ctx context.Context) error {
			if _, limited := ctx.Deadline(); !limited {
				t.Error("a check without a deadline")
			}
			return nil
		}},
	)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	if w.Code != 200 || w.Body.String() != "{\"status\": \"ready\", \"reasons\": []}\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	fault = errors.New(`disk "a" is full`)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	var got struct {
		Status  string
		Reasons []struct{ Check, Reason string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || got.Status != "not ready" || len(got.Reasons) != 1 || got.Reasons[0].Check != "log" || got.Reasons[0].Reason != fault.Error() {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestFail(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		retryAfter string
	}{
		{&Error{Status: 400, Title: "a", Detail: "b"}, 400, ""},
		{&Error{Status: 503, Title: "a"}, 503, "1"},
		{&Error{Status: 429, Title: "a", RetryAfter: 1500e6}, 429, "2"},
		{errors.New("something else"), 503, "1"},
	} {
		w := httptest.NewRecorder()
		if got := Fail(w, c.err); got != c.status || w.Code != c.status || w.Header().Get("Retry-After") != c.retryAfter {
			t.Errorf("%v: %d, Retry-After %q", c.err, w.Code, w.Header().Get("Retry-After"))
		}
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"headers": func(c *Config) { c.Headers = 1 }, "header_timeout": func(c *Config) { c.HeaderTimeout = 1 },
		"stall_timeout": func(c *Config) { c.StallTimeout = 0 }, "idle_timeout": func(c *Config) { c.IdleTimeout = 5 },
		"min_rate": func(c *Config) { c.MinRate = 0 }, "connections": func(c *Config) { c.Connections = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
