package seglog

import (
	"errors"
	"fmt"
	"time"

	"naru/internal/quantity"
)

// Config is the section `log` of naru.yaml.
type Config struct {
	// Segment is the size of a segment file. The largest frame, and so the
	// largest request, is a quarter of it.
	Segment quantity.Bytes `yaml:"segment"`
	// Queue bounds the bytes of appends that wait for the disk; beyond it an
	// append waits, and gives up when its context does.
	Queue quantity.Bytes `yaml:"queue"`
	// RetainAge and RetainBytes: whole sealed segments are dropped that are
	// older than the one or make the log larger than the other; 0 keeps all.
	RetainAge   quantity.Duration `yaml:"retain_age"`
	RetainBytes quantity.Bytes    `yaml:"retain_bytes"`
	// DropUnread lets retention drop what a registered reader has not read.
	DropUnread bool `yaml:"drop_unread"`
	// Reserve is the free space of the disk below which appends are refused.
	Reserve quantity.Bytes `yaml:"reserve"`
	// Recycle bounds the retired segment files that are kept to be written
	// again: blocks that have been written before sync faster than new ones.
	Recycle quantity.Bytes `yaml:"recycle"`
	// IndexCache bounds the footers of sealed segments that are kept in memory.
	IndexCache quantity.Bytes `yaml:"index_cache"`
	// Promise is how long after the last acknowledgement of a burst a promise
	// frame is written.
	Promise quantity.Duration `yaml:"promise"`

	// Listener is told what happens. Its functions are called from the log's
	// own goroutines and must not block or call the log.
	Listener Listener `yaml:"-"`
	// Expect names the reader that a stream is going to have, although it may not
	// have come yet: what it has not read is kept from the first event on. nil or
	// "": none.
	Expect func(stream string) (reader string) `yaml:"-"`
	// Clock is the wall clock; nil: time.Now.
	Clock func() time.Time `yaml:"-"`
}

// DefaultConfig returns the documented defaults.
func DefaultConfig() Config {
	return Config{
		Segment:     128 * quantity.MiB,
		Queue:       64 * quantity.MiB,
		RetainAge:   quantity.Duration(7 * 24 * time.Hour),
		RetainBytes: 50 * quantity.GiB,
		Reserve:     1 * quantity.GiB,
		Recycle:     256 * quantity.MiB,
		IndexCache:  4 * quantity.MiB,
		Promise:     quantity.Duration(50 * time.Millisecond),
	}
}

// The smallest and largest segments. Checksums are combined over at most 256 MiB.
const (
	MinSegment = 4 * quantity.KiB
	MaxSegment = 1 * quantity.GiB
)

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.Segment < MinSegment || c.Segment > MaxSegment {
		errs = append(errs, fmt.Errorf("segment %s: want %s to %s", c.Segment, MinSegment, MaxSegment))
	}
	if c.Queue <= 0 {
		errs = append(errs, fmt.Errorf("queue %s: want more than 0", c.Queue))
	}
	if c.RetainBytes != 0 && c.RetainBytes < 2*c.Segment {
		errs = append(errs, fmt.Errorf("retain_bytes %s: want 0 or at least two segments (%s)", c.RetainBytes, 2*c.Segment))
	}
	if c.RetainAge < 0 || c.Reserve < 0 || c.Recycle < 0 || c.IndexCache < 0 {
		errs = append(errs, errors.New("retain_age, reserve, recycle and index_cache must not be negative"))
	}
	if c.Promise <= 0 {
		errs = append(errs, fmt.Errorf("promise %s: want more than 0", c.Promise))
	}
	return errors.Join(errs...)
}

// maxFrame is the size of the largest frame.
func (c Config) maxFrame() int64 { return int64(c.Segment) / 4 }

// Listener feeds logs, metrics and tests. Any function may be nil.
type Listener struct {
	// Synced: one group of frames has been written and synced; took is the
	// fdatasync alone.
	Synced func(frames int, bytes int64, took time.Duration)
	Rolled func(SegmentRolled)
	// Recovered: the log is open; what its last segment held.
	Recovered func(Recovery)
	Retired   func(SegmentRetired)
	// Full: the disk has less than the reserve left, or again more.
	Full     func(full bool, free int64)
	Poisoned func(error)
}

// SegmentRolled: a segment was sealed and its successor begun.
type SegmentRolled struct {
	Sealed, Begun uint64
	Bytes         int64 // of frames in the sealed one
	Recycled      bool  // the new one is written into blocks that were written before
	Took          time.Duration
}

// Recovery is what opening a log found.
type Recovery struct {
	New      bool // there was no log
	Segment  uint64
	Frames   int   // in the last segment
	Bytes    int64 // of frames in the last segment
	Copied   int   // frames beyond the last promise, copied to a new segment
	Torn     int64 // bytes of a torn tail, 0 for none
	TornFile string
	Took     time.Duration
}

// SegmentRetired: retention has dropped a segment.
type SegmentRetired struct {
	Segment  uint64
	Bytes    int64
	Reason   string // "age" or "bytes"
	Recycled bool
	Unread   []string // readers that had not read it (DropUnread)
}
