package seglog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"naru/internal/vfs"
)

// freeFile is a file that is to become a segment: prepared ahead, or retired.
// What it holds means nothing, since frames carry the nonce of their segment.
type freeFile struct {
	path     string
	size     int64
	recycled bool     // its blocks have been written before
	held     *segment // a retired segment that readers may still have open
}

// pool keeps free files, within Config.Recycle and one prepared ahead.
type pool struct {
	log *Log
	mu  struct {
		sync.Mutex
		free []*freeFile
		last int // number of the last name given
	}
}

func (p *pool) init(l *Log) { p.log = l }

func freeNumber(name string) (int, bool) {
	s, ok := strings.CutPrefix(name, freePrefix)
	s, ext := strings.CutSuffix(s, freeExt)
	n, err := strconv.Atoi(s)
	return n, ok && ext && err == nil && n > 0
}

func (p *pool) newPath() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.last++
	return p.log.path(freePrefix + strconv.Itoa(p.mu.last) + freeExt)
}

// found takes in a free file of an earlier process.
func (p *pool) found(name string, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n, ok := freeNumber(name); ok {
		p.mu.last = max(p.mu.last, n)
	}
	p.mu.free = append(p.mu.free, &freeFile{path: p.log.path(name), size: size, recycled: true})
}

// take returns a free file of at least size bytes, making one when there is
// none. Unless forced it leaves the reserve of the disk alone. errNoSpace:
// there is no room.
func (p *pool) take(size int64, force bool) (*freeFile, error) {
	p.mu.Lock()
	for i, f := range p.mu.free {
		if f.size >= size && (f.held == nil || f.held.idle()) {
			p.mu.free = append(p.mu.free[:i], p.mu.free[i+1:]...)
			p.mu.Unlock()
			return f, nil
		}
	}
	p.mu.Unlock()
	return p.create(size, force)
}

func (p *pool) create(size int64, force bool) (*freeFile, error) {
	l := p.log
	if !force {
		free, err := l.fs.Free(l.dir)
		if err != nil {
			return nil, err
		}
		if free-size < int64(l.cfg.Reserve) {
			return nil, errNoSpace
		}
	}
	f := &freeFile{path: p.newPath(), size: size}
	made := l.path(newPrefix + strings.TrimPrefix(f.path, l.path(freePrefix)))
	if err := p.fill(made, f); err != nil {
		_ = l.fs.Remove(made) // else the next start does
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: %w", errNoSpace, err)
		}
		return nil, err
	}
	return f, nil
}

// fill makes a file of that size. It is called a free file only when it is one on
// disk: after a failed sync it would look as large as it should and not be.
func (p *pool) fill(made string, f *freeFile) error {
	file, err := p.log.fs.Create(made)
	if err != nil {
		return err
	}
	err = file.Preallocate(f.size)
	if err == nil {
		err = file.Sync() // the blocks and the size, before anything stands in them
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = p.log.fs.Rename(made, f.path)
	}
	return err
}

// prepare makes a free file ahead when there is none.
func (p *pool) prepare() error {
	p.mu.Lock()
	n := len(p.mu.free)
	p.mu.Unlock()
	if n > 0 {
		return nil
	}
	f, err := p.create(int64(p.log.cfg.Segment), false)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.free = append(p.mu.free, f)
	return nil
}

// give takes a retired segment's file, or removes it when there are enough.
func (p *pool) give(path string, size int64, held *segment) (recycled bool, err error) {
	l := p.log
	p.mu.Lock()
	total := size
	for _, f := range p.mu.free {
		total += f.size
	}
	p.mu.Unlock()
	if total > int64(l.cfg.Recycle) || size != int64(l.cfg.Segment) {
		return false, l.fs.Remove(path)
	}
	f := &freeFile{path: p.newPath(), size: size, recycled: true, held: held}
	if err := l.fs.Rename(path, f.path); err != nil {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.free = append(p.mu.free, f)
	return true, nil
}

// trim removes what Config.Recycle does not allow, after a start with other
// limits.
func (p *pool) trim() error {
	p.mu.Lock()
	var keep, drop []*freeFile
	total := int64(0)
	for _, f := range p.mu.free {
		if f.size == int64(p.log.cfg.Segment) && (total+f.size <= int64(p.log.cfg.Recycle) || len(keep) == 0) {
			keep = append(keep, f)
			total += f.size
		} else {
			drop = append(drop, f)
		}
	}
	p.mu.free = keep
	p.mu.Unlock()
	for _, f := range drop {
		if err := p.log.fs.Remove(f.path); err != nil {
			return err
		}
	}
	return nil
}

func (p *pool) bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(0)
	for _, f := range p.mu.free {
		n += f.size
	}
	return n
}

// madeSegment is a fresh segment with what the writer needs to go on in it.
type madeSegment struct {
	seg      *segment
	file     vfs.File
	pos      int64
	chain    uint32
	sequence uint64
}

func newNonce() uint64 {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	return binary.LittleEndian.Uint64(random[:])
}

// makeSegment turns a free file into a segment: its checkpoint and the frames at
// some places of another segment are written and synced, then the file gets its name and the folder is
// synced. So a file with a segment's name always has its checkpoint, and what
// that checkpoint says is synced is. sequence is that of the checkpoint.
func (l *Log) makeSegment(free *freeFile, cp *checkpoint, sequence uint64, from *scanner, frames []int64) (m *madeSegment, err error) {
	file, err := l.fs.OpenReadWrite(free.path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // the first error is the news
		}
	}()
	m = &madeSegment{file: file, sequence: sequence}
	m.seg = &segment{number: cp.segment, path: l.path(segmentName(cp.segment)), nonce: newNonce(), size: free.size, fs: l.fs}
	h := head{kind: kindCheckpoint, nonce: m.seg.nonce, sequence: sequence, synced: sequence + uint64(len(frames))}
	b := cp.append(make([]byte, headSize, 4<<10))
	h.table = len(b) - headSize
	b, crc := sealFrame(b, h)
	m.seg.begin = align(int64(len(b)))
	b = append(b, padding[:m.seg.begin-int64(len(b))]...) // the file may be a recycled one
	if _, err := file.WriteAt(b, 0); err != nil {
		return nil, err
	}
	m.pos, m.chain = m.seg.begin, nextChain(0, crc)
	for _, pos := range frames {
		f, err := from.frame(pos)
		if err != nil {
			return nil, fmt.Errorf("copy frame at %d: %w", pos, err)
		}
		m.sequence++
		h := f.head
		h.nonce, h.sequence, h.synced = m.seg.nonce, m.sequence, sequence
		putHead(f.raw, h) // the scanner's own buffer: nobody reads the old head again
		crc := checksum(f.raw[bodyOff:])
		putCRC(f.raw, crc)
		if err := file.WriteVAt([][]byte{f.raw, padding[:f.end()-f.length]}, m.pos); err != nil {
			return nil, err
		}
		m.pos += f.end()
		m.chain = nextChain(m.chain, crc)
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	if err := l.fs.Rename(free.path, m.seg.path); err != nil {
		return nil, err
	}
	return m, l.fs.SyncDir(l.dir)
}
