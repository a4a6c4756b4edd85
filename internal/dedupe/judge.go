package dedupe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// Deps are what a Judge works with.
type Deps struct {
	FS     vfs.FS
	Dir    string // of the indexes
	Log    stream.Log
	Logger *slog.Logger
	// Now stamps the records of verdicts; nil: time.Now.
	Now func() time.Time
	// Pause after an error, doubled with each that follows; 0: 100 ms.
	Pause time.Duration
	// Sync is after how many bytes of a log's events their ids are made durable;
	// 0: the default. Tests lower it.
	Sync int64
	// Partitions is how many a stream is expected to have: they share its index.
	Partitions int32
}

// Judge finds the duplicates of all streams. Safe for concurrent use.
type Judge struct {
	cfg    Config
	fs     vfs.FS
	dir    string
	log    stream.Log
	logger *slog.Logger
	now    func() time.Time
	pause  time.Duration
	sync   int64
	parts  int

	mu struct {
		sync.Mutex
		lanes  map[laneID]*lane
		courts map[string]*court
		ended  error // why nobody judges any more
	}
}

// New makes a judge; Open makes it usable.
func New(cfg Config, d Deps) *Judge {
	j := &Judge{cfg: cfg, fs: d.FS, dir: d.Dir, log: d.Log, logger: d.Logger, now: d.Now, pause: d.Pause}
	if j.pause == 0 {
		j.pause = pauseMin
	}
	j.parts = int(d.Partitions)
	if j.sync = d.Sync; j.sync == 0 {
		j.sync = syncBytes
	}
	if j.now == nil {
		j.now = time.Now
	}
	j.mu.lanes, j.mu.courts = map[laneID]*lane{}, map[string]*court{}
	return j
}

// The readers that judge are "dedupe/" and the stream's name. The one without a
// name reads nothing: it is there since the log was first opened with a judge, so
// a stream without a reader has come since, and is judged from its first event.
const sinceReader = stream.JudgeReader

func readerOf(name string) string { return stream.JudgeReader + name }

// idsReaderOf names the reader whose position is up to where ids are durable in
// files: retention leaves the events of the others, from which they can be read.
func idsReaderOf(name string) string { return stream.JudgeReader + "ids/" + name }

// Open takes note of the streams that are there. Where nothing has been judged
// before, judging begins at their ends: what is there may be in tables already.
// It comes before the first event of this process.
func (j *Judge) Open(ctx context.Context) error {
	if err := j.fs.MkdirAll(j.dir); err != nil {
		return fmt.Errorf("make folder of ids: %w", err)
	}
	at, err := j.log.Progress(ctx, sinceReader)
	if err != nil {
		return fmt.Errorf("open judge: %w", err)
	}
	if at.Positions != nil {
		return nil
	}
	names, err := j.log.Streams(ctx)
	if err != nil {
		return fmt.Errorf("open judge: %w", err)
	}
	for _, name := range names {
		if !judged(name) {
			continue
		}
		st, err := j.log.Stat(ctx, name)
		if err != nil {
			return fmt.Errorf("open judge: %w", err)
		}
		at := begun(name)
		total := int64(0)
		for _, r := range st.Ranges {
			if r.Incarnation == st.Incarnation {
				at.Positions.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.End})
				at.Events[r.Partition] = 0
				total += r.End
			}
		}
		if err := j.log.Commit(ctx, nil, readerOf(name), at); err != nil {
			return fmt.Errorf("open judge: %w", err)
		}
		if total > 0 {
			j.logger.Info("duplicates are looked for from here on; what came before counts as written once", slog.String("stream", name),
				slog.String("from", at.Positions.String()))
		}
	}
	if err := j.log.Commit(ctx, nil, sinceReader, begun(streamPrefix)); err != nil {
		return fmt.Errorf("open judge: %w", err)
	}
	return nil
}

func begun(name string) stream.Progress {
	return stream.Progress{Stream: name, Positions: event.Positions{}, Events: map[int32]int64{}}
}

// judged tells whether a stream has a judge.
func judged(name string) bool {
	return name != event.RejectedStream && name != event.RejectedStates && !event.Internal(name)
}

// errEnded: the judge has been stopped.
var errEnded = errors.New("the judge of duplicates has stopped")

