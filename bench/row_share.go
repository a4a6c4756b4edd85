package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	shareSlowdown = 0.8 // of the rate without queries
	shareRounds   = 3   // of either kind
)

// Questions of the row about sharing: a table that does not change, so that its
// answer costs the same with ingest and without, and the one that grows.
var (
	still   = "select context_os, date_trunc('hour', _time) h, count(*), avg(dur_ms) from history group by 1, 2 order by 1, 2"
	growing = "select count(*), max(_offset) from "
)

// rowShare is the figure about queries and ingest together.
func rowShare() *row {
	return &row{
		name:     "share",
		scenario: "ingest at full speed (as row 3) with a query every second and without; the same query with ingest and without",
		target:   "≥ 0.8 × the rate without queries, no query refused",
		method: "One server. A table of the whole corpus is loaded first; the question about it (a grouping over all its rows) is asked once a second with nothing else going on. Then rounds" +
			" in turn: the corpus sent several times as in row 3, until all of it is committed, without questions and with one question a second, alternately that one and a count of the table being" +
			" filled. The rates are medians.",
		take: func(b *bench) error {
			s, err := b.startNaru(commitEvery("1s"))
			if err != nil {
				return err
			}
			return errors.Join(b.share(s), s.remove())
		},
		judge: func(all []measure) verdict {
			alone, asked := median(of(all, "naru", "ingest alone")), median(of(all, "naru", "ingest with queries"))
			quiet, f := median(of(all, "naru", "queries alone")).Figures, median(of(all, "naru", "queries with ingest")).Figures
			ratio := asked.Rate / alone.Rate
			return verdict{
				met: ratio >= shareSlowdown && f["refused"] == 0, peer: "itself",
				ratio: fmt.Sprintf("%.2f × events/s, %.1f × query time", ratio, f["still_p50_ms"]/quiet["still_p50_ms"]),
				ours: fmt.Sprintf("%.0f k events/s with queries, %.0f k without; query p50 %.0f ms, max %.0f ms with ingest, p50 %.0f ms, max %.0f ms without; count of the growing table p50 %.0f ms; %.0f refused",
					asked.Rate/1e3, alone.Rate/1e3, f["still_p50_ms"], f["still_max_ms"], quiet["still_p50_ms"], quiet["still_max_ms"], f["growing_p50_ms"], f["refused"]),
			}
		},
	}
}

func (b *bench) share(s *server) error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	sent := int64(0) // all events so far
	load := func(table string, rounds int) (outcome, error) {
		began := time.Now()
		o, err := closedLoop(s.to(table, ndjson), all, batchSize, batchConnections, rounds, 0)
		if err == nil {
			sent += o.Events
			err = s.committed(table, o.Events, sent)
		}
		o.Wall = time.Since(began)
		return o, err
	}
	if _, err := load("history", max(1, b.whole/b.events)); err != nil {
		return err
	}
	if err := b.quiet(s); err != nil {
		return err
	}
	beside := &asker{address: s.address, waits: map[string][]time.Duration{}}
	for round := range 2 * shareRounds {
		kase, table := "ingest alone", fmt.Sprintf("alone_%d", round)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		if round%2 == 1 {
			kase, table = "ingest with queries", fmt.Sprintf("asked_%d", round)
			beside.questions = []string{still, growing + table}
			go func() { ended <- beside.run(ctx) }()
		} else {
			ended <- nil
		}
		m, err := counted("naru", s.process, s.syncs, func() (outcome, error) { return load(table, b.shareRounds*b.whole/b.events) })
		cancel()
		if err = errors.Join(err, <-ended); err != nil {
			return err
		}
		m.Case = kase
		b.add(m)
	}
	var counts []time.Duration
	for question, waits := range beside.waits {
		if question != still {
			counts = append(counts, waits...)
		}
	}
	m := measure{System: "naru", Case: "queries with ingest", Syncs: -1, Figures: map[string]float64{"refused": float64(beside.busy)}}
	spreadOf(beside.waits[still]).put(m.Figures, "still")
	spreadOf(counts).put(m.Figures, "growing")
	b.add(m)
	return nil
}

// quiet asks the question about the table that does not change, with nothing else
// going on.
func (b *bench) quiet(s *server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*b.last)
	defer cancel()
	a := &asker{address: s.address, questions: []string{still}, waits: map[string][]time.Duration{}}
	if err := a.run(ctx); err != nil {
		return err
	}
	m := measure{System: "naru", Case: "queries alone", Syncs: -1, Figures: map[string]float64{"refused": float64(a.busy)}}
	spreadOf(a.waits[still]).put(m.Figures, "still")
	b.add(m)
	return nil
}
