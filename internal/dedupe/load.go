package dedupe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"naru/internal/event"
)

// load takes what the files hold of events below upTo, and removes what they hold
// beyond. ok is false when they cannot be used: another log's, another shape's,
// damaged at the front, or none.
func (x *index) load(ctx context.Context, upTo int64, lives []event.Incarnation) (ok bool, err error) {
	if err := x.fs.MkdirAll(x.dir); err != nil {
		return false, fmt.Errorf("make folder of ids: %w", err)
	}
	names, err := x.fs.List(x.dir)
	if err != nil {
		return false, fmt.Errorf("list folder of ids: %w", err)
	}
	numbers := map[int64][]int64{} // by the size of chunks
	for _, name := range names {
		if size, n, ok := parseName(name); ok {
			numbers[size] = append(numbers[size], n)
		}
	}
	for _, list := range numbers {
		slices.Sort(list)
	}
	if ok, err = x.loadChunks(ctx, numbers[x.shape.entries], upTo, lives); err != nil {
		return false, err
	}
	delete(numbers, x.shape.entries)
	if len(numbers) > 0 {
		if err = x.takeOver(ctx, numbers, upTo, lives, names); err != nil {
			return false, err
		}
		ok = len(x.chunks) > 0
	}
	if ok {
		err = x.prune(names)
	}
	return ok, err
}

