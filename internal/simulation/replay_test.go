package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/collect"
	"naru/internal/collect/native"
	"naru/internal/event"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/rejection"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// replays is a history of lives in which events are refused for their size, and
// sent again by a door that takes larger ones.
type replays struct {
	t    *testing.T
	rng  *rand.Rand
	cfg  settings
	wall *clock
	left image
	seq  int
	cuts int

	mu       sync.Mutex
	sent     map[string]bool // keys of large events
	acked    map[string]bool // of all events
	told     int64           // replayed, as answers said
	replayed int64           // as the log said after the last recovery
}

// TestPowerCutsDuringReplay: the power goes, or the process is killed, at random
// moments while refused events are sent again by two clients at a time: each is in
// its table once, and the counts are exact after every recovery.
func TestPowerCutsDuringReplay(t *testing.T) {
	t.Parallel()
	want := *cuts / 3
	if soaking(t) > 0 && *cuts == shortCuts {
		want = 2000
	}
	first, done, moved := *begin, 0, int64(0)
	if *oneSeed != 0 {
		first, want = *oneSeed, 1
	}
	var deadline time.Time
	if d := soaking(t); d > 0 {
		deadline = time.Now().Add(d)
	}
	for seed := first; done < want && (deadline.IsZero() || time.Now().Before(deadline)); seed++ {
		h := newReplays(t, seed)
		if err := h.run(); err != nil {
			t.Fatalf("seed %d: %v\nsettings: %s\nagain: go test -count=20 -run '^%s$' ./internal/simulation -args -seed %d", seed, err, h.cfg, t.Name(), seed)
		}
		done += h.cuts
		moved += h.replayed
		if *oneSeed != 0 {
			break
		}
	}
	t.Logf("%d cuts, %d events sent again", done, moved)
	if moved == 0 {
		t.Error("nothing was sent again")
	}
}

func newReplays(t *testing.T, seed uint64) *replays {
	rng := rand.New(rand.NewPCG(seed, 17))
	h := &replays{t: t, rng: rng, cfg: smallSettings(rng), wall: &clock{}, sent: map[string]bool{}, acked: map[string]bool{},
		left: image{disk: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog()}}
	h.cfg.log.RetainBytes = 0 // what was refused is looked for in the log
	h.cfg.collect.Event = 128
	return h
}

func (h *replays) run() error {
	for range 1 + h.rng.IntN(5) {
		m := newMachine(h.left.disk, h.left.rows, h.rng)
		if h.rng.IntN(8) > 0 {
			m.cutAt = 1 + h.rng.IntN(400)
		}
		m.kill = h.rng.IntN(3) == 0
		err := h.life(m, false)
		down := m.isDown()
		if b := (*broken)(nil); errors.As(err, &b) {
			return err
		}
		h.left = m.stop(h.rng.IntN(2) == 0, h.rng.Uint64())
		if err != nil && !down {
			return err
		}
		if down {
			h.cuts++
		}
	}
	m := newMachine(h.left.disk, h.left.rows, h.rng)
	if err := h.life(m, true); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	return nil
}

// life starts, checks what is there, and lets clients send and replay until the cut;
// the last one goes on until all is done, and proves it.
func (h *replays) life(m *machine, last bool) error {
	p, err := start(m, h.cfg, h.wall, nil)
	if err == nil {
		err = h.work(p, last)
	}
	return errors.Join(err, p.close())
}

func (h *replays) work(p *process, last bool) error {
	if err := h.check(p); err != nil {
		if p.m.isDown() {
			return err
		}
		return &broken{err}
	}
	r, err := h.rejections(p)
	if err != nil {
		return err
	}
	w := p.run()
	var clients sync.WaitGroup
	errs := make(chan error, 3)
	for n := range 2 {
		pause := rand.New(rand.NewPCG(h.rng.Uint64(), uint64(n)))
		clients.Go(func() {
			for range 4 {
				res, err := r.Replay(context.Background(), rejection.Filter{}, false, nil)
				h.mu.Lock()
				h.told += res.Replayed
				h.mu.Unlock()
				if err != nil {
					if !p.m.isDown() {
						errs <- err
					}
					return
				}
				yield(pause.IntN(2000))
			}
		})
	}
	if !last {
		for range 3 + h.rng.IntN(8) {
			h.post(p)
		}
	}
	clients.Wait()
	if last {
		res, err := r.Replay(context.Background(), rejection.Filter{}, false, nil)
		if err == nil && (res.Closed != res.Matched || res.Replayed != 0) {
			// What the last pages of the two left is done by now.
			err = fmt.Errorf("after the replays there is something left: %+v", res)
		}
		if err == nil {
			err = p.drained()
		}
		if err != nil {
			errs <- err
		}
	}
	if err := w.stop(); err != nil && !p.m.isDown() {
		return err
	}
	select {
	case err := <-errs:
		return err
	default:
	}
	if last {
		return h.proof(p)
	}
	return nil
}

