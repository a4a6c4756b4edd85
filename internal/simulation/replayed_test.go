package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/rejection"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/verify"
	"naru/internal/vfs"
)

// An event that a contract refused, and that was sent again once the contract was
// loosened, is as if the loosened contract had been there from the beginning: the
// same rows in the same tables, whoever replays, twice, side by side, across power
// cuts, with copies that came before the replay, after it, or were refused, too.
func TestReplayedIsAsIfAccepted(t *testing.T) {
	t.Parallel()
	variants := 2
	if soaking(t) > 0 {
		variants = 8
	}
	total := tally{}
	for seed, rng := range inputsOf(t, max(*inputs*3/5, 1), 19) {
		topic := newTopics(rng)
		topic.types = append(topic.types, "order.paid", "x")
		lanes := makeLanesOf(rng, topic)
		base := plain()
		base.loose = true
		want, err := bring(base, lanes, rng, total)
		if err != nil {
			t.Fatalf("seed %d: %v\nvariant: %s", seed, err, base)
		}
		open, err := takeRejected(want)
		if err != nil {
			t.Fatalf("seed %d: %v\nvariant: %s", seed, err, base)
		}
		for range variants {
			v := randomVariant(rng)
			v.replays, v.resends, v.jumps = 1+rng.IntN(3), rng.IntN(3) > 0, false
			v.cfg.log.RetainBytes = 0 // what was refused is looked for in the log
			got, err := bring(v, lanes, rng, total)
			var left []string
			if err == nil {
				left, err = takeRejected(got)
			}
			if err == nil {
				err = same(want, got)
			}
			if err == nil && !slices.Equal(open, left) {
				err = fmt.Errorf("open rejections are %q, and with the variant %q", open, left)
			}
			if err != nil {
				t.Fatalf("seed %d: %v\nvariant: %s\nagain: go test -count=20 -run '^%s$' ./internal/simulation -args -seed %d", seed, err, v, t.Name(), seed)
			}
			total["variants"]++
		}
	}
	t.Logf("%s", total)
	if total["sent again"] == 0 {
		t.Error("nothing was sent again")
	}
}

// takeRejected takes the tables of rejections and their states out of a lake, and
// gives what is open.
func takeRejected(tables map[lake.Ident]*contents) (open []string, err error) {
	closed := map[string]bool{}
	rejected := lake.Ident{Namespace: event.RejectedStream, Name: event.RejectedStream}
	states := lake.Ident{Namespace: event.RejectedStates, Name: event.RejectedStates}
	if c := tables[states]; c != nil {
		for _, r := range c.rows {
			at := r["rejection_log"] + "/" + r["rejection_partition"] + "/" + r["rejection_offset"]
			if r["state"] != string(rejection.Open) && closed[at] {
				return nil, fmt.Errorf("the table of states closes %s twice", at)
			}
			closed[at] = closed[at] || r["state"] != string(rejection.Open)
		}
	}
	if c := tables[rejected]; c != nil {
		for _, r := range c.rows {
			at := r["_log"] + "/" + r["_partition"] + "/" + r["_offset"]
			if !closed[at] {
				open = append(open, r.key()+" "+r["reason"])
			}
			delete(closed, at)
		}
	}
	maps.DeleteFunc(closed, func(_ string, v bool) bool { return !v })
	if len(closed) > 0 {
		return nil, fmt.Errorf("states of rejections that the table does not have: %v", closed)
	}
	delete(tables, rejected)
	delete(tables, states)
	slices.Sort(open)
	return open, nil
}

