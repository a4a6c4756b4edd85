// Package memory is a stream.Log without a disk, for tests: what it holds is
// gone with the process.
package memory

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// Log keeps everything in memory. All methods may be called concurrently.
type Log struct {
	mu struct {
		sync.Mutex
		closed       bool
		incarnations []event.Incarnation // oldest first; the last is the current one
		streams      map[string]*topic
		readers      map[string]stream.Progress
		changed      chan struct{} // closed at the next new stream or partition, or when events are dropped
		grown        chan struct{} // closed at the next append
	}
}

var (
	_ stream.Log       = (*Log)(nil)
	_ stream.Forgetter = (*Log)(nil)
	_ stream.Readers   = (*Log)(nil)
)

type topic struct {
	lives                 map[event.Incarnation]map[int32]*partition
	acknowledged, refused int64
}

// partition is one stream-partition in one incarnation.
type partition struct {
	start, end int64
	batches    []entry
	trimmed    int64 // events below start
}

type entry struct {
	next  int64 // first offset behind the batch
	count int32
	raw   []byte
}

// New makes an empty log of a new incarnation.
func New() *Log {
	l := &Log{}
	l.mu.incarnations = []event.Incarnation{newIncarnation()}
	l.mu.streams = map[string]*topic{}
	l.mu.readers = map[string]stream.Progress{}
	l.mu.changed = make(chan struct{})
	l.mu.grown = make(chan struct{})
	return l
}

func newIncarnation() (inc event.Incarnation) {
	_, _ = rand.Read(inc[:]) // never fails: it ends the process instead
	inc[6], inc[8] = inc[6]&0x0f|0x40, inc[8]&0x3f|0x80
	return inc
}

func (l *Log) current() event.Incarnation { return l.mu.incarnations[len(l.mu.incarnations)-1] }

// Append implements stream.Log.
func (l *Log) Append(ctx context.Context, writes ...stream.Write) ([]event.Position, error) {
	at, err := l.append(ctx, writes, nil)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	return at, nil
}

// Commit implements stream.Log.
func (l *Log) Commit(ctx context.Context, writes []stream.Write, reader string, at stream.Progress) error {
	if reader == "" || len(reader) > stream.MaxName {
		return fmt.Errorf("commit: %w: reader name %q: want 1 to %d bytes", stream.ErrBadWrite, reader, stream.MaxName)
	}
	_, err := l.append(ctx, writes, func() {
		at = at.Clone()
		l.mu.readers[reader] = at
	})
	if err != nil {
		return fmt.Errorf("commit %s: %w", reader, err)
	}
	return nil
}

func (l *Log) append(ctx context.Context, writes []stream.Write, also func()) ([]event.Position, error) {
	heads := make([]recordbatch.Head, len(writes))
	for i := range writes {
		h, err := writes[i].Check()
		if err != nil {
			return nil, err
		}
		heads[i] = h
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, stream.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	at := make([]event.Position, len(writes))
	for i, w := range writes {
		t := l.topic(w.Stream)
		if t.lives[l.current()][w.Partition] == nil {
			l.change()
		}
		p := t.partition(l.current(), w.Partition)
		at[i] = event.Position{Incarnation: l.current(), Partition: w.Partition, Offset: p.end}
		p.end += int64(heads[i].LastDelta) + 1
	}
	for i, w := range writes {
		t, n := l.topic(w.Stream), int64(w.Count)
		if w.Bind != nil {
			w.Bind(at, w.Batch)
		}
		recordbatch.Seal(w.Batch, at[i].Offset)
		p := t.partition(l.current(), w.Partition)
		p.batches = append(p.batches, entry{next: at[i].Offset + int64(heads[i].LastDelta) + 1, count: w.Count, raw: bytes.Clone(w.Batch)})
		switch {
		case w.Resent:
			moved, fresh := stream.Resend(t.refused, n)
			t.acknowledged += fresh
			t.refused -= moved
			l.topic(event.RejectedStream).refused += moved
		default:
			t.acknowledged += n
			if w.RefusedFrom != "" {
				from := l.topic(w.RefusedFrom)
				from.acknowledged += n
				from.refused += n
			}
		}
	}
	if also != nil {
		also()
	}
	if len(writes) > 0 {
		close(l.mu.grown)
		l.mu.grown = make(chan struct{})
	}
	return at, nil
}

// topic finds or makes a stream. The caller holds the lock.
func (l *Log) topic(name string) *topic {
	t := l.mu.streams[name]
	if t == nil {
		t = &topic{lives: map[event.Incarnation]map[int32]*partition{}}
		l.mu.streams[name] = t
		l.change()
	}
	return t
}

// change tells those who wait for Changed. The caller holds the lock.
func (l *Log) change() {
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
}

func (t *topic) partition(inc event.Incarnation, n int32) *partition {
	if t.lives[inc] == nil {
		t.lives[inc] = map[int32]*partition{}
	}
	p := t.lives[inc][n]
	if p == nil {
		p = &partition{}
		t.lives[inc][n] = p
	}
	return p
}

// Read implements stream.Log.
func (l *Log) Read(ctx context.Context, name string, from event.Position, limit stream.Bytes) (*event.Batch, error) {
	for {
		b, wait, err := l.read(name, from, limit)
		if err == nil && b == nil {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-wait:
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read %s at %s: %w", name, from, err)
		}
		return b, nil
	}
}

// read returns a batch, or a channel that closes when it is worth trying again.
func (l *Log) read(name string, from event.Position, limit stream.Bytes) (*event.Batch, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, nil, stream.ErrClosed
	}
	t := l.mu.streams[name]
	if t == nil {
		return nil, nil, stream.ErrNoStream
	}
	life, offset := 0, from.Offset
	fromStart := from.Incarnation.IsZero()
	if !fromStart {
		if life = slices.Index(l.mu.incarnations, from.Incarnation); life < 0 {
			return nil, nil, stream.ErrUnknownIncarnation
		}
	}
	for ; life < len(l.mu.incarnations); life++ {
		p := t.lives[l.mu.incarnations[life]][from.Partition]
		if p == nil {
			p = &partition{}
		}
		if fromStart {
			offset = p.start
		}
		switch {
		case offset > p.end:
			return nil, nil, stream.ErrBeyondEnd
		case offset < p.start:
			return nil, nil, stream.ErrTrimmed
		case offset < p.end:
			b := p.batch(offset, int(limit))
			b.Stream, b.Incarnation, b.Partition = name, l.mu.incarnations[life], from.Partition
			return b, nil, nil
		}
		fromStart = true // go on with the next one at its first offset
	}
	return nil, l.mu.grown, nil
}

