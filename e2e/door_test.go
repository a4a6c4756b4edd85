package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestDoorFormats: every way to send an event, seen as rows.
func TestDoorFormats(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	const lines = "{\"n\":1}\n{\"n\":2}\n"
	for i, c := range []struct {
		name    string
		headers []string
		body    string
		n       int // events
	}{
		{"object", []string{jsonType}, `{"n":1}`, 1},
		{"object without a type", nil, `{"n":1}`, 1},
		{"object as text", []string{plainType}, `{"n":1}`, 1},
		{"object as curl -d sends it", []string{"Content-Type: application/x-www-form-urlencoded"}, `{"n":1}`, 1},
		{"object with a mark", []string{jsonType}, "\ufeff" + `{"n":1}`, 1},
		{"array", []string{jsonType}, `[{"n":1}, {"n":2}]`, 2},
		{"NDJSON", []string{ndjsonType}, lines, 2},
		{"NDJSON, blank lines, CRLF, no last break", []string{ndjsonType}, "\r\n{\"n\":1}\r\n\r\n{\"n\":2}", 2},
		{"NDJSON sniffed", nil, lines, 2},
		{"run together", []string{ndjsonType}, `{"n":1}{"n":2}`, 2},
		{"gzip", []string{ndjsonType, "Content-Encoding: gzip"}, zipped(lines), 2},
		{"gzip in two members", []string{ndjsonType, "Content-Encoding: gzip"}, zipped("{\"n\":1}\n") + zipped("{\"n\":2}\n"), 2},
		{"zstd", []string{ndjsonType, "Content-Encoding: zstd"}, zstded(lines), 2},
		{"deflate", []string{ndjsonType, "Content-Encoding: deflate"}, deflated(lines), 2},
	} {
		typ := fmt.Sprintf("way_%d", i)
		r := s.call("POST", "/v1/events?type="+typ, []byte(c.body), c.headers...)
		a, err := parseAck(r.body)
		if r.status != http.StatusOK || err != nil || a.Accepted != c.n || len(a.Rejected) != 0 {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
			continue
		}
		s.waitCell("select sum(n)::bigint from "+typ, fmt.Sprint(c.n*(c.n+1)/2))
	}
}

// TestCloudEvents: the three modes give the same row.
func TestCloudEvents(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	event := func(id string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"/shop","type":"com.Shop.OrderPaid","subject":"o-7","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","data":{"total":12.5}}`
	}
	for _, c := range []struct {
		headers []string
		body    string
	}{
		{[]string{jsonType, "Ce-Specversion: 1.0", "Ce-Id: binary", "Ce-Source: /shop", "Ce-Type: com.Shop.OrderPaid", "Ce-Subject: o-7", "Ce-Time: 2026-01-02T03:04:05Z"}, `{"total":12.5}`},
		{[]string{cloudType}, event("structured")},
		{[]string{batchType}, "[" + event("batched-1") + "," + event("batched-2") + "]"},
	} {
		if r := s.call("POST", "/v1/events", []byte(c.body), c.headers...); r.status != http.StatusOK {
			t.Errorf("%v: %d %s", c.headers, r.status, r.body)
		}
	}
	s.waitCell("select count(_offset) from com_shop_order_paid", "4")
	got := s.sql("select distinct _type, _source, _subject, _time::varchar, total from com_shop_order_paid").lines()
	if want := "com.Shop.OrderPaid|/shop|o-7|2026-01-02 03:04:05+00|12.5"; strings.Join(got, "\n") != want {
		t.Errorf("rows %q, want %q", got, want)
	}
	got = s.sql("select _id from com_shop_order_paid order by _id").lines()
	if want := "batched-1 batched-2 binary structured"; strings.Join(got, " ") != want {
		t.Errorf("ids %q, want %q", got, want)
	}
}

// TestNamesAndTimes: the type, the table and the time of plain JSON as DOOR.md
// and EXACTNESS.md 5 have them.
func TestNamesAndTimes(t *testing.T) {
	t.Parallel()
	s := serve(t, project(t, "pipelines:\n  commit_interval: 200ms\n"))
	for _, c := range []struct{ query, body, table, time string }{
		{"", `{"type":"PageView","time":"2026-01-02 03:04:05.5+09:00"}`, "page_view", "2026-01-01 18:04:05.5+00"},
		{"", `{"event":"Sign Up","timestamp":1767225600}`, "sign_up", "2026-01-01 00:00:00+00"},
		{"", `{"type":7,"event":"by_event","ts":1767225600000}`, "by_event", "2026-01-01 00:00:00+00"},
		{"", `{"@timestamp":"2026-01-01T00:00:00Z"}`, "event", "2026-01-01 00:00:00+00"},
		{"?type=given", `{"type":"other","event_time":"2026-01-01T00:00:00.000001Z"}`, "given", "2026-01-01 00:00:00.000001+00"},
		{"?type=given_2", `{"time":"no time","timestamp":"2026-01-01T00:00:00+0130"}`, "given_2", "2025-12-31 22:30:00+00"},
		{"?stream=shop&type=%ec%a3%bc%eb%ac%b8", `{"ts":"2026-01-01T00:00:00Z"}`, `shop."주문"`, "2026-01-01 00:00:00+00"},
	} {
		s.post(c.query, "application/json", c.body)
		s.waitCell("select _time::varchar from "+c.table, c.time)
	}
	// No time, and one beyond a day from now: that of the receipt.
	s.post("?type=untimed", "application/x-ndjson", "{\"a\":1}\n{\"time\":\"2999-01-01T00:00:00Z\"}\n")
	s.waitCell("select count(*) from untimed where _time = _received_at and abs(epoch(_time) - epoch(now())) < 3600", "2")
	s.waitCell("select max(time) from untimed", "2999-01-01T00:00:00Z")
}
