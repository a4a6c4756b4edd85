package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/stream"
)

// ledger is what the clients know, and what the log was once seen to hold: both
// have to be true for ever.
type ledger struct {
	mu    sync.Mutex
	sent  map[string]string // key → stream it was sent to
	bad   map[string]bool   // keys that are to be refused
	acked map[string]bool
	at    map[string]spot             // of acknowledged events, where the answer tells
	held  map[string]map[place]string // by stream
}

type spot struct {
	stream string
	place
}

func newLedger() *ledger {
	return &ledger{sent: map[string]string{}, bad: map[string]bool{}, acked: map[string]bool{}, at: map[string]spot{}, held: map[string]map[place]string{}}
}

func (l *ledger) send(s shipment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, it := range s.items {
		l.sent[it.key] = s.stream
		if it.bad {
			l.bad[it.key] = true
		}
	}
}

// ack notes an answer. log is the incarnation.
func (l *ledger) ack(s shipment, a answer, partitions int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var good []string
	for _, it := range s.items {
		l.acked[it.key] = true
		if !it.bad {
			good = append(good, it.key)
		}
	}
	if partitions == 1 && len(a.Positions) == 1 {
		for i, k := range good {
			l.at[k] = spot{s.stream, place{partition: 0, offset: a.Positions[0].First + int64(i)}}
		}
	}
}

func (l *ledger) acknowledged() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

// learn takes in what a log holds after its recovery: nothing that was seen, or
// acknowledged, may be gone, but for what retention dropped after it was loaded:
// that the tables tell.
func (l *ledger) learn(log stream.Log, tables map[lake.Ident]*contents, acked map[string]bool) error {
	now, err := stored(log)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, events := range now {
		st, err := log.Stat(context.Background(), name)
		if err != nil {
			return err
		}
		if l.held[name] == nil {
			l.held[name] = map[place]string{}
		}
		seen := l.held[name]
		for p, k := range events {
			if k == "" {
				return fmt.Errorf("stream %s: an event without a key at %v", name, p)
			}
			if was, ok := seen[p]; ok && was != k {
				return fmt.Errorf("stream %s: %v was %s and is %s now", name, p, was, k)
			}
			seen[p] = k
		}
		for p, k := range seen {
			if events[p] != "" {
				continue
			}
			trimmed := slices.ContainsFunc(st.Ranges, func(r stream.Range) bool {
				return r.Incarnation == p.log && r.Partition == p.partition && p.offset < r.Start
			})
			if !trimmed {
				return fmt.Errorf("stream %s: %s at %v was in the log and is gone", name, k, p)
			}
		}
		for id, c := range tables {
			if id.Namespace != name {
				continue
			}
			for _, r := range c.rows {
				p, err := r.place()
				if err != nil {
					return fmt.Errorf("table %s: %w", id, err)
				}
				trimmed := slices.ContainsFunc(st.Ranges, func(r stream.Range) bool {
					return r.Incarnation == p.log && r.Partition == p.partition && p.offset < r.Start
				})
				if _, ok := seen[p]; trimmed && !ok {
					seen[p] = r.key()
				}
			}
		}
	}
	where := map[string]spot{}
	for name, events := range l.held {
		for p, k := range events {
			if other, ok := where[k]; ok {
				return fmt.Errorf("event %s is in the log twice: %v and %v", k, other, p)
			}
			where[k] = spot{name, p}
			want := l.sent[k]
			if l.bad[k] {
				want = event.RejectedStream
			}
			if name != want {
				return fmt.Errorf("event %s is in stream %s and not in %s", k, name, want)
			}
		}
	}
	for k := range acked {
		at, ok := where[k]
		if !ok {
			return fmt.Errorf("event %s was acknowledged and is not in the log", k)
		}
		if told, ok := l.at[k]; ok && (told.stream != at.stream || told.partition != at.partition || told.offset != at.offset) {
			return fmt.Errorf("event %s was acknowledged at %v and is at %v", k, told, at)
		}
	}
	return nil
}

