package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// The newest rows as a dashboard asks for them.
var dashboard = []string{
	"select count(*) from page",
	"select context_browser, count(*) from page where _received_at > now() - interval 1 minute group by 1 order by 2 desc",
	"select path, count(*) n, avg(dur_ms) from page where _received_at > now() - interval 1 minute group by 1 order by 2 desc limit 10",
}

const (
	freshP50 = 300.0  // ms
	freshP99 = 1000.0 // ms
	freshMax = 250e6  // bytes of row 7
	// Memory is flat if the second half of a run takes at most so many times what the
	// first takes: as steep as 1.1 from the first tenth to the last, but neither the
	// warm-up nor one tenth decides. Shorter runs are all warm-up.
	flatWithin = 1.05
	flatFrom   = 10 * time.Minute
)

const freshMethod = "Open loop: request k of 500 events is due at k × 500 / rate, over 8 connections. Each answer names the offset of its last event and is noted with its time." +
	" Beside it a prober asks `select count(*), max(_offset) from page where _offset > (the last one seen)` every 50 to 150 ms, at random, and ends the run if an offset is" +
	" missing or doubled. Freshness of a batch: from its answer to the end of the first query that found it (`fresh`): it has the prober's pause and the query's own time in it, and all batches" +
	" acknowledged during a slow query count, so a pause hides nothing. `visible` ends at that query's beginning, `hidden` at the beginning of the last query that did not find it: the" +
	" truth about the server alone lies between the two. `look` is the query's time."

// rowFresh is row 6.
func rowFresh() *row {
	return &row{
		name:     "6",
		scenario: "freshness at 100 k events/s: acknowledged → seen by a query, commits every 5 s and every 60 s",
		target:   "p50 ≤ 0.3 s, p99 ≤ 1 s",
		method:   freshMethod + " At 60 s the load lasts longer than a commit interval.",
		take: func(b *bench) error {
			for _, interval := range []string{"5s", "60s"} {
				last := 20 * time.Second
				if b.full {
					last = time.Minute
				}
				if interval == "60s" {
					last = 75 * time.Second
					if b.full {
						last = 150 * time.Second
					}
				}
				if err := b.fresh100k("commit "+interval, commitEvery(interval), last, nil); err != nil {
					return err
				}
			}
			return nil
		},
		judge: func(all []measure) verdict {
			v := verdict{met: true, peer: "none beside it; Kafka Connect's Iceberg sink with 1 s commits took p50 1.0 s, p99 4.7 s", ratio: "-"}
			for _, kase := range cases(all) {
				m := median(of(all, "naru", kase))
				f := m.Figures
				v.ours += fmt.Sprintf("%s: p50 %.0f ms, p99 %.0f ms, max %.0f ms (query p50 %.0f ms, p99 %.0f ms) at %.0f k events/s, %s; ",
					kase, f["fresh_p50_ms"], f["fresh_p99_ms"], f["fresh_max_ms"], f["look_p50_ms"], f["look_p99_ms"], m.Rate/1e3, m.durability())
				v.met = v.met && f["fresh_p50_ms"] <= freshP50 && f["fresh_p99_ms"] <= freshP99
			}
			return v
		},
	}
}

// rowSteady is row 7.
func rowSteady() *row {
	return &row{
		name:     "7",
		scenario: "memory at 100 k events/s with a query every second",
		target:   "≤ 250 MB at any time, flat; p99 freshness ≤ 1 s; counts exact",
		method: "As row 6 with default settings; beside the prober a question every second, three of a dashboard in turn (all rows counted, which the manifests answer but for the hot tail; two groupings of the last minute)." +
			" RssAnon + RssShmem every 20 ms for the most and every second for the median of each tenth (the first five seconds left out)." +
			" Flat: the mean of the last five tenths is at most 1.05 times that of the first five." +
			" Then SQL must count what was acknowledged, the server is stopped, and `naru verify` must find as many rows and no difference.",
		take: func(b *bench) error {
			return b.fresh100k(b.steady.String(), "", b.steady, dashboard)
		},
		judge: func(all []measure) verdict {
			m := median(of(all, "naru", ""))
			f := m.Figures
			tenths, growth := memoryCurve(f)
			flat := growth <= flatWithin || m.Wall < flatFrom.Seconds()
			return verdict{
				met:   m.Memory <= freshMax && f["fresh_p99_ms"] <= freshP99 && flat,
				peer:  "none beside it; Kafka 0.7 GB + Connect 0.8 to 2.3 GB, RudderStack 231 MB + PostgreSQL",
				ratio: "-",
				ours: fmt.Sprintf("%s at %.0f k events/s: memory by tenths of the time %s MB (second half %.2f of the first), most %.0f MB; fresh p50 %.0f ms, p99 %.0f ms; questions p50 %.0f ms, p99 %.0f ms; %d events verified; %.2f µs CPU, %s",
					m.Case, m.Rate/1e3, tenths, growth, float64(m.Memory)/1e6, f["fresh_p50_ms"], f["fresh_p99_ms"],
					f["question_p50_ms"], f["question_p99_ms"], int64(f["verified_events"]), m.CPU, m.durability()),
			}
		},
	}
}

