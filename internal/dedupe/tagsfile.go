package dedupe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"naru/internal/vfs"
)

// Layout of a file of tags, little endian:
//
//	 0 "narutag1"
//	 8 crc32c of everything behind it
//	16 lines · 24 blocks · 32 entries · 40 first clock · 48 last clock · 56 next · 64 chain (checksum of the last block)
//	72 tags, 2 bytes each, 16 a line · numbers of blocks, likewise
const (
	tagsMagic = "narutag1"
	tagsHead  = 72
)

func (c *chunk) tagsSize() int64 { return tagsHead + int64(c.lines)*perLine*4 }

// refAt is where the number of a block stands in the file.
func (c *chunk) refAt(place int) int64 {
	return tagsHead + int64(c.lines)*perLine*2 + int64(place)*2
}

func (c *chunk) writeTable(f vfs.File) error {
	le := binary.LittleEndian
	b := make([]byte, tagsHead, c.tagsSize())
	copy(b, tagsMagic)
	for i, n := range []int64{int64(c.lines), int64(c.blocks), c.count, c.firstClock, c.lastClock, c.open.next(), int64(c.chain)} {
		le.PutUint64(b[16+8*i:], uint64(n))
	}
	for _, x := range c.tags {
		b = le.AppendUint64(b, x)
	}
	for _, x := range c.refs {
		b = le.AppendUint16(b, x)
	}
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write table of ids: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync table of ids: %w", err)
	}
	return nil
}

// readTable takes the table of a full chunk from its file. ok is false when the
// file does not say all of it: the blocks do. next is the offset below which all
// ids are in the chunk or before it.
func (c *chunk) readTable(f vfs.File) (next int64, ok bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("read table of ids: %w", err)
	}
	le := binary.LittleEndian
	t := table{}
	t.init(c.head.entries)
	if most := tagsHead + int64(t.most)*perLine*4; info.Size() < tagsHead || info.Size() > most {
		return 0, false, nil
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return 0, false, fmt.Errorf("read table of ids: %w", err)
	}
	if string(b[:8]) != tagsMagic || le.Uint32(b[8:]) != crc32.Checksum(b[12:], castagnoli) {
		return 0, false, nil
	}
	n := func(i int) int64 { return int64(le.Uint64(b[16+8*i:])) }
	if t.lines = int(n(0)); t.lines <= 0 || int64(len(b)) != tagsHead+int64(t.lines)*perLine*4 {
		return 0, false, nil
	}
	c.blocks, c.onDisk = int(n(1)), int(n(1))
	c.count, c.firstClock, c.lastClock, c.chain = n(2), n(3), n(4), uint32(n(6))
	if c.end() != c.room() {
		return 0, false, nil
	}
	var last block
	if size, err := c.file.Stat(); err != nil || c.blocks == 0 || size.Size() < blockAt(c.blocks) {
		return 0, false, err
	}
	if err := c.read(c.blocks-1, &last); err != nil || last.crc() != c.chain || last.next() != n(5) {
		return 0, false, nil //nolint:nilerr // the blocks will tell
	}
	t.refs, t.tags = nil, make([]uint64, t.lines*perLine/4)
	for i := range t.tags {
		t.tags[i] = le.Uint64(b[tagsHead+8*i:])
	}
	c.table, c.refsFile, c.full = t, f, true
	return n(5), true, nil
}

// ref is the number of the block at a place of the table.
func (c *chunk) ref(place int) (int, error) {
	if c.refs != nil {
		return int(c.refs[place]), nil
	}
	var b [2]byte
	if _, err := c.refsFile.ReadAt(b[:], c.refAt(place)); err != nil && err != io.EOF {
		return 0, fmt.Errorf("read table of ids: %w", err)
	}
	return int(binary.LittleEndian.Uint16(b[:])), nil
}
