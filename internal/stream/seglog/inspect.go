package seglog

import (
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// SegmentInfo is one row of `naru log ls`.
type SegmentInfo struct {
	Name        string            `json:"name"`
	Number      uint64            `json:"number"`
	Bytes       int64             `json:"bytes"` // of the file, preallocated space included
	Used        int64             `json:"used"`  // of frames
	Created     time.Time         `json:"created"`
	Sealed      bool              `json:"sealed"`
	First       uint64            `json:"first"` // sequences
	Last        uint64            `json:"last"`
	Incarnation event.Incarnation `json:"incarnation"`
	// Streams lists what the segment holds of each stream-partition.
	Streams []SegmentStream `json:"streams"`
	// Err says what is wrong with the segment; empty when it reads well.
	Err string `json:"error,omitempty"`
}

// SegmentStream is a stream-partition in a segment: offsets in [First, End).
type SegmentStream struct {
	Stream    string `json:"stream"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"`
	End       int64  `json:"end"`
	Bytes     int64  `json:"bytes"`
}

// List describes the segments of the log in dir, oldest first, without a lock
// and without changing anything: naru may be running on it. Of the segment that
// is written to it may show frames that are not synced yet.
func List(fs vfs.FS, dir string) ([]SegmentInfo, error) {
	v, err := view(fs, dir)
	if err != nil {
		return nil, err
	}
	infos := make([]SegmentInfo, len(v.segments))
	for i, s := range v.segments {
		infos[i] = SegmentInfo{Name: segmentName(s.number), Number: s.number, Bytes: s.size, Sealed: i < len(v.segments)-1}
		if err := v.describe(i, &infos[i]); err != nil {
			infos[i].Err = err.Error()
		}
	}
	return infos, nil
}

// viewer reads a log's folder beside a naru that may be running on it.
type viewer struct {
	fs       vfs.FS
	dir      string
	segments []*segment
}

func view(fs vfs.FS, dir string) (*viewer, error) {
	l := &Log{fs: fs, dir: dir}
	l.pool.init(l)
	found, err := l.list()
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	return &viewer{fs: fs, dir: dir, segments: found.segments}, nil
}

// predecessor returns what the segment behind the i-th says of it; ok is false
// for the last one.
func (v *viewer) predecessor(i int) (p predecessor, ok bool, err error) {
	if i == len(v.segments)-1 {
		return predecessor{}, false, nil
	}
	next := v.segments[i+1]
	file, err := v.fs.Open(next.path)
	if err != nil {
		return predecessor{}, false, err
	}
	defer file.Close()
	cp, _, err := readCheckpoint(file, next.path, next.number, next.size)
	if err != nil {
		return predecessor{}, false, err
	}
	if cp.predecessor.number != v.segments[i].number {
		return predecessor{}, false, next.corrupt(0, "its predecessor is segment %d", cp.predecessor.number)
	}
	return cp.predecessor, true, nil
}

func (v *viewer) describe(i int, info *SegmentInfo) error {
	s := v.segments[i]
	file, err := v.fs.Open(s.path)
	if err != nil {
		return err
	}
	defer file.Close()
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return err
	}
	s.nonce, s.begin = h.nonce, h.end()
	info.Created, info.First, info.Incarnation = cp.created, h.sequence, cp.incarnation
	pred, sealed, err := v.predecessor(i)
	if err != nil {
		return err
	}
	if sealed {
		info.Used, info.Last = pred.length, pred.last
		s.setLength(pred.length)
		if foot, err := s.readFooter(file); err == nil {
			return v.streams(info, &foot.index, i)
		}
	}
	t := newTail(s, cp, h)
	limit := s.size
	if sealed {
		limit = pred.length
	}
	err = eachFrame(file, s, h, limit, func(f frame, _ int64) error {
		if err := t.add(f); err != nil {
			return s.corrupt(t.end, "%v", err)
		}
		t.upTo = f.sequence
		return t.promise()
	})
	info.Used, info.Last = t.end, t.sequence()
	info.Streams = streamsOf(t.state.parts, t.index)
	if err == nil && sealed && (t.end != pred.length || t.sequence() != pred.last || t.chain != pred.checksum) {
		err = s.corrupt(t.end, "it ends with frame %d; the next segment says %d", t.sequence(), pred.last)
	}
	return err
}

