package dedupe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math/bits"
	"path/filepath"
	"slices"

	"naru/internal/event"
	"naru/internal/vfs"
)

// Fate is what becomes of an event with an id.
type Fate int

// The fates.
const (
	Fresh     Fate = iota
	Duplicate      // the same bytes under the same id are there already
	Conflict       // other bytes under the same id are there: kept
)

// index remembers the ids of one partition of a stream: for each of the last so
// many events that were kept its key, its digest and its offset. What it holds is
// made from the log and the verdicts; the files only save reading that again. Not
// for concurrent use.
type index struct {
	fs     vfs.FS
	dir    string
	shape  shape
	lane   laneID
	life   event.Incarnation
	logger *slog.Logger

	chunks  []*chunk // oldest first; the last takes the entries
	gone    []string // files of chunks that went since the position was last durable
	ordinal int64    // of the next entry
	next    int64    // ids of all events below this offset are in it
	clock   int64    // ms: the latest receipt that was seen; it never goes back
	evicted int64    // clock of the last entry that went for want of room
	tail    int      // number of the tail that is on record as durable
	touched uint64   // so that what warm reads is not optimized away
	cache   [cached]cachedBlock
}

// laneID names a partition of a stream.
type laneID struct {
	stream    string
	partition int32
}

// cached is how many blocks of an index stay in memory: clients send batches
// again, and these stand together.
const cached = 64

type cachedBlock struct {
	chunk *chunk
	no    int
	block block
}

func newIndex(fs vfs.FS, dir string, s shape, lane laneID, life event.Incarnation, logger *slog.Logger) *index {
	return &index{fs: fs, dir: dir, shape: s, lane: lane, life: life, logger: logger}
}

// judge decides an event and remembers it unless it is a duplicate. Offsets
// ascend.
func (x *index) judge(k Key, digest uint64, offset, clock int64) (Fate, error) {
	if err := x.tick(clock); err != nil {
		return Fresh, err
	}
	fate := Fresh
	since := x.clock - x.shape.window
	for i := len(x.chunks) - 1; i >= 0; i-- {
		same, other, err := x.find(x.chunks[i], k, digest, since)
		if err != nil {
			return Fresh, err
		}
		if same {
			x.next = offset + 1
			return Duplicate, nil
		}
		if other {
			fate = Conflict
		}
	}
	return fate, x.register(k, digest, offset)
}

// ask is an event to be judged.
type ask struct {
	k             Key
	digest        uint64
	offset, clock int64
}

// atOnce is how many events are looked up side by side.
const atOnce = 64

// warm touches the places of the tables where the ids will be looked for. Each is a
// miss of the processor's caches; here they do not wait for one another.
func (x *index) warm(asks []ask) {
	sum := uint64(0)
	for i, c := range x.chunks {
		last := i == len(x.chunks)-1 && c.refs != nil
		for j := range asks {
			line, _ := c.place(asks[j].k)
			sum += c.tags[line*4]
			if last {
				sum += uint64(c.refs[line*perLine])
			}
		}
	}
	x.touched = sum
}

// see takes in an event of which the log says that it is a duplicate.
func (x *index) see(offset, clock int64) error {
	x.next = offset + 1
	return x.tick(clock)
}

// tick moves the clock on, and lets chunks go that are older than the window.
func (x *index) tick(clock int64) error {
	if clock <= x.clock {
		return nil
	}
	x.clock = clock
	for len(x.chunks) > 1 && x.chunks[0].lastClock < x.clock-x.shape.window {
		if err := x.drop(); err != nil {
			return err
		}
	}
	return nil
}

// drop forgets the oldest chunk. Its files stay until the position behind the
// event that did it is on record: else that event would be judged again without
// them.
func (x *index) drop() error {
	c := x.chunks[0]
	x.chunks = slices.Delete(x.chunks, 0, 1)
	for i := range x.cache {
		if x.cache[i].chunk == c {
			x.cache[i].chunk = nil
		}
	}
	x.gone = append(x.gone, c.path+idsSuffix, c.path+tagsSuffix)
	if err := c.close(); err != nil {
		return fmt.Errorf("drop old ids: %w", err)
	}
	return nil
}

// settled says that the position behind all that was judged is on record.
func (x *index) settled() error {
	for _, path := range x.gone {
		if err := x.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old ids: %w", err)
		}
	}
	x.gone = x.gone[:0]
	return nil
}

func (c *chunk) close() error {
	var errs []error
	for _, f := range []vfs.File{c.file, c.refsFile} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	c.file, c.refsFile = nil, nil
	return errors.Join(errs...)
}

