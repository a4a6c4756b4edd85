package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What row 12 asks.
const (
	morePipelines = 200
	pipelineMax   = 5.0  // MB for each
	idleMax       = 0.02 // of a core, of all
	reachMax      = 2.0  // seconds
	stepShare     = 0.6  // of the rate without a step
)

const (
	settling = 10 * time.Second // behind the last event, until it counts as idle
	idling   = 30 * time.Second // measured
	burst    = 20_000           // events at once that all pipelines read
)

const (
	manyCase     = "200 pipelines"
	straightCase = "straight"
	stepCase     = "one SQL step"
)

// rowPipelines is row 12.
func rowPipelines() *row {
	return &row{
		name:     "12",
		scenario: "further pipelines in the same server; a SQL step on the way to a table",
		target:   fmt.Sprintf("≤ %.0f MB each, idle CPU < %.0f %% of a core in all, one event in all within %.0f s; rate through one step ≥ %.0f %% of the straight path", pipelineMax, 100*idleMax, reachMax, 100*stepShare),
		method: "(a) A server with one event and no pipeline; then 200 files are put into its folder, each with a SQL step and a file sink (`every: 500ms`, `roll: {every: 500ms}`). Memory (RssAnon + RssShmem) before, and when all have done the event, the difference by 200;" +
			" ten seconds without any event, then the CPU of thirty more; then one event is sent, and the time runs until 200 files have it; then 20,000 events at once, and the most memory until 200 files have the last of them, again by 200." +
			" (b) The corpus waits in the log (`serve --no-pipelines`), commits are made every 200 ms. Straight: a start loads it by the default pipeline; from ready until all is committed. One SQL step: as much again by a pipeline `SELECT * REPLACE (dur_ms + 1 AS dur_ms) FROM input` to a table, with everything loaded by the default pipeline before. The two in turn, several times; medians. CPU is the server's from start to end.",
		take: func(b *bench) error {
			if err := b.manyPipelines(); err != nil {
				return err
			}
			for range b.runs {
				if err := b.throughStep(); err != nil {
					return err
				}
			}
			return nil
		},
		judge: func(all []measure) verdict {
			f := median(of(all, "naru", manyCase)).Figures
			straight, step := median(of(all, "naru", straightCase)), median(of(all, "naru", stepCase))
			share := step.Rate / straight.Rate
			return verdict{
				met: f["each_mb"] <= pipelineMax && f["idle_cores"] < idleMax && f["reach_s"] <= reachMax && share >= stepShare,
				ours: fmt.Sprintf("%.2f MB each (%.2f at most while all read 20,000 events in %.0f s), idle %.2f %% of a core, all within %.2f s; straight %.0f k events/s, %.2f µs; one step %.0f k events/s, %.2f µs (%.0f %%)",
					f["each_mb"], f["burst_mb"], f["burst_s"], 100*f["idle_cores"], f["reach_s"], straight.Rate/1e3, straight.CPU, step.Rate/1e3, step.CPU, 100*share),
				peer: "none beside it; a Spark application 6 GB", ratio: "-",
			}
		},
	}
}

// pipeline writes pipelines/NAME.yaml into a server's folder, whole at once.
func (s *server) pipeline(name, text string) error {
	dir := filepath.Join(s.folder, "pipelines")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh := filepath.Join(dir, "."+name)
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(dir, name+".yaml"))
}

