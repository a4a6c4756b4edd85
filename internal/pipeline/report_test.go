package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"naru/internal/obs"
	"naru/internal/pipeline/definition"
	"naru/internal/stream"
	"naru/internal/vfs"
)

const twoSinks = "steps: [{sql: drop 3}]\nto: [{into: a}, {into: b, name: other}]\n"

// ask calls the handler and reads the answer into v, if it is a 200.
func (s *stand) ask(method, path string, v any) int {
	s.t.Helper()
	w := httptest.NewRecorder()
	(&Handler{Configured: s.set, Logger: quiet}).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	if w.Code == http.StatusOK {
		require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), v), w.Body.String())
	}
	return w.Code
}

// one asks for a pipeline again and again until it is as wanted.
func (s *stand) one(name string, want func(Report) bool) (r Report) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		r = Report{}
		return s.ask("GET", Path+"/"+name, &r) == http.StatusOK && want(r)
	}, soon, time.Millisecond, "%+v", &r)
	return r
}

func TestPauseHoldsOverRestartsAndChanges(t *testing.T) {
	s := newStand(t, "a", "b", "c")
	s.file("p.yaml", twoSinks)
	s.file("q.yaml", "to: [{into: c}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/into", "pipeline/p/other", "pipeline/q/into")

	var r Report
	require.Equal(t, http.StatusOK, s.ask("POST", Path+"/p/pause", &r))
	require.Equal(t, Paused, r.State)
	require.True(t, r.Paused)
	for range 2 { // over a kill, too
		appendEvents(t, s.log, "events", 7, 6)
		s.file("p.yaml", strings.Replace(twoSinks, "drop 3", "as x-", 1)) // a change does not wake it
		s.one("p", func(r Report) bool { return r.Steps[0].SQL == "as x-" })
		s.caughtUp(s.progress("pipeline/q/into").Counts.Total()+6, "pipeline/q/into")
		r = s.one("p", func(r Report) bool { return r.Paused })
		require.Len(t, r.Sinks, 2)
		require.Equal(t, Paused, r.Sinks[0].State)
		require.Equal(t, stream.Counts{Written: 4, Filtered: 2}, r.Sinks[0].Counts)
		require.Positive(t, r.Sinks[0].LagSeconds)
		require.Len(t, s.stores["a"].ids, 4)
		s.kill()
		s.start()
	}
	s.one("p", func(r Report) bool { return r.Paused && r.Sinks[1].Lag == 12 })
	require.Equal(t, http.StatusOK, s.ask("POST", Path+"/p/resume", &r))
	require.False(t, r.Paused)
	s.caughtUp(18, "pipeline/p/into", "pipeline/p/other")
	r = s.one("p", func(r Report) bool { return r.State == Running && r.Sinks[0].Lag == 0 && r.Sinks[1].Lag == 0 })
	require.Equal(t, stream.Counts{Written: 16, Filtered: 2}, r.Sinks[0].Counts)
	require.Zero(t, r.Sinks[0].LagSeconds)
}

// A sink that hangs makes a pause wait, and nobody who only looks.
func TestReportsDoNotWaitForASinkThatHangs(t *testing.T) {
	s := newStand(t, "a", "b")
	hang, hangs := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(goOn) // before the stand stops, which waits for the sink
	s.stores["a"].fail = func(call string, n int) error {
		if call == "write" && n == 1 {
			close(hangs)
			<-hang
		}
		return nil
	}
	s.file("p.yaml", twoSinks)
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	<-hangs
	s.one("p", func(Report) bool { return true }) // its sinks start before it is listed
	paused := make(chan error, 1)
	go func() { paused <- s.set.Pause("p", true) }()
	r := s.one("p", func(r Report) bool { return r.Paused })
	require.EqualValues(t, 6, r.Sinks[0].Lag)
	require.NotEmpty(t, s.set.Status())
	select {
	case err := <-paused:
		t.Fatal("it has not waited", err)
	default:
	}
	goOn()
	require.NoError(t, <-paused)
	require.Empty(t, s.set.Status())
}