// Run judges until ctx ends. It returns early, with the cause, when the log is
// poisoned or closed. Who waits for a verdict then is told that none comes.
func (j *Judge) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	var first struct {
		sync.Once
		err error
	}
	fail := func(err error) {
		first.Do(func() { first.err = err })
		cancel(err)
	}
	known := map[string]bool{}
	for ctx.Err() == nil {
		changed := j.log.Changed()
		names, err := j.log.Streams(ctx)
		if err != nil {
			fail(fmt.Errorf("list streams: %w", err))
			break
		}
		for _, name := range names {
			if known[name] || !judged(name) {
				continue
			}
			known[name] = true
			c := &court{judge: j, stream: name, logger: j.logger.With(slog.String("stream", name))}
			j.mu.Lock()
			j.mu.courts[name] = c
			j.mu.Unlock()
			running.Go(func() {
				if err := c.run(ctx); err != nil {
					fail(fmt.Errorf("judge %s: %w", name, err))
				}
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	running.Wait()
	j.end(cmp.Or(first.err, errEnded))
	return first.err
}

func (j *Judge) end(why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.ended = why
	for _, l := range j.mu.lanes {
		l.fail(why)
	}
}

// lane gives the lane of a partition, made when it is first met.
func (j *Judge) lane(id laneID) *lane {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.mu.lanes[id]
	if l == nil {
		l = newLane(j, id)
		l.mu.err = j.mu.ended
		j.mu.lanes[id] = l
	}
	return l
}

// court judges one stream: its partitions side by side, with one position in the
// log for them all.
type court struct {
	judge  *Judge
	stream string
	logger *slog.Logger

	// committing is held while the position is written: each commit has that of all
	// partitions, so one must not overtake another.
	committing sync.Mutex
	at         stream.Progress
	ids        stream.Progress // of idsReaderOf

	mu struct {
		sync.Mutex
		counts stream.Counts // as committed
		err    error
	}
}

// Pauses after an error.
const (
	pauseMin = 100 * time.Millisecond
	pauseMax = 30 * time.Second
)

func (c *court) run(ctx context.Context) error {
	pause := c.judge.pause
	for {
		began := time.Now()
		err := c.session(ctx)
		if errors.Is(err, fault.ErrPoisoned) || errors.Is(err, stream.ErrClosed) {
			return err
		}
		if ctx.Err() != nil {
			if err != nil {
				c.logger.Warn("judge stopped; the next start goes on where its position is", slog.Any("error", err))
			}
			return nil
		}
		if time.Since(began) > pauseMax {
			pause = c.judge.pause
		}
		c.logger.Error("judge of duplicates stopped; trying again", slog.Any("error", err), slog.String("hint", fault.HintOf(err)), slog.Duration("pause", pause))
		c.fail(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, pauseMax)
	}
}

// fail tells who waits for verdicts that none come until the judge goes on.
func (c *court) fail(err error) {
	c.mu.Lock()
	c.mu.err = err
	c.mu.Unlock()
	c.judge.mu.Lock()
	defer c.judge.mu.Unlock()
	for id, l := range c.judge.mu.lanes {
		if id.stream == c.stream {
			l.fail(err)
		}
	}
}

// session judges until something fails or ctx ends.
func (c *court) session(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	failed := make(chan error, 1)
	known := map[int32]bool{}
	for {
		changed := c.judge.log.Changed()
		st, err := c.judge.log.Stat(ctx, c.stream)
		if err != nil {
			stop()
			return fmt.Errorf("stat %s: %w", c.stream, err)
		}
		for _, r := range st.Ranges {
			if known[r.Partition] {
				continue
			}
			known[r.Partition] = true
			l := c.judge.lane(laneID{c.stream, r.Partition})
			running.Go(func() {
				if err := l.run(ctx, c, st); err != nil {
					select {
					case failed <- err:
					default: // one reason is enough
					}
				}
			})
		}
		select {
		case <-changed: // maybe there are new partitions
		case err := <-failed:
			stop()
			return err
		case <-ctx.Done():
			running.Wait()
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
	}
}

// begin loads the position. A stream that came since Open is judged from its first
// event that is left.
func (c *court) begin(ctx context.Context) error {
	at, err := c.judge.log.Progress(ctx, readerOf(c.stream))
	if err != nil {
		return fmt.Errorf("load position of judge: %w", err)
	}
	if at.Positions == nil {
		at = begun(c.stream)
		if err := c.judge.log.Commit(ctx, nil, readerOf(c.stream), at); err != nil {
			return fmt.Errorf("register judge: %w", err)
		}
	}
	ids, err := c.judge.log.Progress(ctx, idsReaderOf(c.stream))
	if err != nil {
		return fmt.Errorf("load position of ids: %w", err)
	}
	if ids.Positions == nil {
		ids = begun(c.stream)
		ids.Positions = at.Positions.Clone()
		if err := c.judge.log.Commit(ctx, nil, idsReaderOf(c.stream), ids); err != nil {
			return fmt.Errorf("register ids: %w", err)
		}
	}
	c.committing.Lock()
	c.at, c.ids = at.Clone(), ids.Clone()
	c.committing.Unlock()
	c.mu.Lock()
	c.mu.counts = at.Counts
	c.mu.err = nil
	c.mu.Unlock()
	return nil
}

// position is where a partition goes on, up to where its ids are in files, and how
// many were remembered before.
func (c *court) position(st stream.Stat, partition int32) (at, durable event.Position, ordinal int64) {
	c.committing.Lock()
	defer c.committing.Unlock()
	return reached(c.at, st, partition), reached(c.ids, st, partition), c.at.Events[partition]
}

// reached is the position of a reader in a partition.
func reached(progress stream.Progress, st stream.Stat, partition int32) event.Position {
	at := event.Position{Partition: partition}
	found := false
	for _, r := range st.Ranges { // closed lives first, so the last known one wins
		if r.Partition != partition {
			continue
		}
		off, ok := progress.Positions.Get(r.Incarnation, partition)
		if ok {
			if r.Incarnation != st.Incarnation {
				off = min(off, r.End) // a repair may have cut off what was judged before
			}
			at, found = event.Position{Incarnation: r.Incarnation, Partition: partition, Offset: max(off, r.Start)}, true
		} else if !found && at.Incarnation.IsZero() {
			at = event.Position{Incarnation: r.Incarnation, Partition: partition, Offset: r.Start}
		}
	}
	return at
}

// commit writes down a verdict, if there is any, and the position behind it.
func (c *court) commit(ctx context.Context, at event.Position, kept int64, counts stream.Counts, v *Verdict) error {
	c.committing.Lock()
	defer c.committing.Unlock()
	next := c.at.Clone()
	next.Positions.Advance(at)
	next.Events[at.Partition] += kept
	next.Counts = next.Counts.Plus(counts)
	var writes []stream.Write
	if v != nil {
		writes = append(writes, v.write(c.stream, at.Partition, c.judge.now()))
	}
	// The log, under the lock: see committing.
	if err := c.judge.log.Commit(ctx, writes, readerOf(c.stream), next); err != nil {
		return fmt.Errorf("write verdicts on %s: %w", c.stream, err)
	}
	c.at = next
	c.mu.Lock()
	c.mu.counts = next.Counts
	c.mu.Unlock()
	return nil
}

// durable says that the ids of all events before a position are in synced files, and
// of no others.
func (c *court) durable(ctx context.Context, at event.Position) error {
	c.committing.Lock()
	defer c.committing.Unlock()
	next := c.ids.Clone()
	for _, partitions := range next.Positions {
		delete(partitions, at.Partition) // files that were lost are made again from further back
	}
	next.Positions.Advance(at)
	if err := c.judge.log.Commit(ctx, nil, idsReaderOf(c.stream), next); err != nil {
		return fmt.Errorf("write position of ids of %s: %w", c.stream, err)
	}
	c.ids = next
	return nil
}

// Status is what a judge shows of one stream.
type Status struct {
	Stream string `json:"stream"`
	// Duplicates and Conflicts are counted since judging began.
	Duplicates int64 `json:"duplicates"`
	Conflicts  int64 `json:"id_conflicts"`
	// IDs are remembered now, in so many bytes of files and of memory.
	IDs    int64 `json:"ids"`
	Disk   int64 `json:"disk_bytes"`
	Memory int64 `json:"memory_bytes"`
	// Window is for how long back ids are known, in seconds: the configured one,
	// or less when the index is full.
	Window float64 `json:"window_seconds"`
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
}

// Status lists the streams by name.
func (j *Judge) Status() []Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Status, 0, len(j.mu.courts))
	for name, c := range j.mu.courts {
		c.mu.Lock()
		s := Status{Stream: name, Duplicates: c.mu.counts.Duplicates, Conflicts: c.mu.counts.Filtered, Window: j.cfg.Window.Std().Seconds()}
		if c.mu.err != nil {
			s.Error, s.Hint = c.mu.err.Error(), fault.HintOf(c.mu.err)
		}
		c.mu.Unlock()
		for id, l := range j.mu.lanes {
			if id.stream == name {
				l.show(&s)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Stream, b.Stream) })
	return out
}

// folderOf is where the index of a lane lies.
func (j *Judge) folderOf(id laneID) string {
	return filepath.Join(j.dir, id.stream, strconv.Itoa(int(id.partition)))
}
