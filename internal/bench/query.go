package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"naru/internal/bench/load"
	"naru/internal/client"
)

// questions are what is asked of the rows just loaded, from nearly nothing to
// do to a group for every user.
var questions = []Query{
	{Name: "count", SQL: "select count(_offset) from " + measured},
	{Name: "group by", SQL: "select context_country, count(*), avg(dur_ms) from " + measured + " group by context_country order by 2 desc"},
	{Name: "top users", SQL: "select anon_id, count(*) from " + measured + " group by anon_id order by 2 desc, 1 limit 10"},
}

// fewestRuns of a question are made however long they take, after one that does
// not count.
const fewestRuns = 3

// queries asks each question for its share of the time.
func (b *bench) queries(ctx context.Context, s *server) error {
	for _, q := range questions {
		var took []time.Duration
		began := time.Now()
		for run := 0; run <= fewestRuns || time.Since(began) < b.part(queryPart)/time.Duration(len(questions)); run++ {
			t := time.Now()
			rows, err := s.ask(ctx, q.SQL)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				return fmt.Errorf("ask %q: no rows", q.SQL)
			}
			if run > 0 {
				took = append(took, time.Since(t))
			}
		}
		slices.Sort(took)
		q.Rows, q.Runs, q.P50, q.Max = b.report.Load.Events, len(took), ms(load.Quantile(took, .5)), ms(took[len(took)-1])
		b.report.Queries = append(b.report.Queries, q)
	}
	return nil
}

// ask gives the rows of an answer.
func (s *server) ask(ctx context.Context, sql string) ([][]any, error) {
	body, err := s.Query(ctx, sql, "application/json")
	if err != nil {
		return nil, fmt.Errorf("ask %q: %w", sql, err)
	}
	defer body.Close()
	var answer struct{ Rows [][]any }
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask %q: %w", sql, err)
	}
	return answer.Rows, nil
}

const (
	// freshRequests a second are sent; how many events each has depends on the rate.
	freshRequests = 20
	// freshRate is the rate in events a second, where a tenth of what the machine
	// can load is not less.
	freshRate = 10_000
	// askEvery is the pause between two questions: the figures are that coarse.
	askEvery = 10 * time.Millisecond
	// seenWithin is how long after the last commit's time all must have been seen.
	seenWithin = 30 * time.Second
)

// sightings are when requests were acknowledged and when a query first saw them.
type sightings struct {
	mu    sync.Mutex
	acked []time.Time // by request; zero: not yet
	waits []time.Duration
	seen  int // requests that were seen: all up to this one
}

func (s *sightings) ack(i int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[i] = at
}

// saw notes that an answer at that time had the requests up to last in it. One
// that was seen before its own answer has come did not wait at all.
func (s *sightings) saw(last int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.seen <= last && s.seen < len(s.acked); s.seen++ {
		wait := time.Duration(0)
		if a := s.acked[s.seen]; !a.IsZero() {
			wait = max(at.Sub(a), 0)
		}
		s.waits = append(s.waits, wait)
	}
}

func (s *sightings) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked) - s.seen
}

// freshness sends events at a steady rate to a server with the folder's own
// settings, and asks all the while for the newest.
func (b *bench) freshness(ctx context.Context, s *server) error {
	if _, err := s.ask(ctx, questions[0].SQL); err != nil { // so that the first question that counts is not the server's first
		return err
	}
	perRequest := int(max(min(freshRate, b.report.Load.Rate/10)/freshRequests, 1))
	requests := max(int(b.part(freshnessPart).Seconds()*freshRequests), fewestSyncs)
	interval := b.Settings.Pipelines.CommitInterval
	seen := &sightings{acked: make([]time.Time, requests)}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, b.part(freshnessPart)+interval.Std()+seenWithin,
		fmt.Errorf("events were not seen by a query within %s of their acknowledgement", interval.Std()+seenWithin))
	defer cancel()
	var both sync.WaitGroup
	for _, work := range []func() error{
		func() error { return b.drip(ctx, s, seen, perRequest) },
		func() error { return s.lookFor(ctx, seen) },
	} {
		both.Go(func() {
			if err := work(); err != nil {
				stop(err) // the first error is the reason, the other's only follows
			}
		})
	}
	both.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	waits := seen.waits
	slices.Sort(waits)
	b.report.Freshness = Freshness{
		Rate: float64(perRequest * freshRequests), Requests: int64(requests), Events: int64(requests * perRequest), CommitInterval: interval,
		P50: ms(load.Quantile(waits, .5)), P99: ms(load.Quantile(waits, .99)), Max: ms(waits[len(waits)-1]),
	}
	return nil
}

// drip sends one request after the other at a steady pace. The events of a
// request carry its number.
func (b *bench) drip(ctx context.Context, s *server, seen *sightings, perRequest int) error {
	to := load.Target{Address: s.address, Path: "/v1/events?type=" + fresh, ContentType: "application/x-ndjson"}
	c, err := load.Dial(ctx, to.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	pace := time.NewTicker(time.Second / freshRequests)
	defer pace.Stop()
	next := 0
	for i := range seen.acked {
		var body []byte
		for range perRequest {
			body = fmt.Appendf(body, `{"seq":%d,%s`+"\n", i, b.lines[next][1:])
			next = (next + 1) % len(b.lines)
		}
		if err := c.Do(to.Render(body)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		seen.ack(i, time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pace.C:
		}
	}
	return nil
}

// lookFor asks for the newest request until the last one has been seen.
func (s *server) lookFor(ctx context.Context, seen *sightings) error {
	const sql = "select max(seq) from " + fresh
	pause := time.NewTicker(askEvery)
	defer pause.Stop()
	for seen.left() > 0 {
		rows, err := s.ask(ctx, sql)
		var p *client.Problem
		switch {
		case errors.As(err, &p) && p.Status == 400: // there is no such table yet
		case err != nil:
			return err
		case len(rows) == 1 && len(rows[0]) == 1:
			if last, ok := rows[0][0].(float64); ok {
				seen.saw(int(last), time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
	}
	return nil
}
