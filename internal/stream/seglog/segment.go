package seglog

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// File names in the log's folder.
const (
	lockName   = "LOCK"
	segmentExt = ".seg"  // 0000000000000001.seg: the checkpoint in it is synced
	freePrefix = "free-" // free-1.tmp: to become a segment, prepared or retired
	freeExt    = ".tmp"
	newPrefix  = "new-"  // new-1.tmp: to become a free file
	tornPrefix = "torn-" // torn-20260102T030405.000Z.bin: never removed by naru
	tornExt    = ".bin"
)

func segmentName(n uint64) string { return fmt.Sprintf("%016d%s", n, segmentExt) }

// segmentNumber tells whether name is a segment's.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(digits) < 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// segment is one file. What is not in mu is set once: nonce and begin by who
// makes or scans the segment, else by the first acquire.
type segment struct {
	number uint64
	path   string
	size   int64 // of the file
	fs     vfs.FS
	knows  func(event.Incarnation) bool // of the log; may be nil

	nonce uint64
	begin int64 // first frame behind the checkpoint; 0: not known yet

	mu struct {
		sync.Mutex
		file   vfs.File // open while it is used
		refs   int
		gone   bool  // retired: no new readers
		length int64 // frames end here; 0 until known. Sealed segments only
	}
}

var errGone = errors.New("segment retired")

// acquire opens the file for reading and keeps it from being written again
// until release.
func (s *segment) acquire() (vfs.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.gone {
		return nil, errGone
	}
	if s.mu.file == nil {
		// Opening under the lock: it is this segment's alone, and two readers
		// that come at once both need the file.
		f, err := s.fs.Open(s.path)
		if err != nil {
			return nil, err
		}
		if s.begin == 0 {
			cp, h, err := readCheckpoint(f, s.path, s.number, s.size)
			if err == nil && s.knows != nil && !s.knows(cp.incarnation) {
				err = s.corrupt(0, "the checkpoint is that of another log: incarnation %s", cp.incarnation)
			}
			if err != nil {
				_ = f.Close() // the first error is the news
				return nil, err
			}
			s.nonce, s.begin = h.nonce, h.end()
		}
		s.mu.file = f
	}
	s.mu.refs++
	return s.mu.file, nil
}

func (s *segment) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.refs--; s.mu.refs == 0 {
		_ = s.mu.file.Close() // opened for reading: nothing can be lost
		s.mu.file = nil
	}
}

// retire lets no new readers in.
func (s *segment) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.gone = true
}

// idle tells whether a retired segment's file may be written again.
func (s *segment) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.refs == 0
}

func (s *segment) setLength(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.length = n
}

func (s *segment) knownLength() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.length
}

func (s *segment) corrupt(off int64, format string, args ...any) error {
	return corrupt(s.path, off, format, args...)
}

func corrupt(file string, off int64, format string, args ...any) error {
	err := &fault.Corrupt{Path: file, Offset: off, Reason: fmt.Sprintf(format, args...)}
	return fault.WithHint(err, "stop naru, keep a copy of %s, and run `naru log fsck DIR`; `naru log fsck DIR --repair` saves what can be read", path.Dir(file))
}

// scanner reads frames from a file one behind the other and verifies them.
type scanner struct {
	file vfs.File
	size int64 // no frame reaches beyond
	buf  []byte
	at   int64 // place of buf in the file
}

const scanChunk = 1 << 20

// need returns at least n bytes at off, fewer at the end of the file.
func (s *scanner) need(off, n int64) ([]byte, error) {
	n = min(n, s.size-off)
	if n <= 0 {
		return nil, nil
	}
	if off >= s.at && off+n <= s.at+int64(len(s.buf)) {
		return s.buf[off-s.at:], nil
	}
	want := min(max(n, scanChunk), s.size-off)
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.at = s.buf[:want], off
	got, err := s.file.ReadAt(s.buf, off)
	if int64(got) < want && err != nil && err != io.EOF {
		s.buf = s.buf[:0]
		return nil, err
	}
	// A file that is shorter than it was: what is missing is no frame.
	s.buf = s.buf[:got]
	return s.buf, nil
}

// frame reads the frame at off. The error is errBadFrame when there is none,
// else one of reading.
func (s *scanner) frame(off int64) (frame, error) {
	b, err := s.need(off, headSize)
	if err != nil {
		return frame{}, err
	}
	h, err := readHead(b)
	if err != nil {
		return frame{}, err
	}
	if h.length > s.size-off {
		return frame{}, badFrame("length %d, the file ends at %d", h.length, s.size)
	}
	if b, err = s.need(off, h.end()); err != nil {
		return frame{}, err
	}
	if int64(len(b)) < h.length {
		return frame{}, badFrame("the file ends inside the frame")
	}
	f, err := checkFrame(h, b)
	if i := notZero(b[h.length:min(h.end(), int64(len(b)))]); i >= 0 {
		f.dirty = h.length + i
	}
	return f, err
}

// notZero is the place of the first byte that is not zero, -1 if there is none.
func notZero(b []byte) int64 {
	for i, c := range b {
		if c != 0 {
			return int64(i)
		}
	}
	return -1
}

// search visits everything from off on that begins like a frame of this
// segment, until visit has enough.
func (s *scanner) search(off int64, nonce uint64, visit func(off int64, h head, valid bool) (more bool)) error {
	return s.find(off, func(h head) bool { return h.nonce == nonce }, visit)
}

// find is search with another idea of what to visit.
func (s *scanner) find(off int64, like func(head) bool, visit func(off int64, h head, valid bool) (more bool)) error {
	for off = align(off); off+headSize <= s.size; {
		b, err := s.need(off, scanChunk)
		if err != nil {
			return err
		}
		if len(b) < headSize {
			return nil
		}
		i, found := 0, false
		for ; i+headSize <= len(b); i += frameUnit {
			if string(b[i:i+len(magic)]) == magic {
				found = true
				break
			}
		}
		off += int64(i)
		if !found {
			continue // at the border of what was read: the rest comes again
		}
		if h, err := readHead(b[i:]); err == nil && like(h) {
			_, err := s.frame(off)
			if err != nil && !errors.Is(err, errBadFrame) {
				return err
			}
			if !visit(off, h, err == nil) {
				return nil
			}
		}
		off += frameUnit
	}
	return nil
}

// readCheckpoint reads the first frame of a segment file.
func readCheckpoint(file vfs.File, name string, number uint64, size int64) (*checkpoint, head, error) {
	sc := scanner{file: file, size: size}
	f, err := sc.frame(0)
	if errors.Is(err, errBadFrame) {
		return nil, head{}, corrupt(name, 0, "checkpoint: %v", err)
	}
	if err != nil {
		return nil, head{}, err
	}
	if f.kind != kindCheckpoint {
		return nil, head{}, corrupt(name, 0, "the first frame is a %s, not a checkpoint", f.kind)
	}
	c, err := parseCheckpoint(f.body())
	if errors.Is(err, errBadFrame) {
		return nil, head{}, corrupt(name, 0, "%v", err)
	}
	if err != nil {
		return nil, head{}, fmt.Errorf("read %s: %w", name, err)
	}
	if c.segment != number {
		return nil, head{}, corrupt(name, 0, "the checkpoint is that of segment %d", c.segment)
	}
	return c, f.head, nil
}
