package simulation

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// errDown is what a process gets whose machine has lost power, or which is dead.
var errDown = errors.New("the machine is down")

// errNoAnswer is what a catalog gives whose answer was lost.
var errNoAnswer = errors.New("no answer from the catalog")

// image is what is left of a machine after a cut.
type image struct {
	disk *vfs.Memory
	rows *iceberg.MemoryCatalog
	// inFlight names what was going on at the cut.
	inFlight []string
}

// machine is one life of a machine: a disk and a catalog behind a gate that can
// be shut at any operation. Nothing passes it while an image is taken.
type machine struct {
	disk *vfs.Memory
	rows *iceberg.MemoryCatalog

	gate sync.RWMutex
	dead bool // under gate
	down chan struct{}

	mu     sync.Mutex // guards what follows; taken inside gate
	rng    *rand.Rand
	step   int
	cutAt  int    // step at which the power is cut; 0: never
	cutOn  string // or when this is in flight, skip operations later
	skip   int
	kill   bool
	left   image // after the cut
	faults faults
	late   []swap         // answered with errNoAnswer, and still to come
	hit    map[string]int // faults that happened

	flight flight
	onStep func(step int, op vfs.Op, path string) // before each operation, for exhaustive cuts
}

type swap struct {
	table    lake.Ident
	from, to string
	due      int // step
}

// faults are the odds of what may go wrong in one operation.
type faults struct {
	disk    float64 // an operation on a file or folder fails
	slow    float64 // it takes its time
	catalog float64 // a swap is refused, or its answer is lost
}

func newMachine(disk *vfs.Memory, rows *iceberg.MemoryCatalog, rng *rand.Rand) *machine {
	// Its own numbers: what the rest of the plan is must not depend on how many
	// operations there are.
	own := rand.New(rand.NewPCG(rng.Uint64(), 9))
	return &machine{disk: disk, rows: rows, rng: own, down: make(chan struct{}), hit: map[string]int{}, flight: newFlight()}
}

// do is one operation. It counts, perhaps cuts, perhaps fails.
func (m *machine) do(op vfs.Op, name string, size int, call func() error) error {
	injected, slow, err := m.begin(op, name)
	if err != nil {
		return err
	}
	if slow {
		time.Sleep(200 * time.Microsecond)
	}
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.dead {
		return &fs.PathError{Op: op.String(), Path: name, Err: errDown}
	}
	if injected != nil {
		// The disk itself fails, so that it forgets what a failed sync forgets.
		// Another call of the kind may meet it first: that is as good.
		m.disk.Inject(vfs.Rule{Ops: op, Times: 1, Err: injected})
		defer m.disk.Heal()
	}
	m.flight.begin(op, name, size)
	err = call()
	if err == nil {
		m.flight.done(op, name)
	}
	return err
}

var diskErrors = []error{syscall.EIO, syscall.EIO, syscall.ENOSPC, io.ErrShortWrite}

func (m *machine) begin(op vfs.Op, name string) (injected error, slow bool, err error) {
	m.mu.Lock()
	m.step++
	step, cut := m.step, m.step == m.cutAt
	if m.cutOn != "" && m.flight.on(m.cutOn) {
		cut = cut || m.skip == 0
		m.skip--
	}
	const failing = vfs.OpCreate | vfs.OpOpen | vfs.OpRead | vfs.OpWrite | vfs.OpSync | vfs.OpTruncate | vfs.OpAllocate |
		vfs.OpRename | vfs.OpRemove | vfs.OpList | vfs.OpStat | vfs.OpSyncDir
	if op&failing != 0 && m.faults.disk > 0 && m.rng.Float64() < m.faults.disk {
		injected = diskErrors[m.rng.IntN(len(diskErrors))]
		if injected == io.ErrShortWrite && op != vfs.OpWrite {
			injected = syscall.EIO
		}
		m.hit[op.String()+": "+injected.Error()]++
	}
	if m.faults.slow > 0 && m.rng.Float64() < m.faults.slow {
		slow = true
		m.hit["slow"]++
	}
	fn := m.onStep
	m.mu.Unlock()
	if fn != nil {
		fn(step, op, name)
	}
	if cut {
		m.cut()
	}
	return injected, slow, nil
}

