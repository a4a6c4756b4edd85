package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Sizes of the log that the soak runs with, so that retention drops segments.
const (
	segmentBytes = 64 << 20
	retainBytes  = 2 << 30
	recycleBytes = 256 << 20
)

// config is naru.yaml of the server under test: defaults, but for retention by bytes, and
// for files that no snapshot needs, which go after a minute so that one taken
// for garbage by mistake would be missed.
var config = fmt.Sprintf(`log:
  segment: %dMiB
  retain_bytes: %dMiB
  recycle: %dMiB
lake:
  gc_delay: 1m
`, segmentBytes>>20, retainBytes>>20, recycleBytes>>20)

// settings of a run.
type settings struct {
	Naru        string        `json:"-"`
	Dir         string        `json:"-"` // everything of this run is in it
	Seed        uint64        `json:"seed"`
	Duration    time.Duration `json:"duration_ns"`
	Calm        time.Duration `json:"calm_ns"`
	Every       time.Duration `json:"every_ns"`
	Rate        float64       `json:"rate"`
	Connections int           `json:"connections"`
	Batch       int           `json:"batch"`
	config      string        // naru.yaml
}

// warm is the age in seconds from which on a life is judged: by then it has
// committed, answered, and filled what it keeps in memory.
const warm = 15

// death is one SIGKILL.
type death struct {
	Life     int     `json:"life"`
	At       float64 `json:"at"`
	Requests int     `json:"requests_in_flight"`
	Rows     int64   `json:"rows_not_committed"` // acknowledged, in no snapshot
	Ready    float64 `json:"ready_again_after_seconds"`
}

// soak is one run.
type soak struct {
	settings
	found   findings
	load    *load
	asker   *asker
	sampler *sampler
	rng     *rand.Rand
	began   time.Time
	mu      sync.Mutex // of deaths
	deaths  []death
	say     func(format string, args ...any)

	// What the end found out.
	tables   []listed
	files    int
	verdicts []verdict
	report   *report
	proof    *proof
	verified string
	checking time.Duration
	loaded   time.Duration
}

func newSoak(set settings, say func(string, ...any)) *soak {
	s := &soak{settings: set, say: say, began: time.Now(), rng: rand.New(rand.NewPCG(set.Seed, 0))}
	s.found.seen = func(what string) { say("VIOLATION: %s", what) }
	s.load = newLoad(set.Seed, set.Connections, set.Rate, set.Batch, &s.found)
	s.asker = newAsker(set.Seed, s.load.accounts(), &s.found)
	s.sampler = &sampler{dir: s.project(), began: s.began, rng: rand.New(rand.NewPCG(set.Seed, 7777)), load: s.load, found: &s.found}
	return s
}

func (s *soak) project() string { return filepath.Join(s.Dir, "project") }

// run does all of it. An error means that the run could not go on; violations
// are in found.
func (s *soak) run(ctx context.Context) error {
	if err := os.Mkdir(s.project(), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.project(), "naru.yaml"), []byte(s.config), 0o644); err != nil {
		return err
	}
	last, err := s.lives(ctx)
	if err != nil {
		return err
	}
	s.loaded = time.Since(s.began)
	defer last.kill() // harmless when it has ended
	if err := s.end(ctx, last); err != nil {
		return err
	}
	s.judge()
	return nil
}

