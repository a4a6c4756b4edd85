package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/hottail"
	"naru/internal/lake"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

const hotDir = "/data/hot"

// onlookers query a process all the time, and judge each answer by what the
// clients and the log know.
type onlookers struct {
	p       *process
	book    *ledger
	limited bool // types may have no table of their own
	tail    *hottail.Tail
	stopAll func()
	all     sync.WaitGroup
	views   *looked

	mu  sync.Mutex
	err error
}

// looked counts what was judged in a whole test.
type looked struct{ cuts, rows, hot, strict, skipped, retold atomic.Int64 }

func (l *looked) String() string {
	return fmt.Sprintf("%d cuts, %d rows, %d of them from the hot tail; %d cuts had to have everything, %d could not be judged, %d views with a column of another type",
		l.cuts.Load(), l.rows.Load(), l.hot.Load(), l.strict.Load(), l.skipped.Load(), l.retold.Load())
}

func look(p *process, book *ledger, cfg settings, views *looked) (*onlookers, error) {
	o := &onlookers{p: p, book: book, limited: cfg.lake.MaxTables < 100, views: views}
	o.tail = hottail.New(hottail.DefaultConfig(), hottail.Deps{FS: disk{p.m}, Dir: hotDir, Log: p.judge.Log(), Lake: p.lake, Logger: logger(),
		Reader: func(s string) string { return stream.DefaultReader + s }, Flush: p.set.Flush,
		FileRows: cfg.hotRows})
	return o, o.tail.Open()
}

// run lets some look again and again until stop.
func (o *onlookers) run(n int, rng *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	upkeep, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = o.tail.Run(upkeep) })
	o.stopAll = func() {
		cancel()
		o.all.Wait()
		end()
		running.Wait()
	}
	for range n {
		own := rand.New(rand.NewPCG(rng.Uint64(), 11))
		r := newReader()
		o.all.Go(func() {
			for last := -1; ctx.Err() == nil; {
				if step := o.p.m.steps(); step == last {
					time.Sleep(50 * time.Microsecond) // nothing happens
					continue
				} else {
					last = step
				}
				if err := o.glance(ctx, own, r); err != nil {
					if ctx.Err() == nil && !o.p.m.isDown() {
						o.mu.Lock()
						o.err = errors.Join(o.err, err)
						o.mu.Unlock()
					}
					return
				}
			}
		})
	}
}

// stop waits, and tells what was wrong.
func (o *onlookers) stop() error {
	o.stopAll()
	if o.err != nil || o.p.m.isDown() {
		return o.err
	}
	names, err := o.p.m.disk.List(hotDir)
	if o.p.m.faults.disk > 0 {
		names = nil // a file that could not be removed goes at the next start
	}
	if err == nil && (len(names) > 0 || o.tail.Bytes() != 0) {
		err = fmt.Errorf("nobody asks any more, and there are %q and %d bytes", names, o.tail.Bytes())
	}
	return err
}

// logged is what the log has of a stream, by place.
type logged struct {
	key, typ string
	table    string // that it belongs to
	known    *lake.Known
	data     map[string]json.RawMessage
}

