package seglog

import (
	"errors"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// writer is the one goroutine that writes to the log, and its state: where the
// next frame goes and what its offsets are. None of it is locked.
type writer struct {
	log  *Log
	file vfs.File
	seg  *segment

	pos      int64  // of the next frame
	sequence uint64 // of the last frame
	synced   uint64 // all frames up to this sequence are on disk
	promised uint64 // and a later frame on disk says so, up to this one
	vouched  uint64 // and so may the mark: a promise itself holds nothing
	marked   lastMark
	chain    uint32 // see nextChain

	incarnation event.Incarnation

	next map[partKey]*partNext
	ids  uint32 // dictionary entries so far

	buf    []byte // heads and tables of the group
	group  []grouped
	vector [][]byte
	spare  []*request
}

type partKey struct {
	stream string
	n      int32
}

// partNext is where the next write to a stream-partition goes.
type partNext struct {
	id   uint32
	next int64
}

// grouped is a frame of the group that is being gathered: its head and table
// are buf[start:end].
type grouped struct {
	start, end int
	req        *request // nil for a promise
	pos        int64
	head       head
}

// nextChain adds a frame to the running checksum of its segment: that of the
// checksums of all its frames, little endian, checkpoint first, footer left out.
func nextChain(chain, crc uint32) uint32 {
	return update(chain, []byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)})
}

// write is the writer's goroutine.
func (l *Log) write() {
	promise := time.NewTimer(l.cfg.Promise.Std())
	defer promise.Stop()
	for {
		select {
		case <-l.queue.ready:
			l.w.commit(l.queue.take(l.w.spare))
			promise.Reset(l.cfg.Promise.Std())
		case <-promise.C:
			l.w.promise()
		case <-l.stop:
			l.w.commit(l.queue.take(l.w.spare))
			l.w.promise()
			return
		}
		if err := l.Err(); err != nil {
			for _, r := range l.queue.take(nil) {
				l.queue.finish(r, err)
			}
			return
		}
	}
}

// commit writes the requests, in as few groups as segments allow: one pwritev
// and one fdatasync each.
func (w *writer) commit(reqs []*request) {
	l := w.log
	for _, r := range reqs {
		if err := l.Err(); err != nil {
			l.queue.finish(r, err)
			continue
		}
		if !w.fits(r.frameSize()) {
			if err := w.flush(); err != nil {
				l.queue.finish(r, l.Err())
				continue
			}
			if err := w.roll(r.frameSize(), len(r.writes) == 0); err != nil {
				if perr := l.Err(); perr != nil {
					err = perr
				}
				l.queue.finish(r, err)
				continue
			}
		}
		w.add(r)
	}
	_ = w.flush() // it has poisoned the log and answered the requests
	clear(reqs)
	w.spare = reqs
}

// fits tells whether a frame, the footer and a promise still fit the segment.
// A segment that holds only its checkpoint takes anything.
func (w *writer) fits(size int64) bool {
	x := w.log.mu.index // only this goroutine changes it
	room := x.footerRoom(int(w.ids)+2*len(w.group)+2) + 40*int64(len(w.group)) + headSize
	return w.pos == w.seg.begin || w.pos+size+room <= w.seg.size
}

// add gives a request its place and encodes the head of its frame.
func (w *writer) add(r *request) {
	g := grouped{start: len(w.buf), req: r, pos: w.pos}
	var none [headSize]byte
	w.buf = append(w.buf, none[:]...)
	names := 0
	for i := range r.writes {
		wr, s := &r.writes[i], &r.sections[i]
		p, added := w.part(wr.Stream, wr.Partition)
		names += added
		if from := refusedFor(wr); from != "" {
			from, added := w.part(from, 0)
			names += added
			s.refused = from.id
		}
		s.id, s.base = p.id, p.next
		p.next = s.next()
		recordbatch.SetBaseOffset(wr.Batch, s.base)
		r.at[i] = event.Position{Incarnation: w.log.mu.incarnation, Partition: wr.Partition, Offset: s.base}
	}
	for i := range r.writes {
		if wr := &r.writes[i]; wr.Bind != nil {
			wr.Bind(r.at, wr.Batch)
			recordbatch.Seal(wr.Batch, r.sections[i].base)
		}
	}
	for _, s := range r.sections {
		w.buf = appendWriteSection(w.buf, s)
	}
	w.buf = append(w.buf, r.extra...)
	g.end = len(w.buf)
	b := w.buf[g.start:g.end]
	w.sequence++
	g.head = head{
		kind: r.kind, nonce: w.seg.nonce, sequence: w.sequence, synced: w.synced,
		sections: names + len(r.writes) + r.extras, table: len(b) - headSize, length: int64(len(b)) + r.batches,
	}
	putHead(b, g.head)
	crc := checksum(b[bodyOff:])
	for i, wr := range r.writes {
		crc = update(crc, wr.Batch[:batchHeadSize])
		crc = combine(crc, batchCRC(wr.Batch), r.shifts[i])
	}
	putCRC(b, crc)
	g.head.crc = crc
	w.chain = nextChain(w.chain, crc)
	w.pos += g.head.end()
	w.group = append(w.group, g)
}

