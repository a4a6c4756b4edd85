package stream

import (
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/recordbatch"
)

// MaxName is the longest name of a stream or reader, in bytes.
const MaxName = 255

// ErrBadWrite: the caller broke the contract of Write; nothing was stored.
var ErrBadWrite = errors.New("bad write")

// Check is what every driver asks of a write before it is stored: a batch with
// a wrong checksum would pass for damage on disk later.
func (w *Write) Check() (recordbatch.Head, error) {
	switch {
	case w.Stream == "" || len(w.Stream) > MaxName || len(w.RefusedFrom) > MaxName:
		return recordbatch.Head{}, fmt.Errorf("%w: stream name %q: want 1 to %d bytes", ErrBadWrite, w.Stream, MaxName)
	case w.Resent && w.RefusedFrom != "" || w.Resent && w.Stream == event.RejectedStream:
		return recordbatch.Head{}, fmt.Errorf("%w: stream %s: resent and refused", ErrBadWrite, w.Stream)
	case w.RefusedFrom == event.RejectedStream:
		return recordbatch.Head{}, fmt.Errorf("%w: stream %s: refused for the stream of refusals", ErrBadWrite, w.Stream)
	case w.Partition < 0:
		return recordbatch.Head{}, fmt.Errorf("%w: stream %s: partition %d", ErrBadWrite, w.Stream, w.Partition)
	}
	h, err := recordbatch.Check(w.Batch)
	switch {
	case err != nil:
		return h, fmt.Errorf("%w: stream %s: %w", ErrBadWrite, w.Stream, err)
	case h.Size != len(w.Batch):
		return h, fmt.Errorf("%w: stream %s: %d bytes behind the record batch", ErrBadWrite, w.Stream, len(w.Batch)-h.Size)
	case h.Count == 0 || h.Count != w.Count:
		return h, fmt.Errorf("%w: stream %s: count %d, the batch holds %d", ErrBadWrite, w.Stream, w.Count, h.Count)
	}
	return h, nil
}