// glance cuts a random set of tables and judges it.
func (o *onlookers) glance(ctx context.Context, rng *rand.Rand, r *reader) error {
	acked := o.book.acknowledged()
	counts := o.tail.Counts()
	failed, behind := counts.Failed.Load(), counts.Behind.Load()
	tables, err := o.tail.Newest(ctx)
	if err != nil {
		return fmt.Errorf("newest tables: %w", err)
	}
	if len(tables) == 0 && len(acked) == 0 {
		time.Sleep(50 * time.Microsecond)
		return nil
	}
	whole := o.limited || rng.IntN(2) == 0
	if !whole && len(tables) > 0 {
		rng.Shuffle(len(tables), func(i, j int) { tables[i], tables[j] = tables[j], tables[i] })
		tables = tables[:1+rng.IntN(len(tables))]
	}
	unsure, err := o.unsure(ctx, tables)
	if err != nil {
		return err
	}
	views, err := o.tail.Cut(ctx, tables)
	if errors.Is(err, lake.ErrNoTable) && unsure || fault.IsTransient(err) && failed < counts.Failed.Load() {
		o.views.skipped.Add(1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cut %v: %w", tables, err)
	}
	defer func() {
		for _, v := range views {
			v.Release()
		}
	}()
	o.views.cuts.Add(1)
	rows := make([]map[spot]row, len(views))
	keys := map[string]lake.Ident{}
	for i, v := range views {
		if rows[i], err = o.rows(r, v); err != nil {
			return fmt.Errorf("table %s: %w", v.Ident, err)
		}
		for at, w := range rows[i] {
			if other, ok := keys[w.key()]; ok && !unsure {
				return fmt.Errorf("event %s at %v is in %s and again in %s", w.key(), at, other, v.Ident)
			}
			keys[w.key()] = v.Ident
		}
	}
	if unsure {
		o.views.skipped.Add(1)
		return nil
	}
	strict := failed == counts.Failed.Load() && behind == counts.Behind.Load()
	if strict {
		if err := onePlace(views); err != nil {
			return err
		}
	}
	there, err := o.stored()
	if errors.Is(err, stream.ErrTrimmed) {
		there = nil // retention is faster
	} else if err != nil {
		return err
	}
	if err := o.content(views, rows, there, strict); err != nil {
		return err
	}
	if !strict {
		return nil
	}
	o.views.strict.Add(1)
	for k := range acked {
		if _, ok := keys[k]; !ok && whole {
			return fmt.Errorf("event %s was acknowledged before the cut and is in none of %v; %s", k, tables, o.whereabouts(k, there, views))
		}
	}
	if !whole && there != nil {
		return o.expected(views, rows, there, acked)
	}
	return nil
}

// whereabouts tells where the log has an event, and how far the views go.
func (o *onlookers) whereabouts(key string, there map[spot]logged, views []*lake.View) string {
	var b strings.Builder
	for at, l := range there {
		if l.key == key {
			fmt.Fprintf(&b, "type %q at %v", l.typ, at)
		}
	}
	o.book.mu.Lock()
	fmt.Fprintf(&b, ", sent to %s, to be refused %t; the log has %d events", o.book.sent[key], o.book.bad[key], len(there))
	o.book.mu.Unlock()
	for _, v := range views {
		fmt.Fprintf(&b, "; %s: %d, %s", v.Ident, v.SnapshotID, v.Positions)
		if v.Hot != nil {
			fmt.Fprintf(&b, ", %d files %+v", len(v.Hot.Files), v.Hot.Spans)
		}
	}
	return b.String()
}

// unsure tells whether it is still open which types get the last tables.
func (o *onlookers) unsure(ctx context.Context, tables []lake.Ident) (bool, error) {
	if !o.limited {
		return false, nil
	}
	for _, t := range tables {
		own, claimed, _, err := o.p.lake.Owns(ctx, t)
		if err != nil {
			return false, err
		}
		if own && !claimed {
			return true, nil
		}
	}
	return false, nil
}

// rows are those of a view, by place; each has its key, and none is there twice.
func (o *onlookers) rows(r *reader, v *lake.View) (map[spot]row, error) {
	out := map[spot]row{}
	add := func(files []lake.File, columns []lake.Column, hot *lake.Hot) error {
		names := map[int]string{}
		for _, c := range columns {
			names[c.FieldID] = c.Name
		}
		for _, f := range files {
			p, err := r.part(o.p.m.disk, f.Path)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
			for i := range p.rows {
				w := row{}
				for field, values := range p.values {
					if name, ok := names[field]; ok && values[i] != nil {
						w[name] = *values[i]
					}
				}
				at, err := w.place()
				if err != nil {
					return err
				}
				if hot != nil && !slices.ContainsFunc(hot.Spans, func(s event.Span) bool {
					return s.Incarnation == at.log && s.Partition == at.partition && s.From <= at.offset && at.offset < s.To
				}) {
					continue
				}
				if was, ok := out[spot{v.Ident.Namespace, at}]; ok {
					return fmt.Errorf("%v twice: %v and %v (positions %s, hot %+v)", at, was, w, v.Positions, v.Hot)
				}
				out[spot{v.Ident.Namespace, at}] = w
				o.views.rows.Add(1)
				if hot != nil {
					o.views.hot.Add(1)
				}
			}
		}
		return nil
	}
	if err := add(v.Files, v.Columns, nil); err != nil || v.Hot == nil {
		return out, err
	}
	types := map[string]string{}
	for _, c := range v.Columns {
		types[c.Name] = c.Type
	}
	for _, c := range v.Hot.Columns {
		if was, ok := types[c.Name]; ok && was != c.Type {
			o.views.retold.Add(1)
			if c.Type != strings.ReplaceAll(was, "long", "double") {
				return nil, fmt.Errorf("column %s is %s, and %s in the hot tail", c.Name, was, c.Type)
			}
		}
		delete(types, c.Name)
	}
	if len(types) > 0 {
		return nil, fmt.Errorf("the hot tail lacks columns %v", slices.Collect(maps.Keys(types)))
	}
	return out, add(v.Hot.Files, v.Hot.Columns, v.Hot)
}

// onePlace demands one end of all tables of a stream that the log goes on with,
// with no snapshot beyond it.
func onePlace(views []*lake.View) error {
	ends := map[spot]int64{}
	for _, v := range views {
		if v.Hot == nil {
			continue
		}
		for _, s := range v.Hot.Spans {
			at := spot{v.Ident.Namespace, place{s.Incarnation, s.Partition, 0}}
			if end, ok := ends[at]; ok && end != s.To {
				return fmt.Errorf("one table of %v ends at %d, another one at %d", at, end, s.To)
			}
			ends[at] = s.To
		}
	}
	for _, v := range views {
		for inc, parts := range v.Positions {
			for partition, off := range parts {
				if end, ok := ends[spot{v.Ident.Namespace, place{inc, partition, 0}}]; ok && off > end {
					return fmt.Errorf("the snapshot of %s is at %d, beyond the end %d", v.Ident, off, end)
				}
			}
		}
	}
	return nil
}

// stored is what the log has by now.
func (o *onlookers) stored() (map[spot]logged, error) {
	ctx := context.Background()
	names, err := o.p.log.Streams(ctx)
	if err != nil {
		return nil, err
	}
	out := map[spot]logged{}
	var d recordbatch.Decoder
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		st, err := o.p.log.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, r := range st.Ranges {
			for at := (event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start}); at.Offset < r.End; {
				b, err := o.p.log.Read(ctx, name, at, 1<<20)
				if err != nil {
					return nil, err
				}
				err = d.EachIn(b, func(e *event.Event) error {
					l := logged{key: keyOf(e.Data), typ: string(e.Type), table: homeOf(string(e.Type), e.Contract.Hash), known: knownOf(e.Contract.Hash)}
					_ = json.Unmarshal(e.Data, &l.data)
					for name := range l.data { // of two the first counts
						if strings.Count(string(e.Data), `"`+name+`":`) > 1 {
							delete(l.data, name)
						}
					}
					out[spot{name, place{b.Incarnation, b.Partition, e.Offset}}] = l
					return nil
				})
				if err != nil {
					return nil, err
				}
				if at = b.End(); at.Incarnation != r.Incarnation {
					break
				}
			}
		}
	}
	return out, nil
}

