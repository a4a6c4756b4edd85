package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// parcel is one request of a client that sends everything three times.
type parcel struct {
	query, media, body string
	items              int
}

// parcels makes n events with ids of their own, half of them CloudEvents.
func parcels(n, each int) (out []parcel) {
	for from := 0; from < n; from += each {
		var items []string
		cloud := from/each%2 == 0
		for i := from; i < min(from+each, n); i++ {
			if cloud {
				items = append(items, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/phone/%d","type":"tap","time":"2026-01-02T03:04:05Z","data":{"n":%d}}`, i, i%3, i))
			} else {
				items = append(items, fmt.Sprintf(`{"k":"%d","type":"tap","n":%d}`, i, i))
			}
		}
		p := parcel{"?id_field=k&source=/shop", "application/x-ndjson", strings.Join(items, "\n"), len(items)}
		if cloud {
			p = parcel{"", "application/cloudevents-batch+json", "[" + strings.Join(items, ",") + "]", len(items)}
		}
		out = append(out, p)
	}
	return out
}

// TestEverythingThreeTimes: a client sends everything three times, out of order, and
// again whatever got no answer, while the server is killed and stopped under it.
// Each event is in its table once, and the counts say where the others went.
func TestEverythingThreeTimes(t *testing.T) {
	t.Parallel()
	const events = 6000
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	dir := project(t, "log:\n  segment: 1MiB\npipelines:\n  commit_interval: 100ms\ndedupe:\n  index: 8MiB\n")
	var queue []parcel
	for range 3 {
		queue = append(queue, parcels(events, 50)...)
	}
	rng.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	s := serve(t, dir)
	acked, restarts := 0, 0
	var late *time.Timer // a kill that is to come, and whose
	var target *server
	for len(queue) > 0 {
		if rng.IntN(40) == 0 && restarts < 12 {
			restarts++
			if rng.IntN(3) > 0 {
				target, late = s, time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, s.kill)
			} else if code := s.stop(); code != 0 && target != s { // else the kill was faster
				t.Fatalf("SIGTERM: exit %d", code)
			}
		}
		p := queue[0]
		r, err := s.do("POST", "/v1/events"+p.query, []byte(p.body), "Content-Type: "+p.media)
		if err == nil && r.status == 200 {
			acked += p.items
			queue = queue[1:]
			continue
		}
		// Nobody knows whether it was stored: it is sent again.
		if s.ended() || err != nil {
			s.wait()
			s = serve(t, dir)
		}
	}
	if target == s && !late.Stop() {
		s.wait()
		s = serve(t, dir)
	}
	s.settle()
	s.waitCell("select count(*) || ' ' || count(distinct n) || ' ' || min(n) || ' ' || max(n) from tap", fmt.Sprintf("%d %d 0 %d", events, events, events-1))
	var st struct {
		Balanced bool
		Streams  []struct {
			Stream                                                  string
			Acknowledged, Written, Duplicates, Rejections, Filtered int64
			NotYetWritten                                           int64 `json:"not_yet_written"`
			Dedupe                                                  struct {
				Duplicates, IDs int64
				Conflicts       int64   `json:"id_conflicts"`
				Window          float64 `json:"window_seconds"`
			}
		}
	}
	if err := json.Unmarshal(s.call("GET", "/v1/status", nil).body, &st); err != nil {
		t.Fatal(err)
	}
	if len(st.Streams) != 1 || !st.Balanced {
		t.Fatalf("%+v", st)
	}
	e := st.Streams[0]
	if e.Written != events || e.Acknowledged < int64(acked) || e.Acknowledged != e.Written+e.Duplicates || e.NotYetWritten != 0 || e.Rejections+e.Filtered != 0 ||
		e.Dedupe.Duplicates != e.Duplicates || e.Dedupe.IDs != events || e.Dedupe.Conflicts != 0 || e.Dedupe.Window != 24*60*60 {
		t.Errorf("%d acknowledged to the client: %+v", acked, e)
	}
	if n := s.metric("naru_stream_events_total", "stream=events", "fate=duplicate"); int64(n) != e.Duplicates {
		t.Errorf("%v duplicates in the metrics", n)
	}
	if n := s.metric("naru_dedupe_window_seconds", "stream=events"); n != 24*60*60 {
		t.Errorf("a window of %v s in the metrics", n)
	}
	// The same id with other bytes is kept, and counted.
	other := `{"specversion":"1.0","id":"0","source":"/phone/0","type":"tap","time":"2026-01-02T03:04:05Z","data":{"n":-1}}`
	for range 2 {
		s.post("", "application/cloudevents+json", other)
	}
	s.waitCell("select count(_offset) from tap", fmt.Sprint(events+1)) // before its commit, too
	s.settle()
	s.waitCell("select count(*) from tap where n = -1", "1")
	if n := s.metric("naru_dedupe_id_conflicts_total", "stream=events"); n != 1 {
		t.Errorf("%v conflicts", n)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	v, code := verify(t, dir, "--deep")
	if code != 0 || !v.Clean {
		t.Errorf("verify: exit %d, %+v", code, v)
	}
	t.Logf("%d restarts; %d acknowledged to the client, %d stored, %d duplicates", restarts, acked, e.Acknowledged, e.Duplicates)
}

// TestDedupeTurnedOff: without a judge every event is written, what was judged
// before stays so, and turned on again it begins anew; verify is content throughout.
func TestDedupeTurnedOff(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 100ms\n")
	twice := func(s *server, id string) {
		for range 2 {
			s.post("?id_field=k&type=tap", "application/json", `{"k":"`+id+`"}`)
		}
	}
	rows := 0
	for i, enabled := range []bool{true, false, true} {
		writeConfig(t, dir, fmt.Sprintf("pipelines:\n  commit_interval: 100ms\ndedupe:\n  enabled: %t\n", enabled))
		s := serve(t, dir)
		twice(s, "same")
		twice(s, fmt.Sprint("own", i))
		switch {
		case i == 0:
			rows += 2
		case !enabled:
			rows += 4
		default: // what was written while it was off is not known to it
			rows += 2
		}
		s.waitCell("select count(_offset) from tap", fmt.Sprint(rows))
		s.settle()
		s.waitCell("select count(_offset) from tap", fmt.Sprint(rows))
		if code := s.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if v, code := verify(t, dir, "--deep"); code != 0 || !v.Clean {
			t.Errorf("round %d: verify: exit %d, %+v", i, code, v)
		}
	}
}