// proof compares tables, log and ledger. whole says that everything has been
// loaded; otherwise tables may lag, and nothing more.
func (l *ledger) proof(log stream.Log, tables map[lake.Ident]*contents, whole bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx := context.Background()
	names, err := log.Streams(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		st, err := log.Stat(ctx, name)
		if err != nil {
			return err
		}
		reader, err := log.Progress(ctx, stream.DefaultReader+name)
		if err != nil {
			return err
		}
		if err := l.proofOf(st, reader, tables, whole); err != nil {
			errs = append(errs, fmt.Errorf("stream %s: %w", name, err))
		}
	}
	for id, c := range tables {
		if !slices.Contains(names, id.Namespace) && len(c.rows) > 0 {
			errs = append(errs, fmt.Errorf("table %s has rows, and the log knows no such stream", id))
		}
	}
	return errors.Join(errs...)
}

func (l *ledger) proofOf(st stream.Stat, reader stream.Progress, tables map[lake.Ident]*contents, whole bool) error {
	ends := map[event.Incarnation]map[int32]int64{}
	total := int64(0)
	for _, r := range st.Ranges {
		if ends[r.Incarnation] == nil {
			ends[r.Incarnation] = map[int32]int64{}
		}
		ends[r.Incarnation][r.Partition] = r.End
		if r.Incarnation == st.Incarnation {
			total += r.End
		}
	}
	held := l.held[st.Stream]
	if int64(len(held)) != total {
		return fmt.Errorf("the log ends at %d events, it was seen to hold %d", total, len(held))
	}
	refused := int64(0)
	for k := range maps.Values(l.held[event.RejectedStream]) {
		if l.sent[k] == st.Stream {
			refused++
		}
	}
	if st.Stream == event.RejectedStream {
		refused = 0
	}
	if st.Refused != refused || st.Acknowledged != total+refused {
		return fmt.Errorf("the log counts %d acknowledged and %d refused events; it has %d and %d", st.Acknowledged, st.Refused, total+refused, refused)
	}
	// The watermark covers only what is there, and its count is exact.
	below := int64(0)
	for p := range held {
		if at, ok := reader.Positions.Get(p.log, p.partition); ok && p.offset < at {
			below++
		}
	}
	if reader.Counts.Written != below {
		return fmt.Errorf("the watermark %s counts %d written events; %d are below it", reader.Positions, reader.Counts.Written, below)
	}
	loaded := map[place]lake.Ident{}
	for id, c := range tables {
		if id.Namespace != st.Stream {
			continue
		}
		for inc, parts := range c.positions {
			for partition, off := range parts {
				if off > ends[inc][partition] {
					return fmt.Errorf("table %s is ahead of the log: it covers %d of partition %d, the log ends at %d", id, off, partition, ends[inc][partition])
				}
			}
		}
		for _, r := range c.rows {
			p, err := r.place()
			if err != nil {
				return fmt.Errorf("table %s: %w", id, err)
			}
			if other, ok := loaded[p]; ok {
				return fmt.Errorf("event %s at %v is in %s and again in %s", r.key(), p, other, id)
			}
			loaded[p] = id
			if held[p] != r.key() {
				return fmt.Errorf("table %s has %q at %v, the log %q", id, r.key(), p, held[p])
			}
			if off, _ := c.positions.Get(p.log, p.partition); p.offset >= off {
				return fmt.Errorf("table %s has %v beyond its own positions %s", id, p, c.positions)
			}
			want := lake.TableName(r["_type"])
			if st.Stream == event.RejectedStream {
				want = event.RejectedStream
			}
			if id.Name != want && id.Name != askedTables[r["_type"]] && id.Name != lake.OtherTable {
				return fmt.Errorf("an event of type %q is in table %s", r["_type"], id)
			}
		}
	}
	for p, k := range held {
		if _, ok := loaded[p]; ok {
			continue
		}
		if at, ok := reader.Positions.Get(p.log, p.partition); ok && p.offset < at {
			return fmt.Errorf("the watermark %s is ahead of the tables: %s at %v is in none", reader.Positions, k, p)
		}
		if whole {
			return fmt.Errorf("event %s at %v is in no table", k, p)
		}
	}
	if whole && below != total {
		return fmt.Errorf("everything is loaded, and the watermark %s covers %d of %d events", reader.Positions, below, total)
	}
	return nil
}