// cut takes the power, or kills the process, at this very moment.
func (m *machine) cut() {
	m.gate.Lock()
	defer m.gate.Unlock()
	if m.dead {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = m.imageLocked(m.kill, m.rng.Uint64())
	m.dead = true
	close(m.down)
}

// image takes a picture without doing any harm.
func (m *machine) image(kill bool, seed uint64) image {
	m.gate.Lock()
	defer m.gate.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.imageLocked(kill, seed)
}

func (m *machine) imageLocked(kill bool, seed uint64) image {
	i := image{rows: m.rows.Clone(), inFlight: m.flight.names()}
	if kill {
		i.disk = m.disk.KillClone()
	} else {
		i.disk = m.disk.CrashClone(seed)
	}
	return i
}

// stop ends the process without a cut: what its last breath leaves. After a
// clean stop the power may go all the same.
func (m *machine) stop(power bool, seed uint64) image {
	m.gate.Lock()
	defer m.gate.Unlock()
	if m.dead {
		return m.left
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = m.imageLocked(!power, seed)
	m.left.inFlight = nil
	m.dead = true
	close(m.down)
	return m.left
}

// steps counts the operations so far.
func (m *machine) steps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step
}

// isDown tells whether the power is gone.
func (m *machine) isDown() bool {
	select {
	case <-m.down:
		return true
	default:
		return false
	}
}

// disk is the machine's file system.
type disk struct{ m *machine }

var _ vfs.FS = disk{}

func (d disk) open(op vfs.Op, name string, open func(string) (vfs.File, error)) (f vfs.File, err error) {
	err = d.m.do(op, name, 0, func() (err error) {
		f, err = open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &file{m: d.m, File: f, name: name}, nil
}

func (d disk) Create(name string) (vfs.File, error) {
	return d.open(vfs.OpCreate, name, d.m.disk.Create)
}
func (d disk) Open(name string) (vfs.File, error) { return d.open(vfs.OpOpen, name, d.m.disk.Open) }
func (d disk) OpenReadWrite(name string) (vfs.File, error) {
	return d.open(vfs.OpOpen, name, d.m.disk.OpenReadWrite)
}

func (d disk) Remove(name string) error {
	return d.m.do(vfs.OpRemove, name, 0, func() error { return d.m.disk.Remove(name) })
}

func (d disk) Rename(from, to string) error {
	return d.m.do(vfs.OpRename, from, 0, func() error {
		err := d.m.disk.Rename(from, to)
		if err == nil {
			d.m.flight.renamed(from, to)
		}
		return err
	})
}

func (d disk) MkdirAll(name string) error {
	return d.m.do(vfs.OpMkdir, name, 0, func() error { return d.m.disk.MkdirAll(name) })
}

func (d disk) List(dir string) (names []string, err error) {
	err = d.m.do(vfs.OpList, dir, 0, func() (err error) { names, err = d.m.disk.List(dir); return err })
	return names, err
}

func (d disk) Stat(name string) (info fs.FileInfo, err error) {
	err = d.m.do(vfs.OpStat, name, 0, func() (err error) { info, err = d.m.disk.Stat(name); return err })
	return info, err
}

func (d disk) SyncDir(dir string) error {
	return d.m.do(vfs.OpSyncDir, dir, 0, func() error { return d.m.disk.SyncDir(dir) })
}

func (d disk) Lock(name string) (c io.Closer, err error) {
	err = d.m.do(vfs.OpLock, name, 0, func() (err error) { c, err = d.m.disk.Lock(name); return err })
	return c, err
}

func (d disk) Free(name string) (n int64, err error) {
	err = d.m.do(vfs.OpFree, name, 0, func() (err error) { n, err = d.m.disk.Free(name); return err })
	return n, err
}

// file is an open file of the machine. Its name for faults and figures is the
// one that the disk knows it by now.
type file struct {
	m *machine
	vfs.File
	name string
}

func (f *file) Read(b []byte) (n int, err error) {
	err = f.m.do(vfs.OpRead, f.name, 0, func() (err error) { n, err = f.File.Read(b); return err })
	return n, err
}

func (f *file) ReadAt(b []byte, off int64) (n int, err error) {
	err = f.m.do(vfs.OpRead, f.name, 0, func() (err error) { n, err = f.File.ReadAt(b, off); return err })
	return n, err
}

func (f *file) Write(b []byte) (n int, err error) {
	err = f.m.do(vfs.OpWrite, f.name, len(b), func() (err error) { n, err = f.File.Write(b); return err })
	return n, err
}

func (f *file) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.m.do(vfs.OpWrite, f.name, len(b), func() (err error) { n, err = f.File.WriteAt(b, off); return err })
	return n, err
}

func (f *file) WriteVAt(bufs [][]byte, off int64) error {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	return f.m.do(vfs.OpWrite, f.name, n, func() error { return f.File.WriteVAt(bufs, off) })
}

func (f *file) Sync() error {
	return f.m.do(vfs.OpSync, f.name, 0, f.File.Sync)
}

func (f *file) Truncate(size int64) error {
	return f.m.do(vfs.OpTruncate, f.name, 0, func() error { return f.File.Truncate(size) })
}

func (f *file) Preallocate(size int64) error {
	return f.m.do(vfs.OpAllocate, f.name, 0, func() error { return f.File.Preallocate(size) })
}

// catalog is the machine's catalog.
type catalog struct{ m *machine }

var _ iceberg.Catalog = catalog{}

func (c catalog) call(op vfs.Op, call func() error) error {
	if _, _, err := c.m.begin(0, ""); err != nil {
		return err
	}
	c.m.gate.RLock()
	defer c.m.gate.RUnlock()
	if c.m.dead {
		return errDown
	}
	c.m.arrive()
	return call()
}

// arrive lets swaps happen whose answer was lost before.
func (m *machine) arrive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rest []swap
	for _, s := range m.late {
		if s.due > m.step {
			rest = append(rest, s)
			continue
		}
		if m.rows.Swap(context.Background(), s.table, s.from, s.to) == nil {
			m.hit["a swap that came late"]++
		}
	}
	m.late = rest
}

func (c catalog) Location(ctx context.Context, t lake.Ident) (loc string, err error) {
	err = c.call(vfs.OpRead, func() (err error) { loc, err = c.m.rows.Location(ctx, t); return err })
	return loc, err
}

func (c catalog) List(ctx context.Context) (list []lake.Ident, err error) {
	err = c.call(vfs.OpList, func() (err error) { list, err = c.m.rows.List(ctx); return err })
	return list, err
}

func (c catalog) Drop(ctx context.Context, t lake.Ident) error {
	return c.call(vfs.OpRemove, func() error { return c.m.rows.Drop(ctx, t) })
}

func (c catalog) Replace(ctx context.Context, t, by, old lake.Ident) error {
	return c.call(vfs.OpWrite, func() error {
		c.m.mu.Lock()
		mood := c.m.mood(answersLate) // it names no former state that a late one would be held against
		c.m.mu.Unlock()
		switch mood {
		case refuses:
			return iceberg.ErrConflict
		case losesRequest:
			return errNoAnswer
		}
		if err := c.m.rows.Replace(ctx, t, by, old); err != nil {
			return err
		}
		c.m.flight.swapped(t)
		if mood == losesAnswer {
			return errNoAnswer
		}
		return nil
	})
}

// What a catalog may do in place of what it is asked to.
const (
	refuses = iota
	losesRequest
	losesAnswer
	answersLate
	well
)

// mood draws one of those before end, or well. With mu held.
func (m *machine) mood(end int) int {
	if m.faults.catalog == 0 || m.rng.Float64() >= m.faults.catalog {
		return well
	}
	mood := m.rng.IntN(end)
	m.hit["the catalog: "+[]string{"refuses", "loses the request", "loses the answer", "answers late"}[mood]]++
	return mood
}

func (c catalog) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	return c.call(vfs.OpWrite, func() error {
		m := c.m
		m.mu.Lock()
		mood := m.mood(well)
		if mood == answersLate {
			m.late = append(m.late, swap{t, from, to, m.step + m.rng.IntN(60)})
		}
		m.mu.Unlock()
		switch mood {
		case refuses:
			return iceberg.ErrConflict
		case losesRequest, answersLate:
			return errNoAnswer
		}
		if err := m.rows.Swap(ctx, t, from, to); err != nil {
			return err
		}
		m.flight.swapped(t)
		if mood == losesAnswer {
			return errNoAnswer
		}
		return nil
	})
}

