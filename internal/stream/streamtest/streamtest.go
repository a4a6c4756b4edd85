// Package streamtest is what every stream.Log driver must do: one call of Run
// in the driver's tests.
package streamtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// Driver makes logs for the suite.
type Driver struct {
	// Open makes an empty log. The suite closes it.
	Open func(t *testing.T) stream.Log
	// Reopen closes l and opens the same log again. Nil for a driver that
	// keeps nothing.
	Reopen func(t *testing.T, l stream.Log) stream.Log
	// Trim makes the log drop the oldest events of the stream, some but not
	// all. Nil for a driver without retention.
	Trim func(t *testing.T, l stream.Log, name string)
	// Cut closes the log's incarnation and begins a new one; it returns the log
	// to go on with. Nil for a driver that cannot.
	Cut func(t *testing.T, l stream.Log) stream.Log
}

// Run runs the suite.
func Run(t *testing.T, d Driver) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, s *suite)
	}{
		{"Order", order},
		{"AppendIsAtomic", appendIsAtomic},
		{"PositionsAreReturned", positionsAreReturned},
		{"BaseOffsetIsSetInPlace", baseOffsetIsSetInPlace},
		{"BytesAreKept", bytesAreKept},
		{"CallerMayReuseItsBytes", callerMayReuse},
		{"OffsetsMayHaveGaps", offsetsMayHaveGaps},
		{"BadWritesStoreNothing", badWritesStoreNothing},
		{"EmptyAppend", emptyAppend},
		{"ReadBlocksUntilThereIsSomething", readBlocks},
		{"ReadWakesAllReaders", readWakesAll},
		{"ReadIsCancelled", readIsCancelled},
		{"ReadMaxBytes", readMaxBytes},
		{"ReadFromTheMiddleOfABatch", readFromTheMiddle},
		{"ReadZeroIncarnation", readZeroIncarnation},
		{"ReadErrors", readErrors},
		{"PartitionsAreApart", partitionsAreApart},
		{"StreamsAreApart", streamsAreApart},
		{"CommitIsOneStep", commitIsOneStep},
		{"CommitWithoutWrites", commitWithoutWrites},
		{"ProgressOfAnUnknownReader", progressUnknown},
		{"ForgetReader", forgetReader},
		{"CountsWithRefusals", countsWithRefusals},
		{"ResentEventsAreNotAcknowledgedAgain", resentEvents},
		{"BindKnowsThePlaces", bindKnowsPlaces},
		{"Changed", changed},
		{"CancelledAppend", cancelledAppend},
		{"AppendersAndReadersAtOnce", appendersAndReaders},
		{"ReadersAcrossMuchData", readersAcrossMuchData},
		{"CloseEndsEverything", closeEnds},
		{"Reopen", reopen},
		{"ReopenEmpty", reopenEmpty},
		{"ReopenManyTimes", reopenManyTimes},
		{"Trimmed", trimmed},
		{"ClosedIncarnation", closedIncarnation},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{Driver: d, t: t}
			s.log = d.Open(t)
			t.Cleanup(func() {
				if err := s.log.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.fn(t, s)
		})
	}
}

// patience is how long the suite waits for what must happen at some time: only
// a failing test ever waits that long.
const patience = 30 * time.Second

type suite struct {
	Driver
	t   *testing.T
	log stream.Log
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	return ctx
}

// Batch encodes one record for each value.
func Batch(values ...string) []byte {
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1_767_225_600_000))
	for _, v := range values {
		b.AppendEvent(&event.Event{ID: []byte(v), Source: []byte("/test"), Type: []byte("t"), Data: []byte(v)})
	}
	return b.Finish(nil, recordbatch.None)
}

// Write is a write of one record for each value.
func Write(name string, partition int32, values ...string) stream.Write {
	return stream.Write{Stream: name, Partition: partition, Batch: Batch(values...), Count: int32(len(values))}
}

// Values decodes what a read returned, from b.From on.
func Values(t testing.TB, b *event.Batch) []string {
	t.Helper()
	var out []string
	var d recordbatch.Decoder
	if err := d.EachIn(b, func(e *event.Event) error {
		out = append(out, string(e.Data))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *suite) append(writes ...stream.Write) []event.Position {
	s.t.Helper()
	at, err := s.log.Append(s.ctx(), writes...)
	if err != nil {
		s.t.Fatalf("append: %v", err)
	}
	if len(at) != len(writes) {
		s.t.Fatalf("append of %d writes returned %d positions", len(writes), len(at))
	}
	return at
}

func (s *suite) read(name string, from event.Position, limit stream.Bytes) *event.Batch {
	s.t.Helper()
	b, err := s.log.Read(s.ctx(), name, from, limit)
	if err != nil {
		s.t.Fatalf("read: %v", err)
	}
	s.wellFormed(b, name, from)
	return b
}

func (s *suite) wellFormed(b *event.Batch, name string, from event.Position) {
	s.t.Helper()
	if b.Stream != name || b.Partition != from.Partition || b.Incarnation.IsZero() {
		s.t.Fatalf("batch is of %s/%d in %s, asked for %s/%d", b.Stream, b.Partition, b.Incarnation, name, from.Partition)
	}
	if len(b.Raw) == 0 || b.Next <= b.From {
		s.t.Fatalf("batch [%d,%d) holds %d record batches: a read returns at least one event", b.From, b.Next, len(b.Raw))
	}
	next := int64(-1)
	for i, raw := range b.Raw {
		h, err := recordbatch.Check(raw)
		if err != nil {
			s.t.Fatalf("record batch %d: %v", i, err)
		}
		if h.Size != len(raw) || h.BaseOffset < next || (i == 0 && h.NextOffset() <= b.From) {
			s.t.Fatalf("record batch %d covers [%d,%d), %d of %d bytes, behind %d (from %d)", i, h.BaseOffset, h.NextOffset(), h.Size, len(raw), next, b.From)
		}
		next = h.NextOffset()
	}
	if next != b.Next {
		s.t.Fatalf("next is %d, the last record batch ends at %d", b.Next, next)
	}
}

// take reads n values from a position on and returns them with the position behind them.
func (s *suite) take(name string, from event.Position, n int) ([]string, event.Position) {
	s.t.Helper()
	var out []string
	for len(out) < n {
		b := s.read(name, from, 1<<10)
		out = append(out, Values(s.t, b)...)
		from = b.End()
	}
	return out, from
}

func (s *suite) stat(name string) stream.Stat {
	s.t.Helper()
	st, err := s.log.Stat(s.ctx(), name)
	if err != nil {
		s.t.Fatalf("stat: %v", err)
	}
	return st
}

// nothingBehind asserts that the stream ends at a position: a read there waits.
func (s *suite) nothingBehind(name string, at event.Position) {
	s.t.Helper()
	for _, r := range s.stat(name).Ranges {
		if r.Incarnation == at.Incarnation && r.Partition == at.Partition {
			if r.End != at.Offset {
				s.t.Fatalf("%s ends at %d, want %d", name, r.End, at.Offset)
			}
			return
		}
	}
	s.t.Fatalf("%s has no range for %s", name, at)
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, want %q", short(got), short(want))
	}
}

func short(v []string) []string {
	if len(v) > 20 {
		return append(append([]string{}, v[:20]...), fmt.Sprintf("... %d more", len(v)-20))
	}
	return v
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func numbers(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}