// Whatever fails when a pause is written: no answer says more than what is on disk.
func TestPauseThatCannotBeKept(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpClose, vfs.OpRename, vfs.OpSyncDir} {
		t.Run(op.String(), func(t *testing.T) {
			s := newStand(t, "a", "b")
			s.file("p.yaml", twoSinks)
			s.start()
			appendEvents(t, s.log, "events", 1, 6)
			s.caughtUp(6, "pipeline/p/into", "pipeline/p/other")
			pattern := "p.json.new"
			if op == vfs.OpSyncDir {
				pattern = "pipelines"
			}
			s.fs.Inject(vfs.Rule{Ops: op, Pattern: pattern, Times: 1})
			require.Equal(t, http.StatusServiceUnavailable, s.ask("POST", Path+"/p/pause", nil))
			r := s.one("p", func(Report) bool { return true })
			require.False(t, r.Paused)
			require.Equal(t, http.StatusOK, s.ask("POST", Path+"/p/resume", &r))
			s.kill()
			s.fs = s.fs.CrashClone(1)
			s.start()
			s.one("p", func(r Report) bool { return !r.Paused && r.State == Running })
			appendEvents(t, s.log, "events", 7, 6)
			s.caughtUp(12, "pipeline/p/into", "pipeline/p/other")

			require.Equal(t, http.StatusOK, s.ask("POST", Path+"/p/pause", &r))
			s.kill()
			s.fs = s.fs.CrashClone(2)
			s.start()
			s.one("p", func(r Report) bool { return r.Paused })
		})
	}
}

func TestReportsOfWhatFails(t *testing.T) {
	s := newStand(t, "a", "b")
	s.stores["a"].fail = func(call string, _ int) error {
		if call == "open" {
			return errors.New("nobody there")
		}
		return nil
	}
	s.file("p.yaml", twoSinks)
	s.file("q.yaml", "steps: [{sql: wrong}]\nto: [{into: c}]\n")
	s.start()
	appendEvents(t, s.log, "events", 1, 6)
	s.caughtUp(6, "pipeline/p/other")
	r := s.one("p", func(r Report) bool { return r.State == Failing && r.Sinks[0].Errors > 1 })
	require.Contains(t, r.Sinks[0].LastError, "nobody there")
	require.Equal(t, Running, r.Sinks[1].State)
	require.Zero(t, r.Sinks[1].Lag)

	s.file("p.yaml", "steps: [{sql: wrong}]\nto: [{into: a}]\n")
	r = s.one("p", func(r Report) bool { return r.Broken != "" })
	s.file("r.yaml", "to: [{into: b}]\n") // the look at the folder is over when it runs
	s.caughtUp(6, "pipeline/r/into")
	r = s.one("p", func(r Report) bool { return r.Broken != "" })
	require.Len(t, r.Sinks, 2, "what was in force goes on")
	require.Zero(t, r.Sinks[1].Lag, "and keeps its place")
	var l List
	require.Equal(t, http.StatusOK, s.ask("GET", Path, &l))
	require.Len(t, l.Pipelines, 3)
	require.Equal(t, Broken, l.Pipelines[1].State)
	require.Contains(t, l.Pipelines[1].Broken, "q.yaml:1: this is wrong")

	for path, want := range map[string]int{
		"GET /x": 404, "GET /p/pause": 405, "POST /p": 405, "POST /p/paws": 404, "POST /q/pause": 409, "POST /x/pause": 404,
	} {
		method, rest, _ := strings.Cut(path, " ")
		require.Equal(t, want, s.ask(method, Path+rest, nil), path)
	}

	scrape := s.scrapes()
	text := scrape()
	for _, want := range []string{
		`naru_pipeline_up{pipeline="p",sink="into"} 0`, `naru_pipeline_up{pipeline="p",sink="other"} 1`,
		`naru_pipeline_lag_events{pipeline="p",sink="into"} 6`, `naru_pipeline_lag_seconds{pipeline="p",sink="other"} 0`,
		`naru_pipeline_events_total{pipeline="p",result="filtered",sink="other"} 2`, "naru_pipelines_broken 2",
	} {
		require.Contains(t, text, want)
	}

	// A sink that is well again says so, also when there is nothing to write.
	s.stores["a"].mu.Lock()
	s.stores["a"].fail = nil
	s.stores["a"].mu.Unlock()
	s.caughtUp(6, "pipeline/p/into")
	s.one("p", func(r Report) bool { return r.State == Running })
	s.file("p.yaml", twoSinks)
	assert.Eventually(t, func() bool { return strings.Contains(scrape(), "naru_pipelines_broken 1") }, soon, time.Millisecond)
}

