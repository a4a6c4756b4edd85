// Package seglog is the embedded log: one interleaved write-ahead log per
// folder, in segment files, with one writer that commits groups. The format is
// described in docs/format/log.md, the rules in EXACTNESS 1.
//
// Lock order: Log.retention, Log.mu, segment.mu; queue.mu and pool.mu before
// segment.mu, otherwise alone.
package seglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// Log implements stream.Log on files.
type Log struct {
	fs    vfs.FS
	dir   string
	cfg   Config
	log   *slog.Logger
	lock  io.Closer
	clock func() time.Time // the wall, for what is stored and for retention

	mu struct {
		sync.Mutex
		*state
		segments []*segment // oldest first, replaced as a whole; the last is the active one
		index    *index     // of the active segment
		limit    int64      // of the active segment: synced up to here
		closed   bool
		err      error // why the log is poisoned
		changed  chan struct{}
	}

	// retention is held while segments are dropped, I/O included: one at a time.
	retention struct {
		sync.Mutex
		since map[uint64]time.Time // since when a segment counts as too old
		waits uint64               // the segment of the last warning that readers hold it
	}
	waits atomic.Pointer[waiting] // nil: retention waits for nobody

	queue    queue
	requests requests
	w        *writer // owned by the writer's goroutine
	pool     pool
	cache    footerCache
	verified atomic.Pointer[verifiedFrame] // the last one that a read took a part of
	stats    counters
	full     atomic.Bool
	poison   chan struct{} // closed when the log is poisoned
	stop     chan struct{} // closed by Close
	nudge    chan struct{} // for the keeper: something has changed
	done     sync.WaitGroup
}

var (
	_ stream.Log       = (*Log)(nil)
	_ stream.Forgetter = (*Log)(nil)
	_ stream.Readers   = (*Log)(nil)
	_ stream.Retainer  = (*Log)(nil)
)

// Open opens the log in dir, or makes one, and recovers what the last process
// left. The folder must exist and must not be open elsewhere (vfs.ErrLocked).
// Damage is a *fault.Corrupt with the file and the place. log may be nil.
func Open(fs vfs.FS, dir string, cfg Config, log *slog.Logger) (*Log, error) {
	clock := cfg.Clock
	if clock == nil {
		clock = time.Now
	}
	return open(fs, dir, cfg, log, clock)
}

func open(fs vfs.FS, dir string, cfg Config, log *slog.Logger, clock func() time.Time) (l *Log, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure log: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l = &Log{
		fs: fs, dir: dir, cfg: cfg, log: log, clock: clock,
		poison: make(chan struct{}), stop: make(chan struct{}), nudge: make(chan struct{}, 1),
	}
	l.mu.changed = make(chan struct{})
	l.retention.since = map[uint64]time.Time{}
	l.queue.init(int64(cfg.Queue))
	l.pool.init(l)
	l.cache.init(int64(cfg.IndexCache))
	if l.lock, err = fs.Lock(l.path(lockName)); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = fault.WithHint(err, "another naru works on %s: stop it, or give this one a folder of its own", dir)
		}
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.recover(); err != nil {
		_ = l.lock.Close() // the recovery's error is the news
		return nil, fmt.Errorf("open log: %w", err)
	}
	l.checkDisk()
	l.done.Go(l.write)
	l.done.Go(l.keep)
	return l, nil
}

func (l *Log) path(name string) string { return l.dir + "/" + name }

// Append implements stream.Log. It may also return a *fault.RetryAfter when the
// queue stays full until ctx is done or when the disk is (stream.ErrFull), and
// fault.ErrPoisoned.
func (l *Log) Append(ctx context.Context, writes ...stream.Write) ([]event.Position, error) {
	if len(writes) == 0 {
		if err := l.usable(); err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		return nil, nil
	}
	r := l.requests.get(kindAppend)
	defer l.requests.put(r)
	r.at = make([]event.Position, len(writes))
	if err := r.prepare(writes); err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	if err := l.do(ctx, r); err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	return r.at, nil
}

// Commit implements stream.Log. Without writes it goes on while the disk has
// less than the reserve left: the next segment is then taken from that.
func (l *Log) Commit(ctx context.Context, writes []stream.Write, reader string, at stream.Progress) error {
	if err := checkReader(reader); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	r := l.requests.get(kindCommit)
	defer l.requests.put(r)
	r.at = make([]event.Position, len(writes))
	if err := r.prepare(writes); err != nil {
		return fmt.Errorf("commit %s: %w", reader, err)
	}
	r.extra = appendProgressSection(r.extra, appendProgress(nil, reader, at))
	r.extras++
	if err := l.do(ctx, r); err != nil {
		return fmt.Errorf("commit %s: %w", reader, err)
	}
	return nil
}

// Forget implements stream.Forgetter.
func (l *Log) Forget(ctx context.Context, reader string) error {
	if err := checkReader(reader); err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	l.mu.Lock()
	known := false
	if l.mu.state != nil {
		_, known = l.mu.readers[reader]
	}
	l.mu.Unlock()
	if !known {
		if err := l.usable(); err != nil {
			return fmt.Errorf("forget %s: %w", reader, err)
		}
		return nil
	}
	r := l.requests.get(kindCommit)
	defer l.requests.put(r)
	r.extra = appendForgetSection(r.extra, reader)
	r.extras++
	if err := l.do(ctx, r); err != nil {
		return fmt.Errorf("forget %s: %w", reader, err)
	}
	return nil
}

