package seglog

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"naru/internal/vfs"
)

// mend makes a segment what its plan says. What needs no other bytes in the
// place of frames is written where it stands; else the file is replaced.
func (r *mender) mend(p *plan, last, cut bool) error {
	if !p.rewrite() {
		if err := r.inPlace(p, last && cut); err != nil {
			return err
		}
		if p.reindex && !last {
			return r.footer(p)
		}
		return nil
	}
	size := max(p.size, align(p.pred.length)+p.index.footerRoom(len(p.parts)))
	// A new file: a recycled one may hold frames of this very segment, of a repair
	// that was broken off.
	free, err := r.log.pool.create(size, true)
	if err != nil {
		return err
	}
	to, err := r.log.fs.OpenReadWrite(free.path)
	if err != nil {
		return err
	}
	err = r.write(p, to, last && !cut)
	if err == nil {
		err = to.Sync()
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = r.log.fs.Rename(free.path, p.seg.path)
	}
	if err == nil {
		err = r.log.fs.SyncDir(r.log.dir)
	}
	if err == nil {
		r.out.Segments = append(r.out.Segments, p.seg.path)
		r.logger.Warn("log segment written anew", "file", p.seg.path, "holes", len(p.slots))
	}
	return err
}

// inPlace clears padding, and makes durable what may be in the page cache only.
func (r *mender) inPlace(p *plan, sync bool) error {
	if len(p.pads) == 0 && !sync {
		return nil
	}
	file, err := r.log.fs.OpenReadWrite(p.seg.path)
	if err != nil {
		return err
	}
	for _, pos := range p.pads {
		if _, err = file.WriteAt(padding[:align(pos+1)-pos], pos); err != nil {
			break
		}
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// footer writes the index of a segment that stays as it is.
func (r *mender) footer(p *plan) error {
	file, err := r.log.fs.OpenReadWrite(p.seg.path)
	if err != nil {
		return err
	}
	err = writeFooter(file, p.nonce, p.pred, appendFooter(nil, p.seg.number, p.index, p.parts))
	return errors.Join(err, file.Close())
}

// write writes a segment anew: what is well as it was, in its old place, and
// lost frames between.
func (r *mender) write(p *plan, to vfs.File, open bool) error {
	var from vfs.File
	if p.source != "" {
		var err error
		if from, err = r.log.fs.Open(p.source); err != nil {
			return err
		}
		defer from.Close()
	} else {
		p.nonce = newNonce()
	}
	w := &rewriter{plan: p, to: to, sc: scanner{file: from, size: min(p.size, max(p.end, p.pred.length))}}
	if err := w.checkpoint(); err != nil {
		return err
	}
	for i, sl := range p.slots {
		if err := w.copy(sl.pos); err != nil {
			return err
		}
		if err := w.hole(sl, i == len(p.slots)-1); err != nil {
			return err
		}
	}
	if err := w.copy(p.end); err != nil {
		return err
	}
	if p.chained && w.chain != p.pred.checksum {
		return fmt.Errorf("checksum %08x, want %08x", w.chain, p.pred.checksum)
	}
	p.pred.checksum = w.chain
	if open && !p.sealed {
		return nil
	}
	return writeFooter(to, p.nonce, p.pred, appendFooter(nil, p.seg.number, p.index, p.parts))
}

// rewriter writes one segment from its plan.
type rewriter struct {
	*plan
	to    vfs.File
	sc    scanner
	pos   int64
	chain uint32
}

func (w *rewriter) put(b []byte, end int64) error {
	pad := end - w.pos - int64(len(b))
	if err := w.to.WriteVAt([][]byte{b, make([]byte, pad)}, w.pos); err != nil {
		return err
	}
	w.chain = nextChain(w.chain, crcOf(b))
	w.pos = end
	return nil
}

func (w *rewriter) checkpoint() error {
	if w.made == nil {
		return w.copy(w.begin)
	}
	if need := w.made.room(); need > w.begin {
		return fmt.Errorf("the checkpoint made again takes %d bytes, there is room for %d", need, w.begin)
	}
	b := encodeCheckpoint(w.made, head{nonce: w.nonce, sequence: w.sequence, synced: w.synced}, w.begin)
	if w.chained && len(w.slots) == 0 {
		b = balanced(b, balanceOfCheckpoint, w.chain, w.want)
	}
	return w.put(b, w.begin)
}

// copy takes frames over up to a place.
func (w *rewriter) copy(end int64) error {
	for w.pos < end {
		f, err := w.sc.frame(w.pos)
		if err != nil {
			return err
		}
		if err := w.put(f.raw, w.pos+f.end()); err != nil {
			return err
		}
	}
	return nil
}

// hole puts lost frames in the place of a hole, none larger than a reader takes
// at once. All that they say stands in the first; the last one leads the chain
// of checksums to what the successor knows.
func (w *rewriter) hole(sl *slot, last bool) error {
	b := make([]byte, headSize)
	h := head{kind: kindLost, nonce: w.nonce, sequence: sl.last, sections: len(sl.names) + len(sl.gaps) + len(sl.counts)}
	if sl.promise {
		h.kind, h.synced = kindPromise, sl.first-1
	}
	for _, s := range sl.names {
		b = appendNameSection(b, s.id, s.partition, string(s.name))
	}
	for _, g := range sl.gaps {
		b = appendGapSection(b, g.id, g.gap)
	}
	for _, id := range slices.Sorted(maps.Keys(sl.counts)) {
		b = appendCountsSection(b, id, sl.counts[id])
	}
	h.table = len(b) - headSize
	for w.pos < sl.end {
		left := sl.end - w.pos
		n := min(left, max(scanChunk, align(int64(len(b)))))
		if left-n < headSize {
			n = left
		}
		b = append(b, make([]byte, n-int64(len(b)))...)
		b, _ = sealFrame(b, h)
		if w.chained && last && n == left {
			b = balanced(b, balanceOfLost, w.chain, w.want)
		}
		if err := w.put(b, w.pos+n); err != nil {
			return err
		}
		b = make([]byte, headSize)
		h.sections, h.table = 0, 0
	}
	return nil
}