// scrapes registers the pipelines, and gives what asks for their metrics.
func (s *stand) scrapes() func() string {
	reg := obs.NewRegistry()
	s.set.Register(reg)
	return func() string {
		w := httptest.NewRecorder()
		reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		text, err := io.ReadAll(w.Body)
		require.NoError(s.t, err)
		return string(text)
	}
}

// The counts of a sink begin anew with a rewind; its counters go on.
func TestCountersAfterARewind(t *testing.T) {
	s := newStand(t, "a")
	s.file("p.yaml", "to: [{into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 0, 5)
	s.caughtUp(5, "pipeline/p/into")
	middle := time.Now()
	pass(middle.Add(2 * time.Millisecond))
	appendEvents(t, s.log, "events", 5, 3)
	s.caughtUp(8, "pipeline/p/into")
	scrape := s.scrapes()
	has := func(written, filtered int) {
		t.Helper()
		text := scrape()
		require.Contains(t, text, fmt.Sprintf("naru_pipeline_events_total{pipeline=\"p\",result=\"written\",sink=\"into\"} %d\n", written))
		require.Contains(t, text, fmt.Sprintf("naru_pipeline_events_total{pipeline=\"p\",result=\"filtered\",sink=\"into\"} %d\n", filtered))
	}
	has(8, 0)
	_, err := s.rewind(definition.Start{At: middle.Add(time.Millisecond)}, "")
	require.NoError(t, err)
	s.caughtUp(8, "pipeline/p/into")
	require.Equal(t, stream.Counts{Written: 3, Filtered: 5}, s.progress("pipeline/p/into").Counts)
	has(8, 0)
	appendEvents(t, s.log, "events", 8, 2)
	s.caughtUp(10, "pipeline/p/into")
	has(10, 0)
}

// Scrapes at the same time do not count a step back that there was not.
func TestCountersOfTwoScrapes(t *testing.T) {
	s := newStand(t, "a")
	s.file("p.yaml", "to: [{into: a, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 0, 1)
	s.caughtUp(1, "pipeline/p/into")
	scrape := s.scrapes()
	done := make(chan struct{})
	var scrapes sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					scrape()
				}
			}
		})
	}
	for i := range 100 {
		appendEvents(t, s.log, "events", 1+i, 1)
		s.caughtUp(int64(2+i), "pipeline/p/into")
	}
	close(done)
	scrapes.Wait()
	require.Contains(t, scrape(), "naru_pipeline_events_total{pipeline=\"p\",result=\"written\",sink=\"into\"} 101\n")
}

// A backfill that goes on is in the report and in the metrics.
func TestBackfillIsShown(t *testing.T) {
	s := newStand(t)
	s.shelved()
	s.file("p.yaml", "steps: [{sql: as a}]\nto: [{tab: t, every: 2ms}]\n")
	s.start()
	appendEvents(t, s.log, "events", 0, 300) // at one a second
	s.caughtUp(300, "pipeline/p/tab")
	scrape := s.scrapes()
	require.NotContains(t, scrape(), "naru_pipeline_backfill_events{")
	_, err := s.backfill(Backfill{From: earliest, Into: "once", Rate: 1})
	require.NoError(t, err)
	r := s.one("p", func(r Report) bool { return len(r.Backfills) == 1 })
	require.Equal(t, "once", r.Backfills[0].Table)
	require.EqualValues(t, 300, r.Backfills[0].Of)
	text := scrape()
	require.Contains(t, text, `naru_pipeline_backfill_events{pipeline="p",sink="tab",state="read"} 0`)
	require.Contains(t, text, `naru_pipeline_backfill_events{pipeline="p",sink="tab",state="left"} 300`)
	require.NoError(t, s.set.CancelBackfill(t.Context(), "p", ""))
	s.over()
	require.NotContains(t, scrape(), "naru_pipeline_backfill_events{")
}