// lives starts the server again and again. The load of the last life has ended
// when it returns, and its server runs.
func (s *soak) lives(ctx context.Context) (*server, error) {
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() { s.tell(ctx) })
	defer telling.Wait()
	defer cancel()
	end := s.began.Add(s.Duration)
	for life := 1; ; life++ {
		srv, err := start(s.Naru, s.project(), life)
		if err != nil {
			return nil, err
		}
		s.reborn(life, srv.ready.Sub(srv.began))
		// Once in every period, at a random moment of its middle: lives are long
		// enough to be compared at the same age.
		period := s.began.Add(time.Duration(life-1) * s.Every)
		strike := period.Add(s.Every/6 + time.Duration(s.rng.Int64N(int64(s.Every*2/3)+1)))
		calm := !strike.Before(end)
		if calm {
			strike = end.Add(s.Calm)
		}
		// DuckDB takes memory for every data file that a question reads, up to
		// query.memory, and keeps some. So that the memory of everything else can be
		// judged, every second life is asked nothing, nor is the last one.
		srv.asked = life == 1 || life%2 == 1 && !calm
		over := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { s.load.run(srv, over) })
		if srv.asked {
			wg.Go(func() { s.asker.run(srv, over) })
		}
		wg.Go(func() { s.sampler.run(srv, over) })
		rest := time.NewTimer(time.Until(strike))
		select {
		case <-rest.C:
		case <-srv.done:
			err = fmt.Errorf("the server ended by itself in life %d: %v\n%s", life, srv.cmd.ProcessState, srv.lastLines())
		case <-ctx.Done():
			err = ctx.Err()
		}
		rest.Stop()
		if err == nil && life == 1 {
			s.answered(srv)
		}
		if err == nil && calm {
			close(over)
			wg.Wait()
			return srv, nil
		}
		inFlight := s.load.inFlight()
		srv.kill()
		close(over)
		wg.Wait()
		if err != nil {
			return nil, err
		}
		if err := s.struck(life, inFlight); err != nil {
			return nil, err
		}
	}
}

// answered waits until at least one question of the run has an answer: without
// it a run says less than it should.
func (s *soak) answered(srv *server) {
	deadline := time.After(time.Minute)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for s.asker.waits.count() == 0 {
		select {
		case <-poll.C:
		case <-srv.done:
			return
		case <-deadline:
			return
		}
	}
}

// struck notes what a kill hit.
func (s *soak) struck(life, inFlight int) error {
	tables, err := readCatalog(s.project())
	if err != nil {
		return err
	}
	committed := int64(0)
	for _, t := range tables {
		committed += t.rows
	}
	t := count(s.load.accounts())
	d := death{Life: life, At: time.Since(s.began).Seconds(), Requests: inFlight, Rows: -committed}
	for i := range streams {
		d.Rows += t.good[i] + t.bad[i]
	}
	d.Rows = max(d.Rows, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaths = append(s.deaths, d)
	s.say("kill %d after %.0f s: %d requests in flight, %d acknowledged rows in no snapshot", life, d.At, d.Requests, d.Rows)
	return nil
}

func (s *soak) reborn(life int, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.deaths) > 0 {
		s.deaths[len(s.deaths)-1].Ready = after.Seconds()
	}
	s.say("life %d: ready after %.2f s", life, after.Seconds())
}

// end waits until all is written, stops the server, and proves.
func (s *soak) end(ctx context.Context, srv *server) error {
	s.say("load ended; waiting until all is written")
	if err := srv.drain(ctx); err != nil {
		return err
	}
	before, err := s.status(srv)
	if err != nil {
		return err
	}
	if err := srv.stop(); err != nil {
		s.found.add("%v", err)
	}
	// Nothing may change when it starts once more and reads what it left.
	again, err := start(s.Naru, s.project(), srv.life+1)
	if err != nil {
		return err
	}
	defer again.kill()
	if err := again.drain(ctx); err != nil {
		return err
	}
	if s.report, err = s.status(again); err != nil {
		return err
	}
	if was, is := fmt.Sprint(before.Streams), fmt.Sprint(s.report.Streams); was != is {
		s.found.add("status after a clean stop and a start: %s, was %s", is, was)
	}
	if err := again.stop(); err != nil {
		s.found.add("%v", err)
	}
	s.say("stopped; reading every row")
	return s.check(ctx)
}

// check proves offline.
func (s *soak) check(ctx context.Context) error {
	began := time.Now()
	tables, err := readCatalog(s.project())
	if err != nil {
		return err
	}
	for _, t := range tables {
		list, err := t.files()
		if err != nil {
			return err
		}
		s.tables = append(s.tables, listed{t, list})
		s.files += len(list)
	}
	if s.proof, err = prove(ctx, s.load.accounts(), s.tables, s.report, &s.found); err != nil {
		return err
	}
	s.checking = time.Since(began)
	s.say("read %d files in %v", s.files, s.checking.Round(time.Second))
	return s.verify()
}