// refusedFor is the stream whose id a write's section has as refused-for: of
// events that are sent again it is `rejected`, which is never refused for.
func refusedFor(w *stream.Write) string {
	if w.Resent {
		return event.RejectedStream
	}
	return w.RefusedFrom
}

// part finds a stream-partition. A new one gets a dictionary entry in the
// frame that is being encoded; added is then 1.
func (w *writer) part(name string, n int32) (p *partNext, added int) {
	p = w.next[partKey{name, n}]
	if p == nil {
		w.ids++
		p = &partNext{id: w.ids}
		w.next[partKey{name, n}] = p
		w.buf = appendNameSection(w.buf, p.id, n, name)
		added = 1
	}
	return p, added
}

var padding [frameUnit]byte

// flush writes and syncs the group, lets readers see it and answers. An error
// has poisoned the log.
func (w *writer) flush() error {
	if len(w.group) == 0 {
		return nil
	}
	vector := w.vector[:0]
	for _, g := range w.group {
		vector = append(vector, w.buf[g.start:g.end])
		if g.req != nil {
			for _, wr := range g.req.writes {
				vector = append(vector, wr.Batch)
			}
		}
		if pad := g.head.end() - g.head.length; pad > 0 {
			vector = append(vector, padding[:pad])
		}
	}
	first, l := w.group[0].pos, w.log
	err := w.file.WriteVAt(vector, first)
	if err == nil {
		start := time.Now()
		if err = w.file.Sync(); err == nil {
			l.stats.sync(len(w.group), w.pos-first)
			if fn := l.cfg.Listener.Synced; fn != nil {
				fn(len(w.group), w.pos-first, time.Since(start))
			}
		}
	}
	if err == nil {
		w.synced = w.sequence
		err = w.publish()
	}
	if err != nil {
		// The file may have been opened under another name: say which it is.
		l.fail(fmt.Errorf("write segment %s: %w", w.seg.path, err))
		err = l.Err()
	}
	for _, g := range w.group {
		if g.req != nil {
			l.queue.finish(g.req, err)
		}
	}
	clear(vector)
	clear(w.group)
	w.vector, w.group, w.buf = vector[:0], w.group[:0], w.buf[:0]
	const keep = 1 << 20
	if cap(w.buf) > keep {
		w.buf = nil
	}
	return err
}

// publish lets readers see the group.
func (w *writer) publish() error {
	l := w.log
	half := false
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := len(l.mu.parts)
	for _, g := range w.group {
		if g.req == nil {
			continue
		}
		table := w.buf[g.start+headSize : g.end]
		if err := l.mu.apply(table, g.head.sections, g.head.length, place{w.seg, g.pos}, l.mu.index); err != nil {
			return fmt.Errorf("apply frame %d: %w", g.head.sequence, err)
		}
	}
	if len(l.mu.parts) != parts {
		l.changeLocked()
	}
	l.mu.sequence = w.sequence
	half = l.mu.limit < w.seg.size/2 && w.pos >= w.seg.size/2
	l.mu.limit = w.pos
	if half {
		l.wakeKeeper() // to prepare the next segment
	}
	return nil
}