// broken is an error that no cut excuses.
type broken struct{ error }

// post sends some events, small ones and large ones.
func (h *replays) post(p *process) {
	s := shipment{stream: "events"}
	for range 1 + h.rng.IntN(5) {
		h.seq++
		key, pad := fmt.Sprintf("c0-%d", h.seq), ""
		large := h.rng.IntN(2) == 0
		if large {
			pad = strings.Repeat("x", 100+h.rng.IntN(200))
		}
		s.items = append(s.items, item{key: key, text: fmt.Sprintf(`{"k":"%s","type":"%s","pad":"%s"}`, key, []string{"a", "b"}[h.seq%2], pad), bad: large})
		h.mu.Lock()
		if large {
			h.sent[key] = true
		}
		h.mu.Unlock()
	}
	if _, status := p.send(s); status == http.StatusOK {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, it := range s.items {
			h.acked[it.key] = true
		}
	}
}

// rejections are with a door of their own that takes larger events.
func (h *replays) rejections(p *process) (*rejection.Rejections, error) {
	cfg := h.cfg.collect
	cfg.Event = 64 * quantity.KiB
	e, err := collect.New(cfg, collect.Deps{Log: p.log, Registry: obs.NewRegistry(), Logger: quiet, Now: h.wall.now})
	if err != nil {
		return nil, err
	}
	door, err := native.New(e)
	if err != nil {
		return nil, err
	}
	return rejection.New(rejection.Config{Page: quantity.KiB, Memory: quantity.MiB}, rejection.Deps{Log: p.log, Store: inLog{p.log}, Logger: quiet, Now: h.wall.now,
		Door: func(ctx context.Context, name string) (rejection.Door, error) { return door.Replay(ctx, name) }})
}

// check holds the counts against what the log has: after every recovery.
func (h *replays) check(p *process) error {
	counts := map[string]stream.Stat{}
	for _, name := range []string{"events", event.RejectedStream, event.RejectedStates} {
		st, err := p.log.Stat(context.Background(), name)
		if errors.Is(err, stream.ErrNoStream) {
			continue
		}
		if err != nil {
			return err
		}
		counts[name] = st
	}
	events, states := map[string]int64{}, map[int64]rejection.Change{}
	places := map[string]string{} // STREAM/PARTITION/OFFSET → key
	log := inLog{p.log}
	if err := log.each("events", func(at event.Position, e *event.Event) error {
		k := keyOf(e.Data)
		events[k]++
		places[fmt.Sprintf("events/%d/%d", at.Partition, at.Offset)] = k
		return nil
	}); err != nil {
		return err
	}
	for k, n := range events {
		if n > 1 {
			return fmt.Errorf("event %s is in the log %d times", k, n)
		}
	}
	refused := map[int64]string{}
	if err := log.each(event.RejectedStream, func(at event.Position, e *event.Event) error {
		refused[at.Offset] = keyOf(e.Data)
		return nil
	}); err != nil {
		return err
	}
	if err := log.each(event.RejectedStates, func(_ event.Position, e *event.Event) error {
		var c rejection.Change
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return err
		}
		if _, twice := states[c.Offset]; twice || c.State != rejection.Replayed {
			return fmt.Errorf("rejection %d is replayed twice, or %s", c.Offset, c.State)
		}
		states[c.Offset] = c
		if k := places[fmt.Sprintf("%s/%d/%d", c.EventStream, c.EventPartition, c.EventOffset)]; k != refused[c.Offset] {
			return fmt.Errorf("rejection %d of %s says that its event is at %d, where %q is", c.Offset, refused[c.Offset], c.EventOffset, k)
		}
		return nil
	}); err != nil {
		return err
	}
	open := 0
	for offset, k := range refused {
		_, closed := states[offset]
		if !closed {
			open++
		}
		if closed != (events[k] == 1) {
			return fmt.Errorf("rejection %d of %s: replayed %t, in the stream %d times", offset, k, closed, events[k])
		}
	}
	ev, rej := counts["events"], counts[event.RejectedStream]
	if ev.Refused != int64(open) || rej.Refused != int64(len(states)) || ev.Acknowledged != int64(len(events)+open) || rej.Acknowledged != int64(len(refused)) {
		return fmt.Errorf("the log counts %d acknowledged and %d refused, %d kept and %d replayed; it has %d events, %d open rejections of %d, %d replayed",
			ev.Acknowledged, ev.Refused, rej.Acknowledged, rej.Refused, len(events), open, len(refused), len(states))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if int64(len(states)) < h.told {
		return fmt.Errorf("%d replays were answered, the log has %d", h.told, len(states))
	}
	h.told, h.replayed = int64(len(states)), int64(len(states)) // what was not answered is known now
	for k := range h.acked {
		if events[k] == 0 && !h.sent[k] {
			return fmt.Errorf("event %s was acknowledged and is gone", k)
		}
	}
	return nil
}