func (x *index) loadChunks(ctx context.Context, numbers []int64, upTo int64, lives []event.Incarnation) (ok bool, err error) {
	synced, err := x.synced(upTo)
	if err != nil {
		return false, err
	}
	whole := true
	for i, n := range numbers {
		if !whole {
			break
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		c, complete, err := x.loadChunk(n, upTo, synced, lives)
		if err != nil {
			return false, err
		}
		if c == nil || i > 0 && (n != numbers[i-1]+1 || c.head.first != x.ordinal || c.head.before != x.chunks[i-1].chain) {
			if c != nil {
				err = c.close()
			}
			if i == 0 || err != nil {
				return false, err
			}
			break
		}
		x.chunks = append(x.chunks, c)
		x.ordinal, x.evicted, x.next = c.end(), c.head.evicted, max(x.next, c.next)
		x.clock = max(x.clock, c.lastClock)
		whole = complete && c.end() == c.room()
	}
	if len(x.chunks) == 0 {
		return false, nil
	}
	if err := x.loadTail(upTo); err != nil {
		return false, err
	}
	if n := len(x.chunks) - 1; x.chunks[n].count == 0 {
		// Made and not yet written to: the entry that it was made for is to make it
		// again, and to let the oldest go.
		if err := x.chunks[n].close(); err != nil {
			return false, err
		}
		if x.chunks = x.chunks[:n]; n == 0 {
			return false, nil
		}
	}
	newest := (x.ordinal - 1) / x.shape.entries
	for x.chunks[0].head.number <= newest-x.shape.chunks {
		if err := x.drop(); err != nil { // a crash had left it
			return false, err
		}
	}
	return true, nil
}

// prune takes what was not loaded off the files, so that it is not met among what
// will be written in its place: after a repair of the log other events have its
// offsets.
func (x *index) prune(names []string) error {
	keep := map[string]bool{x.shape.tailName(0): true, x.shape.tailName(1): true}
	for _, c := range x.chunks {
		name := filepath.Base(c.path)
		keep[name+idsSuffix], keep[name+tagsSuffix] = true, c.full
	}
	for _, path := range x.gone {
		keep[filepath.Base(path)] = true // until the position behind is on record
	}
	for _, name := range names {
		if keep[name] {
			continue
		}
		if err := x.fs.Remove(filepath.Join(x.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove ids of events that are read again: %w", err)
		}
	}
	if len(x.chunks) == 0 {
		return nil
	}
	c := x.chunks[len(x.chunks)-1]
	if c.full {
		return nil
	}
	info, err := c.file.Stat()
	if err == nil && info.Size() > blockAt(c.onDisk) {
		err = c.file.Truncate(blockAt(c.onDisk))
	}
	if err != nil {
		return fmt.Errorf("cut ids of events that are read again: %w", err)
	}
	return nil
}

// loadChunk takes one chunk, as far as it is sound; nil when its head is not.
// complete: nothing of it was left out.
func (x *index) loadChunk(number, upTo, synced int64, lives []event.Incarnation) (_ *chunk, complete bool, err error) {
	c := &chunk{path: filepath.Join(x.dir, x.shape.chunkName(number))}
	if c.file, err = x.fs.OpenReadWrite(c.path + idsSuffix); err != nil {
		return nil, false, fmt.Errorf("open index of ids: %w", err)
	}
	defer func() {
		if c != nil && err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	head := make([]byte, blockSize)
	if _, err := c.file.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, false, fmt.Errorf("read index of ids: %w", err)
	}
	var sound bool
	c.head, sound = parseHead(head)
	if !sound || c.head.stream != x.lane.stream || c.head.partition != x.lane.partition || c.head.number != number ||
		c.head.entries != x.shape.entries || !slices.Contains(lives, c.head.life) {
		return nil, false, c.close()
	}
	c.chain = binary.LittleEndian.Uint32(head[8:])
	if f, err := x.fs.Open(c.path + tagsSuffix); err == nil {
		next, ok, err := c.readTable(f)
		if err != nil {
			return nil, false, errors.Join(err, f.Close())
		}
		if ok && next <= upTo && c.end() <= synced {
			c.next = next
			return c, true, nil
		}
		if err := f.Close(); err != nil {
			return nil, false, err
		}
		// What the table said goes with it.
		*c = chunk{head: c.head, path: c.path, file: c.file, chain: binary.LittleEndian.Uint32(head[8:])}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("open table of ids: %w", err)
	}
	complete, err = c.readBlocks(upTo, synced)
	return c, complete, err
}

// readBlocks takes the blocks of a chunk that is not full. It tells whether the
// file ends where they do.
func (c *chunk) readBlocks(upTo, synced int64) (complete bool, err error) {
	c.table.init(c.head.entries)
	for b := (block{}); ; {
		n, err := c.file.ReadAt(b[:], blockAt(c.blocks))
		if err != nil && err != io.EOF {
			return false, fmt.Errorf("read index of ids: %w", err)
		}
		if n < blockSize {
			return n == 0, nil
		}
		if !b.sound() || b.before() != c.chain || b.ordinal() != c.end() || b.count() == 0 || b.next() > upTo || c.end()+int64(b.count()) > min(c.room(), synced) || c.blocks >= maxBlocks {
			return false, nil
		}
		for i := range b.count() {
			k, _, _, clock := b.at(i)
			if c.count == 0 {
				c.firstClock = clock
			}
			c.count++
			c.lastClock = clock
			if c.table.crowded(c.count) {
				// Not often: the blocks before are read again.
				c.open = b
				c.open.setCount(i + 1)
				if err := c.rehash(); err != nil {
					return false, err
				}
				continue
			}
			c.table.insert(k, c.blocks)
		}
		c.open.setCount(0)
		c.chain = b.crc()
		c.blocks++
		c.onDisk = c.blocks
		c.next = b.next()
	}
}

// synced is the ordinal before which blocks were synced with the tail that is on
// record. One that became a block since may have no id behind upTo, and be lost.
func (x *index) synced(upTo int64) (int64, error) {
	ordinal, furthest := int64(math.MaxInt64), int64(-1)
	for i := range 2 {
		t, err := x.readTail(x.shape.tailName(i))
		if err != nil {
			return 0, err
		}
		if t != nil && t.next() <= upTo && t.next() > furthest {
			ordinal, furthest = t.ordinal(), t.next()
		}
	}
	return ordinal, nil
}

// loadTail takes the entries behind the last block, and how far the ids go, from
// the tail that goes furthest.
func (x *index) loadTail(upTo int64) error {
	c := x.chunks[len(x.chunks)-1]
	var last tail
	behind := false // its entries are not in a block by now
	for i := range 2 {
		t, err := x.readTail(x.shape.tailName(i))
		if err != nil {
			return err
		}
		if t == nil || t.next() > upTo || t.next() < max(x.next, last.next()) {
			continue
		}
		more := !c.full && t.before() == c.chain && t.ordinal() == c.end() && c.end()+int64(t.count()) <= c.room()
		if more || t.ordinal()+int64(t.count()) == x.ordinal {
			last, behind, x.tail = *t, more, i
		}
	}
	for i := range last.count() {
		if !behind {
			break
		}
		k, digest, offset, clock := last.at(i)
		x.clock = max(x.clock, clock)
		if err := x.register(k, digest, offset); err != nil {
			return err
		}
	}
	x.next, x.clock = max(x.next, last.next()), max(x.clock, last.latest)
	return nil
}

// tailSize is a tail's: a block, clock and checksum.
const tailSize = blockSize + 8 + 4

// tail is a file with a block that is not full.
type tail struct {
	block
	latest int64 // ms, of the receipts
}

// readTail reads a tail; nil if there is none, or a damaged one.
func (x *index) readTail(name string) (*tail, error) {
	f, err := x.fs.Open(filepath.Join(x.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read saved ids: %w", err)
	}
	defer f.Close()
	raw := make([]byte, tailSize)
	if n, err := f.ReadAt(raw, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read saved ids: %w", err)
	} else if n < len(raw) {
		return nil, nil
	}
	t := &tail{block: block(raw[:blockSize]), latest: int64(binary.LittleEndian.Uint64(raw[blockSize:]))}
	if binary.LittleEndian.Uint32(raw[blockSize+8:]) != crc32.Checksum(raw[:blockSize+8], castagnoli) || !t.sound() {
		return nil, nil
	}
	return t, nil
}
