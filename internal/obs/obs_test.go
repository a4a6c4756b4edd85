package obs

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRegistryServesItsMetrics(t *testing.T) {
	r := NewRegistry()
	r.Counter("naru_a_total", "A.").Add(3)
	r.CounterVec("naru_b_total", "B.", "reason").WithLabelValues("x").Inc()
	r.Gauge("naru_c", "C.").Set(2)
	r.GaugeFunc("naru_d", "D.", func() float64 { return 7 })
	r.HistogramVec("naru_e_seconds", "E.", "door").WithLabelValues("native").Observe(0.003)
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"naru_a_total 3\n", `naru_b_total{reason="x"} 1`, "naru_c 2\n", "naru_d 7\n",
		`naru_e_seconds_bucket{door="native",le="0.005"} 1`, "go_goroutines",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in the answer", want)
		}
	}
}

func TestLogger(t *testing.T) {
	for _, c := range []struct {
		config LogConfig
		ok     bool
		want   string
	}{
		{DefaultLogConfig(), true, "level=INFO msg=hello n=1\n"},
		{LogConfig{Level: "warn", Format: "json"}, true, ""},
		{LogConfig{Level: "debug", Format: "json"}, true, `"msg":"hello","n":1}`},
		{LogConfig{Level: "loud", Format: "json"}, false, ""},
		{LogConfig{Level: "info", Format: "xml"}, false, ""},
	} {
		var buf bytes.Buffer
		l, err := NewLogger(&buf, c.config)
		if (err == nil) != c.ok || (c.config.Validate() == nil) != c.ok {
			t.Errorf("%+v: %v", c.config, err)
		}
		if err != nil {
			continue
		}
		l.Info("hello", "n", 1)
		if !strings.Contains(buf.String(), c.want) || (c.want == "") != (buf.Len() == 0) {
			t.Errorf("%+v: %q", c.config, &buf)
		}
	}
}