// streams names what an index holds; new streams are named by the next checkpoint.
func (v *viewer) streams(info *SegmentInfo, x *index, i int) error {
	next := v.segments[i+1]
	file, err := v.fs.Open(next.path)
	if err != nil {
		return err
	}
	defer file.Close()
	cp, _, err := readCheckpoint(file, next.path, next.number, next.size)
	if err != nil {
		return err
	}
	info.Streams = streamsOf(stateOf(cp).parts, x)
	return nil
}

func streamsOf(parts []*part, x *index) []SegmentStream {
	var out []SegmentStream
	for _, p := range parts {
		if in := x.parts[p.id]; in != nil && in.end > in.first {
			out = append(out, SegmentStream{Stream: p.topic.name, Partition: p.n, First: in.first, End: in.end, Bytes: in.bytes})
		}
	}
	return out
}

// eachFrame walks over the frames behind a segment's checkpoint, up to a
// footer, the limit or the first bytes that are no frame of it.
func eachFrame(file vfs.File, s *segment, cp head, limit int64, fn func(f frame, pos int64) error) error {
	sc := scanner{file: file, size: limit}
	sequence := cp.sequence
	for pos := cp.end(); pos < limit; {
		f, err := sc.frame(pos)
		if errors.Is(err, errBadFrame) {
			return nil
		}
		if err != nil {
			return err
		}
		follows := f.sequence == sequence+1 || f.kind == kindLost && f.sequence >= sequence
		if f.nonce != s.nonce || !follows || f.kind == kindFooter || f.kind == kindCheckpoint {
			return nil
		}
		if err := fn(f, pos); err != nil {
			return err
		}
		sequence = f.sequence
		pos += f.end()
	}
	return nil
}

// FrameInfo is one frame of a segment, for people.
type FrameInfo struct {
	Pos      int64    `json:"pos"` // in the file
	Length   int64    `json:"length"`
	Kind     string   `json:"kind"`
	Sequence uint64   `json:"sequence"`
	Synced   uint64   `json:"synced"` // frames up to this sequence were on disk before this one
	CRC      string   `json:"crc32c"`
	Sections []string `json:"sections,omitempty"` // in words
}

// Frames calls fn for every valid frame of one segment file, checkpoint and
// footer included, in order. It needs no lock. A sealed segment may hold stale
// frames behind its end, which only its successor knows: see List.
func Frames(fs vfs.FS, path string, fn func(FrameInfo) error) error {
	file, err := fs.Open(path)
	if err != nil {
		return fmt.Errorf("read frames: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read frames: %w", err)
	}
	sc := scanner{file: file, size: info.Size()}
	var first head
	names := map[uint32]string{}
	for pos, n := int64(0), 0; ; n++ {
		f, err := sc.frame(pos)
		if errors.Is(err, errBadFrame) && n > 0 {
			return nil
		}
		if errors.Is(err, errBadFrame) {
			return corrupt(path, 0, "checkpoint: %v", err)
		}
		if err != nil {
			return fmt.Errorf("read frames: %w", err)
		}
		if n == 0 {
			first = f.head
		} else if f.nonce != first.nonce {
			return nil
		}
		out := FrameInfo{Pos: pos, Length: f.length, Kind: f.kind.String(), Sequence: f.sequence, Synced: f.synced, CRC: fmt.Sprintf("%08x", f.crc)}
		if out.Sections, err = f.describe(names); err != nil {
			return corrupt(path, pos, "%v", err)
		}
		if err := fn(out); err != nil {
			return err
		}
		if f.kind == kindFooter {
			return nil
		}
		pos += f.end()
	}
}

