package dedupe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"strconv"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// chunk is the ids of a run of ordinals [number×entries, (number+1)×entries): a
// file of blocks in log order, and a table of tags that finds the block of an id.
// The table of a chunk that is full lies on disk but for the tags.
type chunk struct {
	head   chunkHead
	path   string
	file   vfs.File
	blocks int    // sealed
	onDisk int    // of these
	behind []byte // the others
	count  int64  // entries, those of the open block too
	open   block
	chain  uint32 // checksum of the last block written
	next   int64  // as the files say: all ids below this offset are here or before
	full   bool

	firstClock, lastClock int64

	table
	refsFile vfs.File // of a full chunk
}

// chunkHead is the head of a chunk's file.
type chunkHead struct {
	stream    string
	partition int32
	life      event.Incarnation // of the log when the file was made
	entries   int64             // of a whole chunk
	number    int64
	first     int64  // ordinal of its first entry
	before    uint32 // checksum of the last block of the chunk before
	evicted   int64  // clock of the last entry that went for want of room; 0: none did
}

const (
	idsSuffix  = ".ids"
	tagsSuffix = ".tags"
	headMagic  = "narudup1"
)

// The files of an index are named after the size of its chunks, so that those of
// another size may stand beside them.
func (s shape) chunkName(number int64) string { return fmt.Sprintf("%d-%016d", s.entries, number) }

// tailName is one of the two that have the entries which are not yet in a block. They
// are written by turns: the last one that is on record as durable is never touched.
func (s shape) tailName(i int) string { return fmt.Sprintf("%d-tail-%d", s.entries, i) }

// parseName gives the size of chunks and the number of a file of ids.
func parseName(name string) (entries, number int64, ok bool) {
	size, rest, _ := strings.Cut(name, "-")
	entries, err := strconv.ParseInt(size, 10, 64)
	if err != nil || !strings.HasSuffix(rest, idsSuffix) {
		return 0, 0, false
	}
	number, err = strconv.ParseInt(strings.TrimSuffix(rest, idsSuffix), 10, 64)
	return entries, number, err == nil && (shape{entries: entries}).chunkName(number)+idsSuffix == name
}

// encode is the head as it stands in the first block of the file.
func (h *chunkHead) encode() []byte {
	b := make([]byte, blockSize)
	copy(b, headMagic)
	le := binary.LittleEndian
	le.PutUint32(b[12:], h.before)
	copy(b[16:], h.life[:])
	le.PutUint32(b[32:], uint32(h.partition))
	le.PutUint32(b[36:], uint32(len(h.stream)))
	le.PutUint64(b[40:], uint64(h.entries))
	le.PutUint64(b[48:], uint64(h.number))
	le.PutUint64(b[56:], uint64(h.first))
	le.PutUint64(b[64:], uint64(h.evicted))
	copy(b[72:], h.stream)
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// parseHead decodes a head; ok is false for anything else.
func parseHead(b []byte) (h chunkHead, ok bool) {
	le := binary.LittleEndian
	if len(b) < blockSize || string(b[:8]) != headMagic || le.Uint32(b[8:]) != crc32.Checksum(b[12:blockSize], castagnoli) {
		return h, false
	}
	n := le.Uint32(b[36:])
	if n > 255 {
		return h, false
	}
	h.before = le.Uint32(b[12:])
	copy(h.life[:], b[16:32])
	h.partition, h.stream = int32(le.Uint32(b[32:])), string(b[72:72+n])
	h.entries, h.number, h.first, h.evicted = int64(le.Uint64(b[40:])), int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:])), int64(le.Uint64(b[64:]))
	return h, h.entries > 0 && h.number >= 0 && h.first/h.entries == h.number
}

// end is the ordinal behind the last entry.
func (c *chunk) end() int64 { return c.head.first + c.count }

// room is the ordinal behind the last one that belongs here.
func (c *chunk) room() int64 { return (c.head.number + 1) * c.head.entries }

// create makes the file of a new chunk, which has its path.
func (c *chunk) create(fs vfs.FS, dir string) error {
	f, err := fs.Create(c.path + idsSuffix)
	if err != nil {
		return fmt.Errorf("create index of ids: %w", err)
	}
	c.file = f
	head := c.head.encode()
	if _, err := f.WriteAt(head, 0); err != nil {
		return fmt.Errorf("write index of ids: %w", err)
	}
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("sync folder of ids: %w", err)
	}
	c.chain = binary.LittleEndian.Uint32(head[8:])
	c.table.init(c.head.entries)
	return nil
}

// atOnceOut is how many blocks are written at once.
const atOnceOut = 16

// out writes the blocks that were sealed.
func (c *chunk) out() error {
	if len(c.behind) == 0 {
		return nil
	}
	if _, err := c.file.WriteAt(c.behind, blockAt(c.onDisk)); err != nil {
		return fmt.Errorf("write index of ids: %w", err)
	}
	c.onDisk, c.behind = c.blocks, c.behind[:0]
	return nil
}

