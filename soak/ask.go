package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// asker asks a question every second while the load runs, and holds each answer
// against the ledger: no row twice, none missing below the last one seen, no
// table that goes back, not even over a kill.
type asker struct {
	accounts []*account
	found    *findings
	rng      *rand.Rand
	every    time.Duration
	waits    waits
	asked    int
	busy     int
	last     []int64 // highest offset seen in each kind's table; -1: not there yet
	rows     []int64 // most rows seen in it
}

// window is how many offsets of a stream a question looks at: some seconds of
// the load.
const window = 200_000

func newAsker(seed uint64, accounts []*account, found *findings) *asker {
	a := &asker{accounts: accounts, found: found, rng: rand.New(rand.NewPCG(seed, 9999)), every: time.Second, rows: make([]int64, len(kinds))}
	for range kinds {
		a.last = append(a.last, -1)
	}
	return a
}

// run asks until stop is closed or the server is gone. Blocks.
func (a *asker) run(s *server, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
		case <-s.done:
		case <-ctx.Done():
		}
		cancel()
	}()
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		err := a.ask(ctx, s)
		switch {
		case err == nil:
			a.asked++
			a.waits.add(time.Since(began))
		case errors.Is(err, errBusy):
			a.busy++
		case ctx.Err() != nil || s.dying.Load():
		case strings.Contains(err.Error(), "no table"):
			for k := range kinds { // before its first commit
				if a.last[k] >= 0 && strings.Contains(err.Error(), kinds[k].table()) {
					a.found.add("life %d: table %s was there and is gone: %v", s.life, kinds[k].table(), err)
				}
			}
		default:
			a.found.add("life %d: %v", s.life, err)
		}
	}
}

// ask puts one question, drawn by lot.
func (a *asker) ask(ctx context.Context, s *server) error {
	k := a.rng.IntN(len(kinds))
	switch x := a.rng.IntN(10); {
	case x < 4:
		return a.newest(ctx, s, k)
	case x < 6:
		return a.old(ctx, s, k)
	case x < 7:
		return a.all(ctx, s, k)
	case x < 9:
		return a.join(ctx, s)
	}
	return a.latest(ctx, s, k)
}

// newest looks at the last rows of a table: everything up to the highest
// offset is there once.
func (a *asker) newest(ctx context.Context, s *server, k int) error {
	return a.span(ctx, s, k, max(a.last[k]-window, 0), -1)
}

// old looks at rows that were committed a while ago.
func (a *asker) old(ctx context.Context, s *server, k int) error {
	if a.last[k] <= window {
		return a.newest(ctx, s, k)
	}
	lo := a.rng.Int64N(a.last[k] - window)
	return a.span(ctx, s, k, lo, lo+window)
}

// span counts the rows with offsets from lo to hi; hi = -1: to the end.
func (a *asker) span(ctx context.Context, s *server, k int, lo, hi int64) error {
	query := fmt.Sprintf("select conn, count(*), count(distinct seq), max(_offset) from %s where _offset >= %d", kinds[k].table(), lo)
	if hi >= 0 {
		query += fmt.Sprintf(" and _offset <= %d", hi)
	}
	rows, err := s.rows(ctx, query+" group by conn")
	if err != nil {
		return err
	}
	top := hi
	if hi < 0 {
		top = -1
		for _, r := range rows {
			top = max(top, r[3])
		}
		a.raised(s, k, top)
	}
	have := make([]int64, len(a.accounts))
	for _, r := range rows {
		c := r[0] - firstConn
		if c < 0 || c >= int64(len(have)) {
			a.found.add("life %d: %s has rows of connection %d, which there is none of", s.life, kinds[k].table(), c)
			continue
		}
		have[c] = r[1]
		if r[1] != r[2] {
			a.found.add("life %d: %s has %d rows of connection %d at offsets %d to %d, but %d sequence numbers", s.life, kinds[k].table(), r[1], c, lo, top, r[2])
		}
	}
	for c, acc := range a.accounts {
		if want := acc.within(k, lo, top); !want.hold(have[c]) {
			a.found.add("life %d: %s has %d rows of connection %d at offsets %d to %d, want %v", s.life, kinds[k].table(), have[c], c, lo, top, want)
		}
	}
	return nil
}