// register remembers an event.
func (x *index) register(k Key, digest uint64, offset int64) error {
	number := x.ordinal / x.shape.entries
	if n := len(x.chunks); n == 0 || x.chunks[n-1].head.number != number {
		if n > 0 && !x.chunks[n-1].full {
			if err := x.chunks[n-1].seal(x.fs); err != nil {
				return err
			}
		}
		for len(x.chunks) > 0 && x.chunks[0].head.number <= number-x.shape.chunks {
			x.evicted = x.chunks[0].lastClock
			if err := x.drop(); err != nil {
				return err
			}
		}
		c := &chunk{path: filepath.Join(x.dir, x.shape.chunkName(number)), head: chunkHead{stream: x.lane.stream, partition: x.lane.partition, life: x.life, entries: x.shape.entries,
			number: number, first: x.ordinal, evicted: x.evicted}}
		if n := len(x.chunks); n > 0 {
			c.head.before = x.chunks[n-1].chain
		}
		if err := c.create(x.fs, x.dir); err != nil {
			return errors.Join(err, c.close())
		}
		if len(x.chunks) > 0 {
			c.table.alloc(c.table.most) // it will be as full as the one before
		}
		x.chunks = append(x.chunks, c)
	}
	if err := x.chunks[len(x.chunks)-1].add(k, digest, offset, x.clock); err != nil {
		return err
	}
	x.ordinal++
	x.next = offset + 1
	return nil
}

// find looks for a key in one chunk.
func (x *index) find(c *chunk, k Key, digest uint64, since int64) (same, other bool, err error) {
	line, tag := c.place(k)
	wanted := uint64(tag) * ones
	for {
		words := c.tags[line*4 : line*4+4]
		for w, word := range words {
			d := word ^ wanted
			for hit := (d - ones) &^ d & tops; hit != 0; hit &= hit - 1 {
				slot := bits.TrailingZeros64(hit) / 16
				if uint16(word>>(16*slot)) != tag {
					continue // a borrow of the one before
				}
				s, o, err := x.look(c, line*perLine+w*4+slot, k, digest, since)
				if err != nil || s {
					return s, o, err
				}
				other = other || o
			}
			if word>>48 == 0 {
				return false, other, nil
			}
		}
		if line++; line == c.lines {
			line = 0
		}
	}
}

// look reads the block that a place of the table names.
func (x *index) look(c *chunk, place int, k Key, digest uint64, since int64) (same, other bool, err error) {
	no, err := c.ref(place)
	if err != nil {
		return false, false, err
	}
	if no == c.blocks {
		same, other = c.open.find(k, digest, since)
		return same, other, nil
	}
	at := &x.cache[(int(c.head.number)*31+no)%cached]
	if at.chunk != c || at.no != no {
		at.chunk = nil
		if err := c.read(no, &at.block); err != nil {
			return false, false, err
		}
		at.chunk, at.no = c, no
	}
	same, other = at.block.find(k, digest, since)
	return same, other, nil
}

// window is the true window in ms: shorter than configured when the index is
// full.
func (x *index) window() int64 {
	if len(x.chunks) == 0 || x.evicted == 0 || x.evicted < x.clock-x.shape.window {
		return x.shape.window
	}
	return max(x.clock-x.chunks[0].firstClock, 0)
}

// size is the ids remembered, the bytes of their files and those in memory.
func (x *index) size() (ids, disk, memory int64) {
	for _, c := range x.chunks {
		ids += c.count
		disk += blockAt(c.blocks)
		memory += int64(len(c.tags))*8 + int64(len(c.refs))*2
		if c.full {
			disk += c.tagsSize()
		}
	}
	return ids, disk, memory + cached*blockSize
}

// reset forgets all, and begins at a place.
func (x *index) reset(ordinal, next int64) error {
	for len(x.chunks) > 0 {
		if err := x.drop(); err != nil {
			return err
		}
	}
	x.ordinal, x.next, x.clock, x.evicted, x.gone = ordinal, next, 0, 0, nil
	x.cache = [cached]cachedBlock{}
	return x.clear()
}

// clear removes all files.
func (x *index) clear() error {
	names, err := x.fs.List(x.dir)
	if err != nil {
		return fmt.Errorf("list folder of ids: %w", err)
	}
	for _, name := range names {
		if err := x.fs.Remove(filepath.Join(x.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("empty folder of ids: %w", err)
		}
	}
	return nil
}

// save writes down what is not yet in a block, and makes all ids durable. Once that
// is on record (secured) the log may drop their events.
func (x *index) save() error {
	if len(x.chunks) == 0 {
		return nil
	}
	c := x.chunks[len(x.chunks)-1]
	if err := c.out(); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("sync index of ids: %w", err)
	}
	b := c.open
	if b.count() == 0 {
		b.begin(c.end(), x.next, x.clock)
	}
	b.setNext(x.next)
	b.seal(c.chain)
	out := binary.LittleEndian.AppendUint64(b[:], uint64(x.clock))
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
	f, err := x.fs.Create(filepath.Join(x.dir, x.shape.tailName(1-x.tail)))
	if err != nil {
		return fmt.Errorf("save ids: %w", err)
	}
	if _, err = f.WriteAt(out, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = x.fs.SyncDir(x.dir)
	}
	if err != nil {
		return fmt.Errorf("save ids: %w", err)
	}
	return nil
}

// secured says that what was saved is on record as durable.
func (x *index) secured() { x.tail = 1 - x.tail }

// close closes the files as they are.
func (x *index) close() {
	for _, c := range x.chunks {
		_ = c.close() // what was to be durable has been synced
	}
	x.chunks = nil
}