// memoryCurve gives the tenths of row 7 in words, and the second half of them in
// terms of the first.
func memoryCurve(figures map[string]float64) (tenths string, growth float64) {
	var halves [2]float64
	var list []string
	for i := range 10 {
		v := figures[fmt.Sprintf("memory_tenth_%02d_mb", i+1)]
		halves[i/5] += v
		list = append(list, fmt.Sprintf("%.0f", v))
	}
	return strings.Join(list, ", "), halves[1] / halves[0]
}

// fresh100k sends at a steady rate and measures freshness and memory; with
// questions it asks one each second, too.
func (b *bench) fresh100k(kase, config string, last time.Duration, questions []string) error {
	all, err := bodies(b.corpus, min(b.events, 200_000), batchSize)
	if err != nil {
		return err
	}
	s, err := b.startNaru(config)
	if err != nil {
		return err
	}
	m, err := b.steadyLoad(s, all, last, questions)
	m.Case = kase
	if err = errors.Join(err, s.stop()); err != nil {
		return err
	}
	written, took, err := b.verify(s.folder)
	if err != nil {
		return err
	}
	if written != m.Events {
		return fmt.Errorf("verify counts %d events, %d were acknowledged", written, m.Events)
	}
	m.Figures["verified_events"], m.Figures["verify_s"] = float64(written), took.Seconds()
	b.add(m)
	_, err = b.fresh("naru") // frees the disk
	return err
}

func (b *bench) steadyLoad(s *server, all [][]byte, last time.Duration, questions []string) (measure, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	origin := time.Now().Add(100 * time.Millisecond)
	probe := &prober{address: s.address, table: "page", origin: origin}
	questioner := &asker{address: s.address, questions: questions, waits: map[string][]time.Duration{}}
	var memory []int64
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- probe.run(ctx) })
	if len(questions) > 0 {
		wg.Go(func() { errs <- questioner.run(ctx) })
	}
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				memory = append(memory, s.memory())
			}
		}
	})
	var p paced
	m, err := counted("naru", s.process, s.syncs, func() (outcome, error) {
		var err error
		p, err = openLoop(s.to("page", ndjson), all, batchSize, batchConnections, b.rate, last, origin)
		return p.outcome, err
	})
	if err == nil { // the last batches become visible: the prober goes on
		err = waitRows(s.address, "page", p.Events)
		time.Sleep(2 * lookEvery)
	}
	cancel()
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return m, err
	}
	f, err := freshness(p.acks, probe.looks)
	if err != nil {
		return m, err
	}
	if f.unseen > 0 {
		return m, fmt.Errorf("%d batches were counted, but the prober did not see them", f.unseen)
	}
	m.Figures = map[string]float64{"looks_refused": float64(probe.busy), "behind_schedule_max_ms": ms(p.behind.max)}
	spreadOf(f.answered).put(m.Figures, "fresh")
	spreadOf(f.visible).put(m.Figures, "visible")
	spreadOf(f.hidden).put(m.Figures, "hidden")
	spreadOf(probe.waits).put(m.Figures, "look")
	for i, tenth := range tenths(memory, 5) {
		m.Figures[fmt.Sprintf("memory_tenth_%02d_mb", i+1)] = float64(tenth) / 1e6
	}
	if len(questions) > 0 {
		spreadOf(questioner.all()).put(m.Figures, "question")
		m.Figures["questions"], m.Figures["questions_refused"] = float64(len(questioner.all())), float64(questioner.busy)
	}
	return m, nil
}