// verify lets naru prove it from its own side.
func (s *soak) verify() error {
	began := time.Now()
	help, _, _, err := command(s.Naru, "help")
	if err != nil {
		return err
	}
	if !strings.Contains(help, "\n  verify ") {
		s.verified = "not run: this naru has no such command"
		s.say("naru verify --deep: %s", s.verified)
		return nil
	}
	stdout, stderr, code, err := command(s.Naru, "verify", "--deep", s.project())
	switch {
	case err != nil:
		return err
	case code != 0:
		s.verified = fmt.Sprintf("exit %d", code)
		s.found.add("naru verify --deep: exit %d\n%.4000s%.4000s", code, stderr, stdout)
	default:
		s.verified = fmt.Sprintf("clean, in %v", time.Since(began).Round(time.Second))
	}
	s.say("naru verify --deep: %s", s.verified)
	return nil
}

// status is what `naru status --json` says.
func (s *soak) status(srv *server) (*report, error) {
	stdout, stderr, code, err := command(s.Naru, "status", "--json", "--url", "http://"+srv.address)
	if err != nil {
		return nil, err
	}
	if code != 0 {
		s.found.add("naru status: exit %d: %s", code, stderr)
	}
	return parseReport([]byte(stdout))
}

// judge says whether what must not grow has grown.
func (s *soak) judge() {
	samples := s.sampler.samples()
	every := s.Every.Seconds()
	s.verdicts = acrossLives(samples, max(every/3, warm), every*2/3)
	var starts []point
	for _, d := range s.deaths {
		starts = append(starts, point{d.At, d.Ready})
	}
	s.verdicts = append(s.verdicts, flat("time until ready, s", starts, 5))
	s.verdicts = append(s.verdicts, metadataSize(samples))
	if s.Calm > 0 && len(samples) > 0 {
		s.verdicts = append(s.verdicts, withinLife(samples, samples[len(samples)-1].Life, max(s.Calm.Seconds()/4, warm))...)
	}
	for _, v := range s.verdicts {
		if v.Judged && !v.Flat {
			s.found.add("%v", v)
		}
	}
	checkLog(samples, &s.found)
	if t := count(s.load.accounts()); t.requests[acked] == 0 {
		s.found.add("no request was acknowledged")
	}
	if s.asker.asked == 0 {
		s.found.add("no question was answered")
	}
}

// checkLog holds that retention works: once there is more than it keeps, the
// log stays within it, give or take segments that are being written or kept
// to be written again.
func checkLog(samples []sample, found *findings) {
	const most = retainBytes + recycleBytes + 4*segmentBytes
	for _, s := range samples {
		if s.Log > most {
			found.add("the log has %d MiB after %.0f s, retention is to keep it at %d MiB", s.Log>>20, s.At, int64(most)>>20)
			return
		}
	}
}

// checkRate holds that the load was what it is called: a run that had to leave
// events out says nothing about the rate it was meant for.
func checkRate(sent, skipped int64, found *findings) {
	if skipped*100 > sent+skipped {
		found.add("the rate was not reached: %d events acknowledged and %d left out, because the schedule was more than %v behind; is the machine busy with something else?",
			sent, skipped, backlog)
	}
}

// tell prints a line every ten seconds.
func (s *soak) tell(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	was, at := int64(0), s.began
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.load.sent.Load()
		rate := float64(now-was) / time.Since(at).Seconds()
		was, at = now, time.Now()
		var l sample
		if all := s.sampler.samples(); len(all) > 0 {
			l = all[len(all)-1]
		}
		s.say("%6.0fs life %d: %6.0f events/s, %d acknowledged, p50 %v p99 %v max %v; anon %d MiB, %d goroutines, %d fds; lag %.1fs, log %d MiB, lake %d MiB in %d files, metadata %d MiB; %d questions",
			time.Since(s.began).Seconds(), l.Life, rate, now, round(s.load.waits.quantile(0.5)), round(s.load.waits.quantile(0.99)), round(s.load.waits.max()),
			l.Anon>>20, l.Goroutines, l.Descriptors, l.Lag, l.Log>>20, l.Lake>>20, l.LakeFiles, l.Metadata>>20, s.asker.waits.count())
	}
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// errViolated: the run ended, and found something.
var errViolated = errors.New("violations were found")