// promise says on disk that all frames so far are on disk.
func (w *writer) promise() {
	if w.log.Err() != nil || w.promised >= w.synced {
		return
	}
	g := grouped{pos: w.pos, end: headSize}
	w.sequence++
	g.head = head{kind: kindPromise, nonce: w.seg.nonce, sequence: w.sequence, synced: w.synced, length: headSize}
	w.buf = append(w.buf[:0], padding[:]...)
	w.buf = append(w.buf, make([]byte, headSize-len(padding))...)
	_, g.head.crc = sealFrame(w.buf, g.head)
	w.chain = nextChain(w.chain, g.head.crc)
	w.pos += g.head.end()
	w.group = append(w.group, g)
	vouched := w.synced
	if w.flush() == nil {
		// The promise itself needs none: it holds nothing.
		w.promised, w.vouched = w.synced, vouched
	}
}

// errNoSpace: the disk has no room for another segment.
var errNoSpace = errors.New("no space for another segment")

// roll seals the active segment and begins the next. Everything gathered has
// been flushed. With errNoSpace nothing has happened; any other error has
// poisoned the log. What brings no events may take from the reserve of the disk:
// it is how retention makes room again.
func (w *writer) roll(need int64, reserve bool) error {
	l, start := w.log, time.Now()
	l.mu.Lock()
	cp := l.mu.checkpoint()
	body := cp.append(nil)
	foot := appendFooter(nil, w.seg.number, l.mu.index, l.mu.parts)
	maxTime := l.mu.index.maxTime
	l.mu.Unlock()
	size := max(int64(l.cfg.Segment), align(int64(headSize+len(body)+64))+need+l.mu.index.footerRoom(len(cp.parts)+2))
	free, err := l.pool.take(size, reserve)
	if err != nil {
		if errors.Is(err, errNoSpace) {
			l.setFull(true, -1)
			return l.fullError()
		}
		l.fail(fmt.Errorf("make segment: %w", err))
		return err
	}
	length := w.pos
	next, err := w.begin(free, cp, foot, predecessor{number: w.seg.number, length: length, last: w.sequence, checksum: w.chain, maxTime: maxTime})
	if err != nil {
		l.fail(fmt.Errorf("roll to segment %d: %w", w.seg.number+1, err))
		return err
	}
	l.stats.roll()
	l.wakeKeeper() // retention
	if fn := l.cfg.Listener.Rolled; fn != nil {
		fn(SegmentRolled{Sealed: next.number - 1, Begun: next.number, Bytes: length, Recycled: free.recycled, Took: time.Since(start)})
	}
	l.log.Debug("segment rolled", "sealed", next.number-1, "bytes", length, "recycled", free.recycled, "took", time.Since(start))
	return nil
}

// begin writes the footer of the active segment and makes the free file its
// successor. The order matters: the old segment is whole on disk before the
// checkpoint that says so, and that before the name.
func (w *writer) begin(free *freeFile, cp *checkpoint, foot []byte, pred predecessor) (*segment, error) {
	l := w.log
	if err := writeFooter(w.file, w.seg.nonce, pred, foot); err != nil {
		return nil, err
	}
	cp.segment, cp.created, cp.predecessor = w.seg.number+1, l.clock(), pred
	made, err := l.makeSegment(free, cp, w.sequence+1, nil, nil)
	if err != nil {
		return nil, err
	}
	old := w.file
	w.use(made)
	l.mu.Lock()
	prev := l.mu.segments[len(l.mu.segments)-1]
	prev.setLength(pred.length)
	l.mu.segments = append(l.mu.segments[:len(l.mu.segments):len(l.mu.segments)], w.seg)
	l.mu.index = newIndex()
	l.mu.limit = w.pos
	l.mu.sequence = w.sequence
	l.mu.Unlock()
	return w.seg, errors.Join(old.Close(), l.writeMark())
}

// use makes a fresh segment the one that is written to.
func (w *writer) use(m *madeSegment) {
	w.file, w.seg = m.file, m.seg
	w.pos, w.chain = m.pos, m.chain
	w.sequence, w.synced, w.promised, w.vouched = m.sequence, m.sequence, m.sequence, m.sequence
}

// writeFooter writes and syncs the index of a segment behind its last frame.
func writeFooter(file vfs.File, nonce uint64, pred predecessor, body []byte) error {
	b, _ := sealFrame(append(make([]byte, headSize, headSize+len(body)), body...), head{
		kind: kindFooter, nonce: nonce, sequence: pred.last, synced: pred.last, table: len(body),
	})
	if _, err := file.WriteAt(b, pred.length); err != nil {
		return err
	}
	return file.Sync()
}

// close releases the file. The promise has been written.
func (w *writer) close() error { return w.file.Close() }
