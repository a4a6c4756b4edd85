package seglog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"naru/internal/event"
	"naru/internal/vfs"
)

const (
	lastName = "LAST"
	lastTemp = "LAST.tmp" // to become LAST; a crash may leave it
	lastSize = 256        // bytes
)

// lastMark is what the log holds at least. It stands in a file of its own,
// because nothing in the segments can tell that the last of them is missing, cut
// short or an older copy: then offsets would be given a second time.
type lastMark struct {
	Format      int               `json:"naru_log_last"`
	Segment     uint64            `json:"segment"`  // there is one with this number
	Size        int64             `json:"size"`     // of its file
	Sequence    uint64            `json:"sequence"` // frames up to this one are on disk
	Incarnation event.Incarnation `json:"incarnation"`
	CRC         string            `json:"crc32c"` // of this line with an empty one
}

const lastFormat = 1

func (m lastMark) encode() []byte {
	m.Format, m.CRC = lastFormat, ""
	b, _ := json.Marshal(m) // plain fields: it cannot fail
	m.CRC = fmt.Sprintf("%08x", checksum(b))
	b, _ = json.Marshal(m)
	b = append(b, bytes.Repeat([]byte(" "), lastSize-1-len(b))...)
	return append(b, '\n')
}

// readLast returns nil when there is none yet.
func readLast(fsys vfs.FS, dir string) (*lastMark, error) {
	name := dir + "/" + lastName
	file, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, lastSize+1))
	if err != nil {
		return nil, err
	}
	if len(bytes.Trim(b, "\x00")) == 0 {
		return nil, nil // made, and a crash came before its first line
	}
	var m lastMark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, corrupt(name, 0, "not a mark of the log's end: %v", err)
	}
	if m.Format > lastFormat {
		return nil, fmt.Errorf("read %s: format %d, this naru reads %d", name, m.Format, lastFormat)
	}
	if !bytes.Equal(m.encode(), b) {
		return nil, corrupt(name, 0, "the checksum of the mark of the log's end is wrong")
	}
	return &m, nil
}

// writeLast replaces the mark as a whole, durably: a write in its place could
// fail halfway, and a start must not be refused for that.
func writeLast(fsys vfs.FS, dir string, m lastMark) error {
	return replaceFile(fsys, dir, lastTemp, lastName, m.encode())
}

// writeMark says on disk what the log holds at least. Called by the writer, and
// by who opens and closes the log.
func (l *Log) writeMark() error {
	m := lastMark{Segment: l.w.seg.number, Size: l.w.seg.size, Sequence: l.w.vouched, Incarnation: l.w.incarnation}
	if m == l.w.marked {
		return nil
	}
	err := writeLast(l.fs, l.dir, m)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The old mark is true still, it only says less: no reason to stop a log that
		// has room of its own.
		l.log.Warn("mark the end of the log: the disk is full; the mark stays behind", "dir", l.dir, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark the end of the log: %w", err)
	}
	l.w.marked = m
	return nil
}

// checkLast holds the segments that were found against the mark.
func (l *Log) checkLast(m *lastMark, segments []*segment) error {
	if m == nil {
		return nil
	}
	if len(segments) == 0 || segments[len(segments)-1].number < m.Segment {
		return corrupt(l.path(segmentName(m.Segment)), -1, "the segment is missing: %s says that it was the last one", lastName)
	}
	if s := segments[len(segments)-1]; s.number == m.Segment && s.size < m.Size {
		return s.corrupt(s.size, "the segment is shortened: it had %d bytes", m.Size)
	}
	return nil
}

// knows tells whether an incarnation is the state's or a closed one.
func (s *state) knows(inc event.Incarnation) bool {
	for _, c := range s.closed {
		if c.incarnation == inc {
			return true
		}
	}
	return s.incarnation == inc
}