// content demands that every row is what the log has there, with its numbers.
func (o *onlookers) content(views []*lake.View, rows []map[spot]row, there map[spot]logged, strict bool) error {
	for i, v := range views {
		for at, w := range rows[i] {
			o.book.mu.Lock()
			_, sent := o.book.sent[w.key()]
			o.book.mu.Unlock()
			if !sent {
				return fmt.Errorf("table %s has %q at %v, which nobody sent", v.Ident, w.key(), at)
			}
			l, ok := there[at]
			if !ok {
				continue // retention has dropped it
			}
			if l.key != w.key() {
				return fmt.Errorf("table %s has %q at %v, the log %q", v.Ident, w.key(), at, l.key)
			}
			if v.Ident.Name == lake.OtherTable || v.Ident.Namespace == event.RejectedStream {
				continue
			}
			for name, raw := range l.data {
				if name != "n" && !strings.HasSuffix(name, "_price") {
					continue
				}
				if l.known != nil {
					if w[name] != "" || strings.Contains(strings.ReplaceAll(w["_rescued"], `\`, ""), `"`+name+`":`) {
						return fmt.Errorf("%s of %s at %v is %q (rescued %q), its contract does not know it", name, v.Ident, at, w[name], w["_rescued"])
					}
					continue
				}
				want, err := strconv.ParseFloat(string(raw), 64)
				if err != nil {
					return err
				}
				got, err := strconv.ParseFloat(w[name], 64)
				inexact := string(raw) == "9007199254740993" && strings.Contains(w["_rescued"], name)
				if (err != nil || got != want) && !inexact {
					return fmt.Errorf("%s of %s at %v is %q (rescued %q), the client sent %s", name, v.Ident, at, w[name], w["_rescued"], raw)
				}
			}
		}
	}
	return nil
}

// expected demands of each table what the log has for it: up to the furthest row
// of any table of the stream, and all that was acknowledged before.
func (o *onlookers) expected(views []*lake.View, rows []map[spot]row, there map[spot]logged, acked map[string]bool) error {
	furthest := map[spot]int64{}
	for _, list := range rows {
		for at := range list {
			part := spot{at.stream, place{at.log, at.partition, 0}}
			furthest[part] = max(furthest[part], at.offset+1)
		}
	}
	of := map[lake.Ident]map[spot]row{}
	for i, v := range views {
		of[v.Ident] = rows[i]
	}
	for at, l := range there {
		id := lake.Ident{Namespace: at.stream, Name: l.table}
		if at.stream == event.RejectedStream {
			id.Name = event.RejectedStream
		}
		list, ok := of[id]
		if !ok {
			continue
		}
		if _, ok := list[at]; ok {
			continue
		}
		if acked[l.key] {
			return fmt.Errorf("event %s at %v was acknowledged before the cut and is not in %s", l.key, at, id)
		}
		if end := furthest[spot{at.stream, place{at.log, at.partition, 0}}]; at.offset < end {
			return fmt.Errorf("event %s at %v is not in %s, another table of the cut goes up to %d", l.key, at, id, end)
		}
	}
	return nil
}

// Queries beside clients, commits, new columns, retention, kills, power cuts and
// restarts never see a gap or a double.
func TestQueriesSeeWhatIsAcknowledgedOnce(t *testing.T) {
	t.Parallel()
	views := &looked{}
	first, histories := *begin, uint64(25)
	if *oneSeed != 0 {
		first, histories = *oneSeed, 1
	}
	if testing.Short() { // under the race detector
		histories = 6
	}
	var deadline time.Time
	if d := soaking(t); d > 0 {
		deadline, histories = time.Now().Add(d), 1<<40
	}
	n := 0
	for seed := first; seed < first+histories && (deadline.IsZero() || time.Now().Before(deadline)); seed++ {
		h := newHistory(t, rand.New(rand.NewPCG(seed, 1)))
		h.aim = allKinds[seed%uint64(len(allKinds))]
		h.faulty = seed%4 == 3
		h.looks = views
		if err := h.run(1 + h.rng.IntN(4)); err != nil {
			h.report(t.Name(), seed, err)
		}
		n++
	}
	t.Logf("%d histories: %v", n, views)
	if *oneSeed == 0 && histories > 6 && (views.strict.Load() == 0 || views.hot.Load() == 0 || views.retold.Load() == 0) {
		t.Error("something of it never happened")
	}
}
