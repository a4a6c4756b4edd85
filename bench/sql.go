package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Errors of a question that are answers, too.
var (
	errBusy    = errors.New("the server asks to come back later")
	errNoTable = errors.New("no such table")
)

// asking is the client of all questions: few of them, on connections that stay.
var asking = &http.Client{Timeout: 2 * time.Minute}

// ask puts a question in SQL and returns the rows.
func ask(ctx context.Context, address, sql string) ([][]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/sql", strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := asking.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusServiceUnavailable:
		return nil, errBusy
	case strings.Contains(string(text), "there is no table"):
		return nil, errNoTable
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("ask %s: %d %.300s", sql, resp.StatusCode, text)
	}
	var answer struct{ Rows [][]any }
	in := json.NewDecoder(strings.NewReader(string(text)))
	in.UseNumber()
	if err := in.Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the answer to %s: %w: %.200s", sql, err, text)
	}
	return answer.Rows, nil
}

// whole is a cell that holds a whole number, or null for ok = false.
func whole(cell any) (n int64, ok bool) {
	number, isNumber := cell.(json.Number)
	if !isNumber {
		return 0, false
	}
	n, err := number.Int64()
	return n, err == nil
}

// waitRows polls until a table has so many rows; it must never have more. It counts a
// column, which has to be read: how many rows there are is in the manifests.
func waitRows(address, table string, want int64) error {
	const within = 10 * time.Minute
	deadline := time.Now().Add(within)
	last := "no answer"
	for time.Now().Before(deadline) {
		rows, err := ask(context.Background(), address, "select count(_offset) from "+table)
		switch {
		case errors.Is(err, errNoTable), errors.Is(err, errBusy):
			last = err.Error()
		case err != nil:
			return err
		default:
			n, ok := whole(rows[0][0])
			if n > want || !ok {
				return fmt.Errorf("count rows of %s: %v, more than the %d sent", table, rows[0][0], want)
			}
			if n == want {
				return nil
			}
			last = fmt.Sprint(n)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("count rows of %s: not %d within %v, but %s", table, want, within, last)
}

// prober looks for the newest events of the one table that a stream has, until
// it is told to stop. Each look counts the offsets from the first that was not
// seen yet: if they are not all there, once each, it ends with an error.
type prober struct {
	address, table string
	origin         time.Time
	looks          []seen
	waits          []time.Duration
	busy           int
}

// Looks begin so far apart on average, at random between half and one and a
// half of it: evenly spaced ones would meet the server's own rhythm always at
// the same beat.
const lookEvery = 100 * time.Millisecond

func (p *prober) run(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(5, 5))
	top := int64(-1)
	for {
		began := time.Now()
		rows, err := ask(ctx, p.address, fmt.Sprintf("select count(*), max(_offset) from %s where _offset > %d", p.table, top))
		ended := time.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errBusy):
			p.busy++
		case errors.Is(err, errNoTable) && top < 0: // before its first event is visible
		case err != nil:
			return err
		default:
			count, _ := whole(rows[0][0])
			if newest, ok := whole(rows[0][1]); ok {
				if count != newest-top {
					return fmt.Errorf("look for new events: %d rows at the offsets %d to %d", count, top+1, newest)
				}
				top = newest
			}
			p.waits = append(p.waits, ended.Sub(began))
		}
		p.looks = append(p.looks, seen{began.Sub(p.origin), ended.Sub(p.origin), top})
		pause := lookEvery/2 + time.Duration(rng.Int64N(int64(lookEvery)))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(began.Add(pause))):
		}
	}
}

// asker puts questions in turn, one a second, until it is told to stop.
type asker struct {
	address   string
	questions []string
	waits     map[string][]time.Duration // by question; not nil
	busy      int
}

func (a *asker) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		question := a.questions[i%len(a.questions)]
		began := time.Now()
		_, err := ask(ctx, a.address, question)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errBusy):
			a.busy++
		case errors.Is(err, errNoTable): // before its first event is visible
		case err != nil:
			return err
		default:
			a.waits[question] = append(a.waits[question], time.Since(began))
		}
	}
}

// all is the waits for all questions together.
func (a *asker) all() (out []time.Duration) {
	for _, waits := range a.waits {
		out = append(out, waits...)
	}
	return out
}
