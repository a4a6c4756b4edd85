// Package stream is the seam to the durable log of events. Drivers:
// stream/seglog (files), stream/memory (tests); later stream/kafka. Every
// driver passes streamtest.Run.
package stream

import (
	"context"
	"errors"
	"maps"
	"strings"

	"naru/internal/event"
)

// Write is one record batch for one stream-partition.
type Write struct {
	Stream    string
	Partition int32
	// Batch is a whole Kafka RecordBatch v2 with any base offset. The log sets
	// the base offset in place; the caller gives the bytes up until Append
	// returns, and may reuse them afterwards.
	Batch []byte
	Count int32 // records in Batch; must equal the batch's own count
	// RefusedFrom names the stream for which these events were acknowledged
	// although they were refused (Stream is then `rejected`). It feeds the
	// counts of that stream; empty for accepted events.
	RefusedFrom string
	// Resent: these events stand in the stream `rejected`, were counted as
	// refused for Stream, and are sent again. They are no new acknowledgement:
	// Stream has so many refused ones less, and `rejected` has them in Refused.
	// Not together with RefusedFrom.
	Resent bool
	// Bind, when it is not nil, is called once, when the places of all writes of
	// the append are known and nothing has been stored. It may change Batch in
	// place, but neither its size nor its number of records; the log sets base
	// offset and checksum anew. It is called in the log's writer: it must be
	// quick, and must not call the log. How a record can name a position that is
	// given out in its own append.
	Bind func(at []event.Position, batch []byte)
}

// Resend says which share of n resent events the stream had among its refused
// ones, and which it had not: those, which only a repair of the log can leave,
// are acknowledged anew.
func Resend(refused, n int64) (moved, fresh int64) {
	moved = max(min(refused, n), 0)
	return moved, n - moved
}

// Counts are the terms of the one equation (EXACTNESS), in input events.
type Counts struct {
	Written    int64 `json:"written"`
	Rejections int64 `json:"rejections"` // refused by a step, after the door
	Duplicates int64 `json:"duplicates"`
	Filtered   int64 `json:"filtered"`
	// Dropped events went by retention before they were read (log.drop_unread).
	Dropped int64 `json:"dropped"`
}

// Total is all events that have met their fate.
func (c Counts) Total() int64 {
	return c.Written + c.Rejections + c.Duplicates + c.Filtered + c.Dropped
}

// Plus is the sum of both.
func (c Counts) Plus(d Counts) Counts {
	return Counts{Written: c.Written + d.Written, Rejections: c.Rejections + d.Rejections, Duplicates: c.Duplicates + d.Duplicates,
		Filtered: c.Filtered + d.Filtered, Dropped: c.Dropped + d.Dropped}
}

// Minus is c without d.
func (c Counts) Minus(d Counts) Counts {
	return c.Plus(Counts{Written: -d.Written, Rejections: -d.Rejections, Duplicates: -d.Duplicates, Filtered: -d.Filtered, Dropped: -d.Dropped})
}

// Progress is a reader's watermark: it may lag behind what the reader has
// done, it never leads.
type Progress struct {
	Stream    string          `json:"stream"`
	Positions event.Positions `json:"positions"`
	Counts    Counts          `json:"counts"` // up to Positions, since the reader began
	// Events are those that Counts has of each partition, whatever became of
	// them. A partition that is not in it has been counted by offsets: its
	// record is older than this field, and the offsets have no gaps.
	Events map[int32]int64 `json:"events,omitempty"`
}

// Clone is a deep copy that can be changed: its maps are not nil.
func (p Progress) Clone() Progress {
	p.Positions = p.Positions.Clone()
	if p.Events = maps.Clone(p.Events); p.Events == nil {
		p.Events = map[int32]int64{}
	}
	return p
}

// Range is what a stream-partition holds of one incarnation: offsets in
// [Start, End). Offsets may have gaps.
type Range struct {
	Incarnation event.Incarnation `json:"incarnation"`
	Partition   int32             `json:"partition"`
	Start       int64             `json:"start"`
	End         int64             `json:"end"` // synced: what readers may see
}

// Stat describes one stream.
type Stat struct {
	Stream string `json:"stream"`
	// Incarnation is the one that is appended to now.
	Incarnation event.Incarnation `json:"incarnation"`
	// Ranges: closed incarnations first, oldest first; then the current one.
	Ranges []Range `json:"ranges"`
	// Acknowledged counts the events acknowledged for this stream, since it was
	// made: those appended to it and those refused at the door. Survives
	// retention and restarts.
	Acknowledged int64 `json:"acknowledged"`
	// Refused is the part of Acknowledged that went to `rejected` and was not sent
	// again. Of the stream `rejected` itself: how many of its events were.
	Refused int64 `json:"refused"`
	// Trimmed counts, by partition, the events that retention has dropped since
	// the stream was made, read or not: all below the oldest offset left.
	Trimmed map[int32]int64 `json:"trimmed,omitempty"`
	// Lost are offsets that were given to events and that a repair of the log
	// could not save: nobody can read them. Each was acknowledged.
	Lost []event.Span `json:"lost,omitempty"`
	// Bytes on disk that belong to the stream, roughly.
	Bytes int64 `json:"bytes"`
}