func (p *partition) batch(offset int64, limit int) *event.Batch {
	b := &event.Batch{From: offset}
	i := sort.Search(len(p.batches), func(i int) bool { return p.batches[i].next > offset })
	for size := 0; i < len(p.batches); i++ {
		e := p.batches[i]
		if size += len(e.raw); size > limit && len(b.Raw) > 0 {
			break
		}
		b.Raw = append(b.Raw, e.raw)
		b.Next = e.next
	}
	return b
}

// Progress implements stream.Log.
func (l *Log) Progress(_ context.Context, reader string) (stream.Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return stream.Progress{}, fmt.Errorf("progress of %s: %w", reader, stream.ErrClosed)
	}
	p, ok := l.mu.readers[reader]
	if !ok {
		return stream.Progress{}, nil
	}
	return p.Clone(), nil
}

// Readers implements stream.Readers.
func (l *Log) Readers(context.Context) (map[string]stream.Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, fmt.Errorf("list readers: %w", stream.ErrClosed)
	}
	all := maps.Clone(l.mu.readers)
	for name, p := range all {
		all[name] = p.Clone()
	}
	return all, nil
}

// Forget implements stream.Forgetter.
func (l *Log) Forget(_ context.Context, reader string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return fmt.Errorf("forget %s: %w", reader, stream.ErrClosed)
	}
	delete(l.mu.readers, reader)
	return nil
}

// Stat implements stream.Log.
func (l *Log) Stat(_ context.Context, name string) (stream.Stat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.mu.streams[name]
	switch {
	case l.mu.closed:
		return stream.Stat{}, fmt.Errorf("stat %s: %w", name, stream.ErrClosed)
	case t == nil:
		return stream.Stat{}, fmt.Errorf("stat %s: %w", name, stream.ErrNoStream)
	}
	st := stream.Stat{Stream: name, Incarnation: l.current(), Acknowledged: t.acknowledged, Refused: t.refused}
	for _, inc := range l.mu.incarnations {
		for _, n := range slices.Sorted(maps.Keys(t.lives[inc])) {
			p := t.lives[inc][n]
			st.Ranges = append(st.Ranges, stream.Range{Incarnation: inc, Partition: n, Start: p.start, End: p.end})
			if p.trimmed > 0 {
				if st.Trimmed == nil {
					st.Trimmed = map[int32]int64{}
				}
				st.Trimmed[n] += p.trimmed
			}
			for _, e := range p.batches {
				st.Bytes += int64(len(e.raw))
			}
		}
	}
	return st, nil
}

// Streams implements stream.Log.
func (l *Log) Streams(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, fmt.Errorf("list streams: %w", stream.ErrClosed)
	}
	return slices.Sorted(maps.Keys(l.mu.streams)), nil
}

// Changed implements stream.Log.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.changed
}

// Close implements stream.Log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.closed {
		l.mu.closed = true
		close(l.mu.grown)
	}
	return nil
}

// Trim drops record batches that lie wholly below an offset of the current
// incarnation, as retention would.
func (l *Log) Trim(name string, partition int32, below int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.topic(name).partition(l.current(), partition)
	for len(p.batches) > 0 && p.batches[0].next <= below {
		p.trimmed += int64(p.batches[0].count)
		p.start, p.batches = p.batches[0].next, p.batches[1:]
	}
	l.change()
}

// Cut closes the current incarnation and begins a new one, as a repair does.
// Offsets go on where the closed incarnation ended.
func (l *Log) Cut() event.Incarnation {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, inc := l.current(), newIncarnation()
	l.mu.incarnations = append(l.mu.incarnations, inc)
	for _, t := range l.mu.streams {
		for n, p := range t.lives[old] {
			q := t.partition(inc, n)
			q.start, q.end = p.end, p.end
		}
	}
	return inc
}