// add puts an entry behind all others.
func (c *chunk) add(k Key, digest uint64, offset, clock int64) error {
	if c.open.count() > 0 && !c.open.fits(offset, clock) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.open.count() == 0 {
		c.open.begin(c.end(), offset, clock)
	}
	if c.count == 0 {
		c.firstClock = clock
	}
	c.open.add(k, digest, offset, clock)
	c.count++
	c.lastClock = clock
	if c.table.crowded(c.count) {
		return c.rehash()
	}
	c.table.insert(k, c.blocks)
	return nil
}

// flush seals the open block, and writes it with others in a while.
func (c *chunk) flush() error {
	if c.blocks >= maxBlocks {
		return fmt.Errorf("write %s: more than %d blocks", c.path, maxBlocks)
	}
	c.open.seal(c.chain)
	c.behind = append(c.behind, c.open[:]...)
	c.chain = c.open.crc()
	c.blocks++
	c.open.setCount(0)
	if c.blocks-c.onDisk < atOnceOut {
		return nil
	}
	return c.out()
}

func blockAt(i int) int64 { return int64(i+1) * blockSize }

// maxBlocks is what a place in a table can name.
const maxBlocks = 1<<16 - 1

// rehash makes a larger table and fills it from the blocks.
func (c *chunk) rehash() error {
	c.table.grow()
	var b block
	for i := range c.blocks {
		if err := c.read(i, &b); err != nil {
			return err
		}
		for j := range b.count() {
			k, _, _, _ := b.at(j)
			c.table.insert(k, i)
		}
	}
	for j := range c.open.count() {
		k, _, _, _ := c.open.at(j)
		c.table.insert(k, c.blocks)
	}
	return nil
}

// read reads a block that was sealed.
func (c *chunk) read(i int, b *block) error {
	if i >= c.onDisk {
		copy(b[:], c.behind[(i-c.onDisk)*blockSize:])
		return nil
	}
	if _, err := c.file.ReadAt(b[:], blockAt(i)); err != nil && err != io.EOF {
		return fmt.Errorf("read index of ids: %w", err)
	}
	if !b.sound() {
		return &fault.Corrupt{Path: c.path + idsSuffix, Offset: blockAt(i), Reason: "a block of ids is damaged"}
	}
	return nil
}

// table finds the blocks that may hold a key: lines of 16 places, filled from the
// front; what does not fit a line goes into the next. A place has a tag of 16 bits
// and the number of a block. Nothing is ever removed, so a line with room left
// ends a search.
type table struct {
	lines int
	most  int      // lines when the chunk is full
	tags  []uint64 // four tags each, four of these a line; 0: free
	refs  []uint16 // numbers of blocks; nil: they are on disk
}

const (
	perLine = 16
	// fill is how many places of a line are taken on average in a full table.
	fill = 13
	ones = 0x0001_0001_0001_0001
	tops = 0x8000_8000_8000_8000
)

func (t *table) init(entries int64) {
	t.most = int(entries/fill) + 1
	t.alloc(min(t.most, 64))
}

func (t *table) alloc(lines int) {
	t.lines = lines
	t.tags, t.refs = make([]uint64, lines*perLine/4), make([]uint16, lines*perLine)
}

// crowded tells whether the table is too small for so many entries.
func (t *table) crowded(n int64) bool { return n > int64(t.lines)*fill && t.lines < t.most }

func (t *table) grow() { t.alloc(min(2*t.lines, t.most)) }

func (t *table) place(k Key) (line int, tag uint16) {
	hi, _ := bits.Mul64(k.Hi, uint64(t.lines))
	if tag = uint16(k.Lo); tag == 0 {
		tag = 1
	}
	return int(hi), tag
}

func (t *table) insert(k Key, blockNo int) {
	line, tag := t.place(k)
	for {
		words := t.tags[line*4 : line*4+4]
		for w, x := range words {
			if x>>48 != 0 {
				continue // full
			}
			slot := (64 - bits.LeadingZeros64(x) + 15) / 16
			words[w] = x | uint64(tag)<<(16*slot)
			t.refs[line*perLine+w*4+slot] = uint16(blockNo)
			return
		}
		if line++; line == t.lines {
			line = 0
		}
	}
}

// seal puts what is known of a full chunk beside its blocks, and lets the numbers
// of blocks go from memory.
func (c *chunk) seal(fs vfs.FS) error {
	if c.open.count() > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if err := c.out(); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("sync index of ids: %w", err)
	}
	f, err := fs.Create(c.path + tagsSuffix)
	if err != nil {
		return fmt.Errorf("create table of ids: %w", err)
	}
	if err := c.writeTable(f); err != nil {
		f.Close()
		return err
	}
	c.refsFile, c.refs, c.full = f, nil, true
	return nil
}
