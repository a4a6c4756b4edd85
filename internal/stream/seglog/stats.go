package seglog

import "sync/atomic"

// counters are the log's own, since it was opened.
type counters struct {
	groups, frames, bytes, rolls, torn, retired atomic.Int64
}

func (c *counters) sync(frames int, bytes int64) {
	c.groups.Add(1)
	c.frames.Add(int64(frames))
	c.bytes.Add(bytes)
}

func (c *counters) roll() { c.rolls.Add(1) }

func (c *counters) opened(torn int, r Recovery) {
	if r.Torn > 0 {
		torn++
	}
	c.torn.Store(int64(torn))
}

// Stats are figures for metrics. Counters run from the opening of the log on.
type Stats struct {
	Syncs      int64 // groups written, one fdatasync each
	Frames     int64 // in these groups
	Bytes      int64 // of these frames
	Rolls      int64
	Retired    int64 // segments dropped by retention
	TornFiles  int64 // torn tails that lie in the folder
	Segments   int
	DiskBytes  int64 // of segment files, the free ones included
	QueueBytes int64 // of appends that wait for the disk or are on their way
	Full       bool  // the disk has less than the reserve left
}

// Stats returns the figures of now.
func (l *Log) Stats() Stats {
	s := Stats{
		Syncs: l.stats.groups.Load(), Frames: l.stats.frames.Load(), Bytes: l.stats.bytes.Load(), Rolls: l.stats.rolls.Load(),
		Retired: l.stats.retired.Load(), TornFiles: l.stats.torn.Load(), Full: l.full.Load(), DiskBytes: l.pool.bytes(),
	}
	l.queue.mu.Lock()
	s.QueueBytes = l.queue.mu.bytes
	l.queue.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Segments = len(l.mu.segments)
	for _, seg := range l.mu.segments {
		s.DiskBytes += seg.size
	}
	return s
}