func (c catalog) Close() error { return nil }

// watched is the log as pipelines see it: dead with the machine, and telling
// what it is asked for.
type watched struct {
	stream.Log
	m *machine

	mu    sync.Mutex
	asked map[string]map[int32]event.Position // by stream: where a reader waits now
	news  chan struct{}
}

func watch(l stream.Log, m *machine) *watched {
	return &watched{Log: l, m: m, asked: map[string]map[int32]event.Position{}, news: make(chan struct{}, 1)}
}

func (w *watched) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watched) Read(ctx context.Context, name string, from event.Position, limit stream.Bytes) (*event.Batch, error) {
	if w.m.isDown() {
		return nil, stream.ErrClosed
	}
	w.mu.Lock()
	if w.asked[name] == nil {
		w.asked[name] = map[int32]event.Position{}
	}
	w.asked[name][from.Partition] = from
	w.mu.Unlock()
	w.tell()
	return w.Log.Read(ctx, name, from, limit)
}

func (w *watched) Commit(ctx context.Context, writes []stream.Write, reader string, at stream.Progress) error {
	if w.m.isDown() {
		return stream.ErrClosed
	}
	err := w.Log.Commit(ctx, writes, reader, at)
	if err == nil {
		w.m.flight.marked(at.Stream)
	}
	w.tell()
	return err
}

// Readers and Forget pass the optional powers on.
func (w *watched) Readers(ctx context.Context) (map[string]stream.Progress, error) {
	return w.Log.(stream.Readers).Readers(ctx)
}

func (w *watched) Forget(ctx context.Context, reader string) error {
	return w.Log.(stream.Forgetter).Forget(ctx, reader)
}