func checkReader(name string) error {
	if name == "" || len(name) > stream.MaxName {
		return fmt.Errorf("%w: reader name %q: want 1 to %d bytes", stream.ErrBadWrite, name, stream.MaxName)
	}
	return nil
}

// do hands a request to the writer and waits for it.
func (l *Log) do(ctx context.Context, r *request) error {
	if size := r.frameSize(); size > l.cfg.maxFrame() {
		return fmt.Errorf("%w: a frame of %d bytes, the largest is %d (a quarter of a segment)", fault.ErrLimit, size, l.cfg.maxFrame())
	}
	if err := l.usable(); err != nil {
		return err
	}
	if len(r.writes) > 0 && l.full.Load() {
		return l.fullError()
	}
	if err := l.queue.put(ctx, r); err != nil {
		if gone := l.usable(); gone != nil {
			return gone // it closed while we waited
		}
		return err
	}
	// The writer works with the request's bytes: no way out before it is done.
	<-r.done
	return r.err
}

// fullAfter is when a client should come back to a full disk.
const fullAfter = 10 * time.Second

func (l *Log) fullError() error {
	return fault.WithHint(&fault.RetryAfter{Err: stream.ErrFull, After: fullAfter},
		"free space on the disk of %s, or lower log.reserve (%s) or log.retain_bytes", l.dir, l.cfg.Reserve)
}

// usable returns why no call can succeed any more, if so.
func (l *Log) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usableLocked()
}

func (l *Log) usableLocked() error {
	if l.mu.err != nil {
		return l.mu.err
	}
	if l.mu.closed {
		return stream.ErrClosed
	}
	return nil
}

// Progress implements stream.Log.
func (l *Log) Progress(_ context.Context, reader string) (stream.Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return stream.Progress{}, fmt.Errorf("progress of %s: %w", reader, err)
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
	if err := l.usableLocked(); err != nil {
		return nil, fmt.Errorf("list readers: %w", err)
	}
	all := make(map[string]stream.Progress, len(l.mu.readers))
	for name, p := range l.mu.readers {
		all[name] = p.Clone()
	}
	return all, nil
}

// Stat implements stream.Log.
func (l *Log) Stat(_ context.Context, name string) (stream.Stat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return stream.Stat{}, fmt.Errorf("stat %s: %w", name, err)
	}
	t := l.mu.topics[name]
	if t == nil {
		return stream.Stat{}, fmt.Errorf("stat %s: %w", name, stream.ErrNoStream)
	}
	st := stream.Stat{Stream: name, Incarnation: l.mu.incarnation, Acknowledged: t.acknowledged, Refused: t.refused}
	for _, n := range slices.Sorted(maps.Keys(t.parts)) {
		p := t.parts[n]
		for _, in := range l.mu.lives(p) {
			st.Ranges = append(st.Ranges, stream.Range{Incarnation: in.incarnation, Partition: n, Start: in.start, End: in.end})
		}
		st.Lost = append(st.Lost, l.mu.lostOf(p)...)
		st.Bytes += p.bytes - p.startBytes
		if p.startEvents > 0 {
			if st.Trimmed == nil {
				st.Trimmed = map[int32]int64{}
			}
			st.Trimmed[n] = p.startEvents
		}
	}
	order := map[event.Incarnation]int{l.mu.incarnation: len(l.mu.state.closed)}
	for i, c := range l.mu.state.closed {
		order[c.incarnation] = i
	}
	slices.SortStableFunc(st.Ranges, func(a, b stream.Range) int { return order[a.Incarnation] - order[b.Incarnation] })
	return st, nil
}

// Streams implements stream.Log.
func (l *Log) Streams(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	return slices.Sorted(maps.Keys(l.mu.topics)), nil
}

// Changed implements stream.Log.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.changed
}

// changeLocked tells those who wait for Changed.
func (l *Log) changeLocked() {
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
}

// Err returns why the log is poisoned, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}

// Poisoned is closed when a write or sync has failed: the process must end.
func (l *Log) Poisoned() <-chan struct{} { return l.poison }

// fail poisons the log.
func (l *Log) fail(err error) {
	l.mu.Lock()
	first := l.mu.err == nil
	if first {
		l.mu.err = fmt.Errorf("%w: %w", fault.ErrPoisoned, err)
		for _, t := range l.mu.topics {
			t.wakeReaders()
		}
		close(l.poison)
	}
	l.mu.Unlock()
	if first {
		l.queue.close()
		if fn := l.cfg.Listener.Poisoned; fn != nil {
			fn(err)
		}
	}
}

// Close implements stream.Log: what is queued is written, the promise frame is
// the last one.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		l.done.Wait()
		return nil
	}
	l.mu.closed = true
	for _, t := range l.mu.topics {
		t.wakeReaders()
	}
	l.mu.Unlock()
	l.queue.close()
	close(l.stop)
	l.done.Wait()
	err := l.w.close()
	if l.Err() == nil {
		err = errors.Join(err, l.writeMark())
	}
	if perr := l.Err(); perr != nil {
		err = perr
	}
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
