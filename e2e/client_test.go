package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// patient is the client of the tests: its limit is there to end a hang.
var patient = &http.Client{Timeout: 2 * time.Minute}

// reply is an HTTP answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// problem is the body of every error answer.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Status int    `json:"status"`
}

// do sends a request whose headers are given as "Name: value" lines.
func (s *server) do(method, path string, body []byte, headers ...string) (reply, error) {
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, s.url+path, in)
	if err != nil {
		return reply{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if strings.EqualFold(name, "Host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return send(req)
}

func send(req *http.Request) (reply, error) {
	resp, err := patient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	return reply{resp.StatusCode, resp.Header, all}, nil
}

// call is do for requests that must be answered.
func (s *server) call(method, path string, body []byte, headers ...string) reply {
	s.t.Helper()
	r, err := s.do(method, path, body, headers...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// ack is the answer of /v1/events.
type ack struct {
	Accepted int `json:"accepted"`
	Rejected []struct {
		Index  int    `json:"index"`
		ID     string `json:"id"`
		Reason string `json:"reason"`
		Detail string `json:"detail"`
		// Of the reason contract.
		Rule     string   `json:"rule"`
		Path     string   `json:"path"`
		Contract string   `json:"contract"`
		Version  string   `json:"version"`
		Owner    string   `json:"owner"`
		Support  []string `json:"support"`
	} `json:"rejected"`
	// RejectedCount stands there when Rejected lists only the first of them.
	RejectedCount int `json:"rejected_count"`
	Positions     []struct {
		Stream    string `json:"stream"`
		Partition int    `json:"partition"`
		First     int64  `json:"first"`
		Last      int64  `json:"last"`
	} `json:"positions"`
}

func parseAck(body []byte) (ack, error) {
	var a ack
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, fmt.Errorf("parse answer %.200q: %w", body, err)
	}
	return a, nil
}

// post sends events that must be acknowledged. Query is "" or "?...".
func (s *server) post(query, contentType, body string) ack {
	s.t.Helper()
	r := s.call("POST", "/v1/events"+query, []byte(body), "Content-Type: "+contentType)
	if r.status != http.StatusOK {
		s.t.Fatalf("POST /v1/events%s: %d %s", query, r.status, r.body)
	}
	a, err := parseAck(r.body)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// table is the answer of /v1/sql: numbers as json.Number.
type table struct {
	Columns []struct{ Name, Type string }
	Rows    [][]any
}

// trySQL asks and returns the error answer, if any, as an error.
func (s *server) trySQL(query string) (table, error) {
	r, err := s.do("POST", "/v1/sql", []byte(query), "Content-Type: text/plain", "Accept: application/json")
	if err != nil {
		return table{}, err
	}
	if r.status != http.StatusOK {
		return table{}, fmt.Errorf("sql: %d %s", r.status, bytes.TrimSpace(r.body))
	}
	var out table
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return table{}, fmt.Errorf("parse sql answer %.200q: %w", r.body, err)
	}
	return out, nil
}

// sql asks; an error ends the test.
func (s *server) sql(query string) table {
	s.t.Helper()
	out, err := s.trySQL(query)
	if err != nil {
		s.t.Fatalf("%s\n%v", query, err)
	}
	return out
}

// cell is the single value of a query as text; NULL is "NULL".
func (s *server) cell(query string) string {
	s.t.Helper()
	out := s.sql(query)
	if len(out.Rows) != 1 || len(out.Rows[0]) != 1 {
		s.t.Fatalf("%s: %d rows, want one cell", query, len(out.Rows))
	}
	return text(out.Rows[0][0])
}

// text writes a cell as a person would compare it.
func text(v any) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprint(v)
}

// lines writes rows as text, cells separated by a bar.
func (a table) lines() []string {
	var out []string
	for _, row := range a.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = text(v)
		}
		out = append(out, strings.Join(cells, "|"))
	}
	return out
}

// waitCell polls until a query over one cell gives want, and everything is
// committed: SQL alone sees it before.
func (s *server) waitCell(query, want string) {
	s.t.Helper()
	s.waitSQL(query, want)
	s.settle()
}

// waitSQL polls until a query over one cell gives want. Errors count as not yet.
func (s *server) waitSQL(query, want string) {
	s.t.Helper()
	eventually(s.t, query+" = "+want, func() (bool, string) {
		if s.ended() {
			s.t.Fatalf("server ended: %s\n%s", s.state(), s.logs.String())
		}
		out, err := s.trySQL(query)
		if err != nil {
			return false, err.Error()
		}
		if len(out.Rows) != 1 || len(out.Rows[0]) != 1 {
			return false, fmt.Sprint(out.Rows)
		}
		return text(out.Rows[0][0]) == want, text(out.Rows[0][0])
	})
}

// metrics reads /metrics.
func (s *server) metrics() map[string]*dto.MetricFamily {
	s.t.Helper()
	r := s.call("GET", "/metrics", nil)
	if r.status != http.StatusOK {
		s.t.Fatalf("GET /metrics: %d", r.status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	out, err := parser.TextToMetricFamilies(bytes.NewReader(r.body))
	if err != nil {
		s.t.Fatalf("parse metrics: %v", err)
	}
	return out
}

// metric sums a counter or gauge over the series that have all the labels
// given ("name=value").
func (s *server) metric(name string, labels ...string) float64 {
	s.t.Helper()
	family := s.metrics()[name]
	if family == nil {
		s.t.Fatalf("no metric %s", name)
	}
	var sum float64
	for _, m := range family.Metric {
		if !has(m.Label, labels) {
			continue
		}
		switch {
		case m.Counter != nil:
			sum += m.Counter.GetValue()
		case m.Gauge != nil:
			sum += m.Gauge.GetValue()
		case m.Histogram != nil:
			sum += float64(m.Histogram.GetSampleCount())
		default:
			sum += m.Untyped.GetValue()
		}
	}
	return sum
}

func has(have []*dto.LabelPair, want []string) bool {
	for _, w := range want {
		name, value, _ := strings.Cut(w, "=")
		found := false
		for _, l := range have {
			found = found || l.GetName() == name && l.GetValue() == value
		}
		if !found {
			return false
		}
	}
	return true
}