// Bytes is a size limit. A Read returns at least one record batch however
// large it is.
type Bytes int

// Errors of a Log. All are wrapped with the stream and position.
var (
	// ErrNoStream: the stream has never been written to.
	ErrNoStream = errors.New("no such stream")
	// ErrTrimmed: retention has dropped what was asked for.
	ErrTrimmed = errors.New("position is below what the log still has")
	// ErrBeyondEnd: the position is ahead of the log; the log was reset, or
	// this is not its log.
	ErrBeyondEnd = errors.New("position is beyond the end of the log")
	// ErrUnknownIncarnation: the log has never had that incarnation.
	ErrUnknownIncarnation = errors.New("unknown incarnation")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log closed")
	// ErrFull: the disk is nearly full; nothing was written. Transient.
	ErrFull = errors.New("disk full")
)

// Log is a durable, ordered, partitioned log. All methods may be called
// concurrently.
type Log interface {
	// Append returns nil only when all writes are durable; all of them become
	// readable or none. Positions are those of the first record of each write,
	// in the order given. A stream exists from its first write.
	//
	// After an error nothing is promised either way unless the error is
	// fault.ErrLimit or ErrFull, which store nothing. The bytes of the writes
	// belong to the log until Append returns, also when ctx is done earlier:
	// Append then waits for the write in flight.
	Append(ctx context.Context, writes ...Write) ([]event.Position, error)

	// Read blocks until at least one event at or behind from is there, then
	// returns record batches up to max bytes. It sees only what is durable.
	//
	// The zero Incarnation with any offset means the oldest that is left. At
	// the end of a closed incarnation it goes on with the next one, so the
	// batch's incarnation may differ from the one asked for.
	Read(ctx context.Context, stream string, from event.Position, max Bytes) (*event.Batch, error)

	// Commit appends writes and sets the reader's progress in one atomic,
	// durable step. Writes may be empty. Progress that goes back is stored as
	// given: going forward only is the pipeline's rule.
	Commit(ctx context.Context, writes []Write, reader string, at Progress) error

	// Progress returns where a reader has got to; a reader never seen has the
	// zero Progress (nil Positions).
	Progress(ctx context.Context, reader string) (Progress, error)

	// Stat describes a stream.
	Stat(ctx context.Context, stream string) (Stat, error)

	// Streams lists the streams by name.
	Streams(ctx context.Context) ([]string, error)

	// Changed returns a channel that is closed when, after the call, a stream or a
	// partition of one is first written to, or retention drops events: how those learn of
	// it that wait.
	Changed() <-chan struct{}

	// Close promises what is durable, releases the files and makes further
	// calls fail with ErrClosed.
	Close() error
}

// Forgetter is an optional power: it removes a reader that left the
// configuration, so that it no longer holds retention back.
type Forgetter interface {
	Forget(ctx context.Context, reader string) error
}

// Retainer is an optional power: it tells what holds retention back.
type Retainer interface {
	// Waits names the readers for which retention keeps data beyond its limit,
	// and that limit ("bytes" or "age"); none when it does not wait.
	Waits() (readers []string, reason string)
}

// Readers is an optional power: all readers known to the log.
type Readers interface {
	Readers(ctx context.Context) (map[string]Progress, error)
}

// JudgeReader begins the names of the readers that look for duplicates
// (package dedupe).
const JudgeReader = "dedupe/"

// Judges tells whether a reader is one of those: they write nothing to a table.
func Judges(reader string) bool { return strings.HasPrefix(reader, JudgeReader) }

// DefaultReader begins the names of the readers that load a stream's own tables.
const DefaultReader = "default/"

// PipelineReader begins the names of the readers of configured pipelines: one for each
// sink, "pipeline/NAME/SINK", and "pipeline/NAME", whose positions say up to where the
// steps were computed.
const PipelineReader = "pipeline/"

// BackfillReader begins the names of the readers that fill a target anew beside a sink,
// "backfill/NAME/SINK".
const BackfillReader = "backfill/"

// RefusedReader begins the names of the readers that say from where in the stream
// `rejected` a pipeline has to look for what it has refused.
const RefusedReader = "refused/"

// ReplayReader begins the names of the readers that say from where a pipeline's
// replays have still to be read by a sink of it: "replay/NAME".
const ReplayReader = "replay/"

// ReplayStream begins the names of the streams of what pipelines have refused and get
// again: "_replay.NAME". Only the sinks of that pipeline read it.
const ReplayStream = "_replay."

// Loads tells whether a reader is one that loads a stream's own tables.
func Loads(reader string) bool { return strings.HasPrefix(reader, DefaultReader) }

// Counting tells whether a reader's counts are those of events that it has brought
// somewhere: it is a default pipeline or a sink of a configured one.
func Counting(reader string) bool {
	sink, ok := strings.CutPrefix(reader, PipelineReader)
	return Loads(reader) || ok && strings.Contains(sink, "/")
}