// replayAll loosens the contracts and lets so many send again what was refused, each
// twice.
func (p *process) replayAll(clients int) error {
	p.loose.Store(true)
	var running sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		running.Go(func() {
			for range 2 {
				if _, err := p.rejected.Replay(context.Background(), rejection.Filter{}, false, nil); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	res, err := p.rejected.Replay(context.Background(), rejection.Filter{}, false, nil)
	if err == nil && res.Replayed != 0 {
		err = fmt.Errorf("after the replays there is something left: %+v", res)
	}
	return err
}

// account is what a log says of rejections.
type account struct {
	events   map[string]int // events of a key, of all streams but rejected
	open     map[string]int // rejections of a key
	replayed int
}

// accounts holds a log's rejections, their states and the events that were sent
// again against each other and against what the log counts: each replayed rejection
// names one event, which is the one that was refused, and no two name the same. The
// log has all that it ever had.
func (p *process) accounts() (a account, err error) {
	type refused struct{ key, stream string }
	a = account{events: map[string]int{}, open: map[string]int{}}
	rejections, keys := map[place]refused{}, map[spot]string{}
	states, named := map[place]rejection.Change{}, map[spot]bool{}
	appended, open := map[string]int64{}, map[string]int64{}
	log := inLog{p.log}
	names, err := p.log.Streams(context.Background())
	if err != nil {
		return a, err
	}
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		err := log.each(name, func(at event.Position, e *event.Event) error {
			where := place{at.Incarnation, at.Partition, at.Offset}
			appended[name]++
			switch name {
			case event.RejectedStream:
				rejections[where] = refused{keyOf(e.Data), e.Refusal.Stream}
			case event.RejectedStates:
				var c rejection.Change
				if err := json.Unmarshal(e.Data, &c); err != nil {
					return err
				}
				if c.State == rejection.Open {
					return nil
				}
				of := place{c.Incarnation, c.Partition, c.Offset}
				if _, twice := states[of]; twice || c.State != rejection.Replayed {
					return fmt.Errorf("rejection %v is closed twice, or %s", of, c.State)
				}
				states[of] = c
			default:
				keys[spot{name, where}] = keyOf(e.Data)
				a.events[keyOf(e.Data)]++
			}
			return nil
		})
		if err != nil {
			return a, err
		}
	}
	for of, c := range states {
		inc, err := event.ParseIncarnation(c.EventLog)
		if err != nil {
			return a, err
		}
		at, was := spot{c.EventStream, place{inc, c.EventPartition, c.EventOffset}}, rejections[of]
		switch {
		case named[at]:
			return a, fmt.Errorf("two rejections are replayed as the event at %v", at)
		case keys[at] == "" || keys[at] != was.key || at.stream != was.stream:
			return a, fmt.Errorf("rejection %v of %s says that its event is at %v, where %q is", of, was.key, at, keys[at])
		}
		named[at] = true
	}
	for at, r := range rejections {
		if _, closed := states[at]; !closed {
			a.open[r.key]++
			open[r.stream]++
		}
	}
	a.replayed = len(states)
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		st, err := p.log.Stat(context.Background(), name)
		if err != nil {
			return a, err
		}
		want := stream.Stat{Refused: open[name], Acknowledged: appended[name] + open[name]}
		if name == event.RejectedStream {
			want = stream.Stat{Refused: int64(a.replayed), Acknowledged: int64(len(rejections))}
		}
		if st.Refused != want.Refused || st.Acknowledged != want.Acknowledged {
			return a, fmt.Errorf("stream %s: the log counts %d acknowledged and %d refused; it has %d and %d", name, st.Acknowledged, st.Refused, want.Acknowledged, want.Refused)
		}
	}
	return a, nil
}

// written holds the pipelines' counts against the rows: all is loaded, so what has
// no row is a duplicate.
func (p *process) written(tables map[lake.Ident]*contents) (rows map[string]int, err error) {
	rows = map[string]int{}
	of := map[string]int64{}
	for id, c := range tables {
		if id.Namespace == event.RejectedStream || id.Namespace == event.RejectedStates {
			continue
		}
		of[id.Namespace] += int64(len(c.rows))
		for _, r := range c.rows {
			rows[r.key()]++
		}
	}
	for name, n := range of {
		st, err := p.log.Stat(context.Background(), name)
		if err != nil {
			return nil, err
		}
		at, err := p.log.Progress(context.Background(), stream.DefaultReader+name)
		if err != nil {
			return nil, err
		}
		total := int64(0)
		for _, x := range st.Ranges {
			total += x.End
		}
		if c := at.Counts; c.Written != n || c.Duplicates != total-n || c.Total() != total {
			return nil, fmt.Errorf("stream %s: %+v of %d events, with %d rows", name, c, total, n)
		}
	}
	return rows, nil
}

// verified is what naru verify says of all that is there.
func (p *process) verified() error {
	if _, own := p.log.(*seglog.Log); !own {
		return nil
	}
	r, err := verify.Run(context.Background(), verify.Folder{FS: p.m.disk, LogDir: logDir, Lake: p.lake}, verify.Options{Deep: true, Beside: true})
	if err == nil && !r.Clean {
		err = fmt.Errorf("verify says %+v", r.Differences)
	}
	return err
}

// The power is cut at every single sync of a short history with contracts, copies
// and replays: events that are refused, sent again by their client before and after
// the contract is loosened, and replayed twice. Each time what was acknowledged is
// there once in the end, and the counts are exact from the first moment on.
func TestPowerCutAtEverySyncOfReplays(t *testing.T) {
	t.Parallel()
	type cut struct {
		image
		acked map[string]bool
		at    string
	}
	lives, first := 1, *begin
	if soaking(t) > 0 {
		lives = 12
	}
	if *oneSeed != 0 {
		first, lives = *oneSeed, 1
	}
	count, replayed, copies := 0, 0, 0
	for life := range lives {
		seed := first + uint64(life)
		rng := rand.New(rand.NewPCG(seed, 23))
		h := newHistory(t, rng)
		h.cfg.log.Segment, h.cfg.log.RetainBytes = 16<<10, 0
		h.cfg.lake.CommitRate, h.cfg.lake.MaxTables = 1000, 1000
		topic := newTopics(rng)
		topic.types = []string{"order.paid", "x"}
		c := newClient(0, rand.New(rand.NewPCG(rng.Uint64(), 2)), topic, true)
		items := map[string]item{}
		acked := map[string]bool{}
		var mu sync.Mutex
		var cuts []cut
		syncs := 0
		m := newMachine(h.left.disk, h.left.rows, rng)
		m.onStep = func(step int, op vfs.Op, path string) {
			if op&(vfs.OpSync|vfs.OpSyncDir) == 0 {
				return
			}
			mu.Lock()
			told := maps.Clone(acked)
			syncs++
			odd := syncs%2 == 1
			mu.Unlock()
			for i, s := range []uint64{0, uint64(step) + 2, 1} {
				if (i != step%3 || !odd) && soaking(t) == 0 {
					continue // every other one, in one way, in the short form
				}
				one := cut{m.image(i == 2 && step%2 == 0, s), told, fmt.Sprintf("operation %d, %s %s, way %d", step, op, path, i)}
				mu.Lock()
				cuts = append(cuts, one)
				mu.Unlock()
			}
		}
		p, err := start(m, h.cfg, h.wall, nil)
		if err != nil {
			t.Fatal(err)
		}
		w := p.run()
		send := func(s shipment) {
			if _, status := p.send(s); status != 200 {
				t.Fatalf("status %d", status)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, it := range s.items {
				acked[it.key], items[it.key] = true, it
			}
		}
		var all []shipment
		for len(all) < 3 {
			s := c.next(5)
			if len(all) > 0 && !slices.ContainsFunc(s.items, func(it item) bool { return it.over }) {
				continue
			}
			all = append(all, s)
			send(s)
		}
		again := func() { // what only a contract refused, or nobody
			s := all[rng.IntN(len(all))]
			s.items = slices.DeleteFunc(slices.Clone(s.items), func(it item) bool { return it.bad && !it.over })
			if len(s.items) > 0 {
				send(s)
				copies += len(s.items)
			}
		}
		again()
		p.loose.Store(true)
		again()
		if err := p.replayAll(2); err != nil {
			t.Fatal(err)
		}
		again()
		if err := p.drained(); err != nil {
			t.Fatal(err)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
		m.stop(true, rng.Uint64())
		for _, c := range cuts {
			n, err := h.afterCut(c.image, items, c.acked)
			if err != nil {
				t.Fatalf("seed %d, %s: %v\nagain: go test -count=5 -run '^%s$' ./internal/simulation -args -seed %d", seed, c.at, err, t.Name(), seed)
			}
			replayed += n
		}
		count += len(cuts)
	}
	t.Logf("%d cuts, %d copies, %d rejections replayed in the end", count, copies, replayed)
	if count < 30 || copies == 0 || replayed == 0 {
		t.Error("something of it never happened")
	}
}

// afterCut starts from what a cut left, replays what is open, loads everything and
// proves it. It tells how many rejections are replayed then.
func (h *history) afterCut(left image, items map[string]item, acked map[string]bool) (replayed int, err error) {
	m := newMachine(left.disk, left.rows, h.rng)
	p, err := start(m, h.cfg, h.wall, nil)
	if err != nil {
		return 0, errors.Join(err, p.close())
	}
	defer func() { err = errors.Join(err, p.close()) }()
	before, err := p.accounts()
	if err != nil {
		return 0, fmt.Errorf("after recovery: %w", err)
	}
	for k := range acked {
		if before.events[k]+before.open[k] == 0 {
			return 0, fmt.Errorf("event %s was acknowledged and is gone", k)
		}
	}
	w := p.run()
	err = p.replayAll(1)
	if err == nil {
		err = p.drained()
	}
	if serr := w.stop(); err == nil {
		err = serr
	}
	if err != nil {
		return 0, err
	}
	a, err := p.accounts()
	if err != nil {
		return 0, err
	}
	tables, err := newReader().all(m.disk, m.rows)
	if err != nil {
		return 0, err
	}
	rows, err := p.written(tables)
	if err != nil {
		return 0, err
	}
	for k, it := range items {
		there := before.events[k]+before.open[k] > 0
		want := 0
		if there && (!it.bad || it.over) {
			want = 1
		}
		if rows[k] != want {
			return 0, fmt.Errorf("event %s has %d rows, want %d (acknowledged %t)", k, rows[k], want, acked[k])
		}
		if n := a.open[k]; n > 0 && it.over || there && it.bad && !it.over && n != 1 {
			return 0, fmt.Errorf("event %s has %d open rejections", k, n)
		}
	}
	if _, err := takeRejected(tables); err != nil {
		return 0, err
	}
	if err := p.verified(); err != nil {
		return 0, err
	}
	for _, s := range p.judge.Status() {
		if s.Conflicts != 0 || s.Error != "" {
			return 0, fmt.Errorf("judge: %+v", s)
		}
	}
	return a.replayed, nil
}