// raised notes how far a table is; it must never go back.
func (a *asker) raised(s *server, k int, top int64) {
	if top < a.last[k] {
		a.found.add("life %d: %s ends at offset %d, and was at %d before", s.life, kinds[k].table(), top, a.last[k])
	}
	a.last[k] = max(a.last[k], top)
}

// all counts a whole table.
func (a *asker) all(ctx context.Context, s *server, k int) error {
	rows, err := s.rows(ctx, fmt.Sprintf("select count(*), coalesce(max(_offset), -1) from %s", kinds[k].table()))
	if err != nil {
		return err
	}
	n, top := rows[0][0], rows[0][1]
	a.raised(s, k, top)
	var want bounds
	for _, acc := range a.accounts {
		want = want.plus(acc.within(k, 0, top))
	}
	if !want.hold(n) || n < a.rows[k] {
		a.found.add("life %d: %s has %d rows up to offset %d, want %v, and had %d before", s.life, kinds[k].table(), n, top, want, a.rows[k])
	}
	a.rows[k] = max(a.rows[k], n)
	return nil
}

// join looks at requests that both tables have whole.
func (a *asker) join(ctx context.Context, s *server) error {
	both := min(a.last[purchase], a.last[click])
	if both < 0 {
		return a.newest(ctx, s, purchase)
	}
	end := int64(-1)
	for i, acc := range a.accounts {
		if n := acc.settled(kinds[purchase].stream, both); i == 0 || n < end {
			end = n
		}
	}
	if end <= 0 {
		return a.newest(ctx, s, click)
	}
	lo := max(end-40, 0)
	if a.rng.IntN(2) == 0 {
		lo = a.rng.Int64N(end)
	}
	hi := min(lo+39, end-1)
	rows, err := s.rows(ctx, fmt.Sprintf(`select count(*), count(distinct (p.conn, p.seq, c.seq)) from %s p join %s c on p.conn = c.conn and p.req = c.req
		where p.req between %d and %d and c.req between %[3]d and %[4]d`, kinds[purchase].table(), kinds[click].table(), lo+firstReq, hi+firstReq))
	if err != nil {
		return err
	}
	var want bounds
	for _, acc := range a.accounts {
		want = want.plus(acc.joined(purchase, click, lo, hi))
	}
	if n := rows[0][0]; !want.hold(n) || n != rows[0][1] {
		a.found.add("life %d: the join of requests %d to %d gives %d pairs, %d of them different, want %v", s.life, lo, hi, n, rows[0][1], want)
	}
	return nil
}

// latest looks at the last rows one by one.
func (a *asker) latest(ctx context.Context, s *server, k int) error {
	rows, err := s.rows(ctx, fmt.Sprintf("select conn, req, seq, _offset from %s where _offset >= %d order by _offset desc limit 50", kinds[k].table(), max(a.last[k]-window, 0)))
	if err != nil {
		return err
	}
	seen := map[int64]bool{}
	for _, r := range rows {
		c := r[0] - firstConn
		if c < 0 || c >= int64(len(a.accounts)) || seen[r[3]] {
			a.found.add("life %d: %s has the row %v, which is foreign or there twice", s.life, kinds[k].table(), r)
			continue
		}
		seen[r[3]] = true
		if err := a.accounts[c].place(r[1]-firstReq, r[2]-firstSeq, k, r[3]); err != nil {
			a.found.add("life %d: %s, connection %d: %v", s.life, kinds[k].table(), c, err)
		}
	}
	if len(rows) > 0 {
		a.raised(s, k, rows[0][3])
	}
	return nil
}