// proof: all is done and loaded, so every acknowledged event is a row, once.
func (h *replays) proof(p *process) error {
	if err := h.check(p); err != nil {
		return err
	}
	tables, err := newReader().all(p.m.disk, p.m.rows)
	if err != nil {
		return err
	}
	rows := map[string]int{}
	for id, c := range tables {
		if id.Namespace != "events" {
			continue
		}
		for _, r := range c.rows {
			rows[r.key()]++
		}
	}
	for k, n := range rows {
		if n != 1 {
			return fmt.Errorf("event %s is %d rows", k, n)
		}
	}
	for k := range h.acked {
		if rows[k] == 0 {
			return fmt.Errorf("event %s was acknowledged and is in no table", k)
		}
	}
	return nil
}

// inLog finds rejections in the log, as the tables do elsewhere.
type inLog struct{ log stream.Log }

func (s inLog) each(name string, fn func(event.Position, *event.Event) error) error {
	ctx := context.Background()
	st, err := s.log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	if err != nil {
		return err
	}
	var dec recordbatch.Decoder
	for _, x := range st.Ranges {
		at := event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: x.Start}
		for at.Offset < x.End {
			b, err := s.log.Read(ctx, name, at, 1<<20)
			if err != nil {
				return err
			}
			if err := dec.EachIn(b, func(e *event.Event) error {
				return fn(event.Position{Incarnation: x.Incarnation, Partition: x.Partition, Offset: e.Offset}, e)
			}); err != nil {
				return err
			}
			at = b.End()
		}
	}
	return nil
}

func (s inLog) Lanes(_ context.Context, _ rejection.Filter) (out []rejection.Lane, err error) {
	err = s.each(event.RejectedStream, func(at event.Position, _ *event.Event) error {
		if n := len(out) - 1; n < 0 || out[n].Incarnation != at.Incarnation {
			out = append(out, rejection.Lane{Incarnation: at.Incarnation, Partition: at.Partition, First: at.Offset})
		}
		l := &out[len(out)-1]
		l.Last = at.Offset
		l.Count++
		return nil
	})
	return out, err
}

func (s inLog) Entries(_ context.Context, _ rejection.Filter, l rejection.Lane, from, to int64) (out []rejection.Entry, err error) {
	err = s.each(event.RejectedStream, func(at event.Position, e *event.Event) error {
		if at.Incarnation == l.Incarnation && at.Offset >= from && at.Offset < to {
			out = append(out, rejection.Entry{Offset: at.Offset, Size: int64(len(e.Data))})
		}
		return nil
	})
	return out, err
}

func (s inLog) Fetch(_ context.Context, l rejection.Lane, from, to int64, fn func(*event.Event) error) error {
	return s.each(event.RejectedStream, func(at event.Position, e *event.Event) error {
		if at.Incarnation != l.Incarnation || at.Offset < from || at.Offset > to {
			return nil
		}
		return fn(e)
	})
}

func (s inLog) Closed(context.Context, func(event.Position) error) error {
	return errors.New("the log has all states")
}
