package seglog

import (
	"errors"
	"sync"
	"time"

	"naru/internal/vfs"
)

// footerCache keeps the footers of sealed segments that were used last, within
// a number of bytes and for footerUnused: what readers went through once does not
// stay until there is a limit's worth of it.
type footerCache struct {
	limit int64
	now   func() time.Time
	mu    struct {
		sync.Mutex
		bytes int64
		all   map[uint64]*cachedFooter
	}
}

type cachedFooter struct {
	footer *footer
	used   time.Time
}

const footerUnused = time.Minute

func (c *footerCache) init(limit int64) {
	c.limit, c.now = limit, time.Now
	c.mu.all = map[uint64]*cachedFooter{}
}

func (c *footerCache) get(segment uint64) *footer {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.mu.all[segment]
	if e == nil {
		return nil
	}
	e.used = c.now()
	return e.footer
}

// put adds a footer and drops those that nobody has used for a while, and then those
// used longest ago. One alone may be larger than the limit.
func (c *footerCache) put(f *footer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.all[f.segment] != nil {
		return
	}
	now := c.now()
	for _, e := range c.mu.all {
		if now.Sub(e.used) > footerUnused {
			c.remove(e)
		}
	}
	c.mu.all[f.segment] = &cachedFooter{footer: f, used: now}
	c.mu.bytes += f.size()
	for c.mu.bytes > c.limit && len(c.mu.all) > 1 {
		var oldest *cachedFooter
		for _, e := range c.mu.all {
			if oldest == nil || e.used.Before(oldest.used) {
				oldest = e
			}
		}
		c.remove(oldest)
	}
}

// remove takes one out, with the lock held.
func (c *footerCache) remove(e *cachedFooter) {
	c.mu.bytes -= e.footer.size()
	delete(c.mu.all, e.footer.segment)
}

func (c *footerCache) drop(segment uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.mu.all[segment]; e != nil {
		c.remove(e)
	}
}

// readFooter reads the index behind a sealed segment whose length is known.
// The error is errBadFrame when it is not there.
func (s *segment) readFooter(file vfs.File) (*footer, error) {
	length := s.knownLength()
	sc := scanner{file: file, size: s.size}
	f, err := sc.frame(length)
	if err != nil {
		return nil, err
	}
	if f.kind != kindFooter || f.nonce != s.nonce {
		return nil, badFrame("a %s where the footer should be", f.kind)
	}
	foot, err := parseFooter(f.body())
	if err != nil {
		return nil, err
	}
	if foot.segment != s.number {
		return nil, badFrame("the footer is that of segment %d", foot.segment)
	}
	return foot, nil
}

// length returns where the frames of the i-th of segments end, a sealed one:
// its successor's checkpoint says so.
func (l *Log) length(segments []*segment, i int) (int64, error) {
	if n := segments[i].knownLength(); n > 0 {
		return n, nil
	}
	pred, err := l.predecessorOf(segments[i+1])
	if err != nil {
		return 0, err
	}
	if pred.number != segments[i].number {
		return 0, segments[i+1].corrupt(0, "its predecessor is %d, not %d", pred.number, segments[i].number)
	}
	segments[i].setLength(pred.length)
	return pred.length, nil
}

// predecessorOf reads what a segment says of the one before it.
func (l *Log) predecessorOf(s *segment) (predecessor, error) {
	cp, err := l.checkpointOf(s)
	if err != nil {
		return predecessor{}, err
	}
	return cp.predecessor, nil
}

func (l *Log) checkpointOf(s *segment) (*checkpoint, error) {
	file, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	cp, _, err := readCheckpoint(file, s.path, s.number, s.size)
	return cp, err
}

// footer returns the index of the i-th of segments, a sealed one. A footer that
// is damaged or missing is no loss: it is made again from the frames.
func (l *Log) footer(segments []*segment, i int) (*footer, error) {
	s := segments[i]
	if f := l.cache.get(s.number); f != nil {
		return f, nil
	}
	if _, err := l.length(segments, i); err != nil {
		return nil, err
	}
	file, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	f, err := s.readFooter(file)
	if errors.Is(err, errBadFrame) {
		l.log.Warn("the index of a log segment is damaged: made again from its frames", "file", s.path, "error", err)
		f, err = l.rebuildFooter(segments, i, file)
	}
	if err != nil {
		return nil, err
	}
	l.cache.put(f)
	return f, nil
}

func (l *Log) rebuildFooter(segments []*segment, i int, file vfs.File) (*footer, error) {
	s := segments[i]
	pred, err := l.predecessorOf(segments[i+1])
	if err != nil {
		return nil, err
	}
	cp, h, err := readCheckpoint(file, s.path, s.number, s.size)
	if err != nil {
		return nil, err
	}
	t, err := scanSegment(file, s, cp, h, pred)
	if err != nil {
		return nil, err
	}
	return parseFooter(appendFooter(nil, s.number, t.index, t.state.parts))
}