func (b *bench) manyPipelines() (err error) {
	s, err := b.startNaru("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	tap := func(n int) error {
		_, err := closedLoop(s.to("tap", ndjson), [][]byte{fmt.Appendf(nil, `{"n":%d,"k":"v"}`+"\n", n)}, 1, 1, 1, 0)
		return err
	}
	if err := tap(1); err != nil {
		return err
	}
	if err := waitRows(s.address, "tap", 1); err != nil {
		return err
	}
	before := s.memory()
	for i := range morePipelines {
		err := s.pipeline(fmt.Sprintf("p%d", i), fmt.Sprintf(`
steps:
  - sql: SELECT _id, n, k, n + %d AS m FROM input WHERE n > 0
to:
  - file: {dir: out/%d, format: ndjson, roll: {every: 500ms}}
    every: 500ms
`, i, i))
		if err != nil {
			return err
		}
	}
	if _, err := s.reached(`"n":1,`); err != nil {
		return err
	}
	m := measure{System: "naru", Case: manyCase, Syncs: -1, Events: 2, Figures: map[string]float64{}}
	m.Figures["each_mb"] = float64(s.memory()-before) / 1e6 / morePipelines
	time.Sleep(settling)
	used := s.cpu()
	time.Sleep(idling)
	m.Figures["idle_cores"] = (s.cpu() - used).Seconds() / idling.Seconds()
	began := time.Now()
	if err := tap(2); err != nil {
		return err
	}
	at, err := s.reached(`"n":2,`)
	if err != nil {
		return err
	}
	m.Figures["reach_s"] = at.Sub(began).Seconds()
	if err := s.burst(); err != nil {
		return err
	}
	s.most.Store(0)
	began = time.Now()
	if at, err = s.reached(fmt.Sprintf(`"n":%d,`, burst+2)); err != nil {
		return err
	}
	m.Memory = s.most.Load()
	m.Figures["burst_s"], m.Figures["burst_mb"] = at.Sub(began).Seconds(), float64(m.Memory-before)/1e6/morePipelines
	b.add(m)
	return nil
}

// burst sends the further events in bodies of the usual size, one behind the other.
func (s *server) burst() error {
	var bodies [][]byte
	for n := 3; n < burst+3; {
		var body []byte
		for range batchSize {
			body = fmt.Appendf(body, `{"n":%d,"k":"v"}`+"\n", n)
			n++
		}
		bodies = append(bodies, body)
	}
	_, err := closedLoop(s.to("tap", ndjson), bodies, batchSize, 1, 1, 0)
	return err
}

// reached waits until the newest files of all pipelines have a text.
func (s *server) reached(what string) (time.Time, error) {
	done := map[int]bool{}
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		for i := range morePipelines {
			if done[i] {
				continue
			}
			files, _ := filepath.Glob(filepath.Join(s.folder, "out", fmt.Sprint(i), "*.ndjson"))
			if len(files) == 0 {
				continue
			}
			text, err := os.ReadFile(files[len(files)-1]) // names go up with offsets
			done[i] = err == nil && strings.Contains(string(text), what)
		}
		if len(done) == morePipelines && !has(done, false) {
			return time.Now(), nil
		}
	}
	return time.Time{}, fmt.Errorf("only %d of %d pipelines have %s", len(done), morePipelines, what)
}

func has(all map[int]bool, what bool) bool {
	for _, one := range all {
		if one == what {
			return true
		}
	}
	return false
}

// passes waits until a reader has written so many events.
func (s *server) passes(reader string, n int64) error {
	for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(20 * time.Millisecond) {
		got, _, err := s.metric("naru_stream_events_total", `fate="written"`, fmt.Sprintf("pipeline=%q", reader))
		if err != nil || got >= n {
			return err
		}
	}
	return fmt.Errorf("%s has not written %d events within 10 minutes", reader, n)
}

// throughStep measures the rate of the default pipeline, and then that of one
// with a SQL step, over the same log.
func (b *bench) throughStep() error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startNaru(commitEvery("200ms"), "--no-pipelines")
	if err != nil {
		return err
	}
	folder := s.folder
	defer func() { _, _ = b.fresh("naru") }()
	if _, err := closedLoop(s.to("page", ndjson), all, batchSize, batchConnections, 1, 0); err != nil {
		return errors.Join(err, s.stop())
	}
	if err := s.stop(); err != nil {
		return err
	}
	for _, kase := range []string{straightCase, stepCase} {
		reader := "default/events"
		if kase == stepCase {
			reader = "pipeline/bench/table"
			if err := s.pipeline("bench", "steps:\n  - sql: SELECT * REPLACE (dur_ms + 1 AS dur_ms) FROM input\nto:\n  - table: stepped\n"); err != nil {
				return err
			}
		}
		if s, err = b.resume(folder); err != nil {
			return err
		}
		began := time.Now()
		if err := s.passes(reader, int64(b.events)); err != nil {
			return errors.Join(err, s.stop())
		}
		wall := time.Since(began).Seconds()
		b.add(measure{System: "naru", Case: kase, Events: int64(b.events), Rate: float64(b.events) / wall, Wall: wall,
			CPU: s.cpu().Seconds() * 1e6 / float64(b.events), Memory: s.memory(), Syncs: -1})
		if err := s.stop(); err != nil {
			return err
		}
	}
	return nil
}