// describe puts a frame's sections into words; names collects the dictionary.
func (f frame) describe(names map[uint32]string) (out []string, err error) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch f.kind {
	case kindCheckpoint:
		cp, err := parseCheckpoint(f.body())
		if err != nil {
			return nil, err
		}
		say("segment %d of incarnation %s, made %s; oldest kept %d", cp.segment, cp.incarnation, cp.created.Format(time.RFC3339), cp.oldest)
		if p := cp.predecessor; p.number > 0 {
			say("predecessor %d: %d bytes, last frame %d, checksum %08x", p.number, p.length, p.last, p.checksum)
		}
		for _, c := range cp.closed {
			say("closed incarnation %s", c.incarnation)
		}
		for _, p := range cp.parts {
			names[p.id] = fmt.Sprintf("%s/%d", p.stream, p.partition)
			say("dictionary %d = %s: offsets [%d,%d), %d events so far", p.id, names[p.id], p.start, p.end, p.events)
		}
		for _, s := range cp.streams {
			say("stream %s: acknowledged %d, refused %d", s.name, s.acknowledged, s.refused)
		}
		for reader, at := range cp.readers {
			say("reader %s of %s at %s", reader, at.Stream, at.Positions)
		}
		return out, nil
	case kindFooter:
		foot, err := parseFooter(f.body())
		if err != nil {
			return nil, err
		}
		for _, id := range foot.ids() {
			in := foot.parts[id]
			say("%s: offsets [%d,%d), %d bytes, %d index entries", names[id], in.first, in.end, in.bytes, len(in.entries))
		}
		return out, nil
	case kindPromise:
		return nil, nil
	}
	err = f.each(func(s section, _ int64) error {
		switch s.typ {
		case sectionName:
			names[s.id] = fmt.Sprintf("%s/%d", s.name, s.partition)
			say("dictionary %d = %s", s.id, names[s.id])
		case sectionWrite:
			refused := ""
			if s.refused != 0 {
				refused = ", refused for " + names[s.refused]
				if names[s.refused] == event.RejectedStream+"/0" {
					refused = ", sent again from " + names[s.refused]
				}
			}
			say("%s: offsets [%d,%d), %d records, %d bytes%s", names[s.id], s.base, s.next(), s.count, s.size, refused)
		case sectionProgress:
			reader, at, err := parseProgress(s.body)
			if err != nil {
				return err
			}
			say("reader %s of %s at %s", reader, at.Stream, at.Positions)
		case sectionForget:
			say("forget reader %s", s.name)
		case sectionGap:
			say("%s: offsets [%d,%d) are lost, %d events", names[s.id], s.gap.first, s.gap.end, s.gap.events)
		case sectionCounts:
			say("%s: %d events acknowledged, %d refused in lost frames", names[s.id], s.counts.acknowledged, s.counts.refused)
		case sectionTrim:
			say("oldest segment kept is %d", s.oldest)
		}
		return nil
	})
	return out, err
}

// Records calls fn for the record batches of a stream that the log in dir
// holds, oldest first, each as a batch of its own whose bytes are valid until
// fn returns. Like List it needs no lock. stream.ErrNoStream: the log does not
// know the stream. fn's error ends it and is returned as it is.
func Records(fs vfs.FS, dir, name string, fn func(*event.Batch) error) error {
	v, err := view(fs, dir)
	if err != nil {
		return err
	}
	known := false
	for i := range v.segments {
		found, err := v.records(i, name, fn)
		if err != nil {
			return err
		}
		known = known || found
	}
	if !known {
		return fmt.Errorf("read %s: %w", name, stream.ErrNoStream)
	}
	return nil
}

// Backward is Records with the segments from the newest to the oldest, each from its
// beginning. more is asked before every segment whether to go on.
func Backward(fs vfs.FS, dir, name string, more func() bool, fn func(*event.Batch) error) error {
	v, err := view(fs, dir)
	if err != nil {
		return err
	}
	known := false
	for i := len(v.segments) - 1; i >= 0 && more(); i-- {
		found, err := v.records(i, name, fn)
		if err != nil {
			return err
		}
		known = known || found
	}
	if !known {
		return fmt.Errorf("read %s: %w", name, stream.ErrNoStream)
	}
	return nil
}

func (v *viewer) records(i int, name string, fn func(*event.Batch) error) (known bool, err error) {
	s := v.segments[i]
	file, err := v.fs.Open(s.path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	defer file.Close()
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return false, err
	}
	s.nonce = h.nonce
	limit := s.size
	if pred, sealed, err := v.predecessor(i); err != nil {
		return false, err
	} else if sealed {
		limit = pred.length
	}
	ids := map[uint32]int32{} // of the stream's partitions
	for _, p := range cp.parts {
		if p.stream == name {
			ids[p.id] = p.partition
		}
	}
	end := h.end()
	err = eachFrame(file, s, h, limit, func(f frame, pos int64) error {
		end = pos + f.end()
		if f.kind != kindAppend && f.kind != kindCommit {
			return nil
		}
		return f.each(func(sec section, at int64) error {
			if sec.typ == sectionName && string(sec.name) == name {
				ids[sec.id] = sec.partition
			}
			partition, ours := ids[sec.id]
			if sec.typ != sectionWrite || !ours {
				return nil
			}
			return fn(&event.Batch{
				Stream: name, Incarnation: cp.incarnation, Partition: partition, From: sec.base, Next: sec.next(),
				Raw: [][]byte{f.raw[at : at+int64(sec.size)]},
			})
		})
	})
	if err == nil && i < len(v.segments)-1 && end != limit {
		err = s.corrupt(end, "a frame is damaged")
	}
	return len(ids) > 0, err
}
