// Package dedupe finds events that were sent more than once. One judge for each
// stream reads it in log order and decides, by the id that the client gave, which
// events are duplicates; its verdicts are records in the log, so that whatever
// reads an event again finds the verdict that was given first. Why so:
// docs/design/0016-duplicates.md; the files: docs/format/duplicates.md.
package dedupe

import (
	"errors"
	"time"

	"naru/internal/quantity"
)

// Config is the section `dedupe` of naru.yaml.
type Config struct {
	// Enabled turns the judge on. Off: every event is written.
	Enabled bool `yaml:"enabled"`
	// Window is how long an id is remembered, by times of receipt.
	Window quantity.Duration `yaml:"window"`
	// Index bounds the bytes that the ids of one stream take on disk: 32 an id, and
	// 5 for finding it. When it is full the oldest go, and the window is shorter. In
	// memory it takes up to a tenth of that.
	Index quantity.Bytes `yaml:"index"`
}

// DefaultConfig returns the documented defaults.
func DefaultConfig() Config {
	return Config{Enabled: true, Window: quantity.Duration(24 * time.Hour), Index: 2 * quantity.GiB}
}

// The smallest and largest index. The larger bound is that of places in a chunk.
const (
	minIndex = quantity.MiB
	maxIndex = 3 * quantity.GiB
)

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.Window < quantity.Duration(time.Second) || c.Window > quantity.Duration(30*24*time.Hour) {
		errs = append(errs, errors.New("window: must be between 1s and 720h"))
	}
	if c.Index < minIndex || c.Index > maxIndex {
		errs = append(errs, errors.New("index: must be between 1MiB and 3GiB"))
	}
	return errors.Join(errs...)
}

// chunks is how many parts an index has: the oldest goes as a whole.
const chunks = 16

// shape is how an index is cut into chunks.
type shape struct {
	entries int64 // of a chunk
	chunks  int64 // at most
	window  int64 // ms
}

// shape divides the bytes among the partitions of a stream: two tails, and chunks with
// a head, blocks and a table each.
func (c Config) shape(partitions int) shape {
	const (
		line  = perLine * 4                        // bytes, tags and numbers of blocks
		fixed = blockSize + tagsHead + line        // of a chunk, without its blocks and what finds their entries
		each  = blockSize + perBlock*line/fill + 1 // a block with that
	)
	parts := int64(1)
	for parts < int64(partitions) {
		parts *= 2 // so that it does not change with each partition that comes
	}
	size := (int64(c.Index)/parts - 2*tailSize) / chunks
	return shape{entries: max((size-fixed)/each, 1) * perBlock, chunks: chunks, window: c.Window.Std().Milliseconds()}
}
