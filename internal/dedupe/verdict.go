package dedupe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// streamPrefix begins the names of the streams that hold verdicts.
const streamPrefix = "_verdicts-"

// StreamOf names the stream that holds the verdicts on another, partition by
// partition.
func StreamOf(stream string) string { return streamPrefix + stream }

// JudgedBy tells whether a stream holds verdicts, and on which one.
func JudgedBy(name string) (judged string, ok bool) {
	if len(name) <= len(streamPrefix) || name[:len(streamPrefix)] != streamPrefix {
		return "", false
	}
	return name[len(streamPrefix):], true
}

// Verdict is what the judge found in a part of a stream-partition: every event of
// [From, Next) that is not among Duplicates is kept.
type Verdict struct {
	From, Next int64
	Duplicates []event.Run
	Conflicts  []event.Run // kept: their id was there before, with other bytes
}

// ErrMalformed: the bytes are not a verdict.
var ErrMalformed = errors.New("malformed verdict")

const (
	verdictVersion = 1
	verdictType    = "naru.verdict"
)

// appendTo encodes v (docs/format/duplicates.md).
func (v *Verdict) appendTo(b []byte) []byte {
	b = append(b, verdictVersion)
	b = binary.AppendUvarint(b, uint64(v.From))
	b = binary.AppendUvarint(b, uint64(v.Next-v.From))
	for _, runs := range [][]event.Run{v.Duplicates, v.Conflicts} {
		b = binary.AppendUvarint(b, uint64(len(runs)))
		at := v.From
		for _, r := range runs {
			b = binary.AppendUvarint(b, uint64(r.From-at))
			b = binary.AppendUvarint(b, uint64(r.To-r.From))
			at = r.To
		}
	}
	return b
}

// parseVerdict decodes one. The error is ErrMalformed.
func parseVerdict(b []byte) (Verdict, error) {
	var v Verdict
	if len(b) == 0 || b[0] != verdictVersion {
		return v, fmt.Errorf("%w: version", ErrMalformed)
	}
	b = b[1:]
	bad := false
	number := func() int64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > 1<<62 {
			bad = true
			return 0
		}
		b = b[size:]
		return int64(n)
	}
	v.From = number()
	v.Next = v.From + number()
	for _, runs := range []*[]event.Run{&v.Duplicates, &v.Conflicts} {
		n := number()
		if bad || v.Next < v.From || n > int64(len(b))/2 {
			return Verdict{}, fmt.Errorf("%w: it ends early", ErrMalformed)
		}
		at := v.From
		for range n {
			gap, size := number(), number()
			if bad || size == 0 || gap > v.Next-at || size > v.Next-at-gap {
				return Verdict{}, fmt.Errorf("%w: a run is not in it", ErrMalformed)
			}
			*runs = append(*runs, event.Run{From: at + gap, To: at + gap + size})
			at += gap + size
		}
	}
	if len(b) != 0 {
		return Verdict{}, fmt.Errorf("%w: %d bytes behind it", ErrMalformed, len(b))
	}
	return v, nil
}

// write is the record of a verdict.
func (v *Verdict) write(streamName string, partition int32, now time.Time) stream.Write {
	var b recordbatch.Builder
	b.Reset(now)
	b.AppendEvent(&event.Event{ID: strconv.AppendInt(nil, v.From, 10), GeneratedID: true, Source: []byte("/naru/dedupe"),
		Type: []byte(verdictType), ContentType: []byte("application/octet-stream"), Data: v.appendTo(nil)})
	return stream.Write{Stream: StreamOf(streamName), Partition: partition, Batch: b.Finish(nil, recordbatch.Snappy), Count: 1}
}

// EachVerdict calls fn for every verdict in a record batch of a stream of verdicts.
func EachVerdict(d *recordbatch.Decoder, raw []byte, fn func(offset int64, v Verdict) error) error {
	return d.Each(raw, func(e *event.Event) error {
		v, err := parseVerdict(e.Data)
		if err != nil {
			return fmt.Errorf("verdict at offset %d: %w", e.Offset, err)
		}
		return fn(e.Offset, v)
	})
}

// addRun puts an offset behind all others.
func addRun(runs []event.Run, offset int64) []event.Run {
	if n := len(runs); n > 0 && runs[n-1].To == offset {
		runs[n-1].To++
		return runs
	}
	return append(runs, event.Run{From: offset, To: offset + 1})
}

// cutRuns is the part of runs in [from, to). It shares memory with runs unless
// one of them is cut.
func cutRuns(runs []event.Run, from, to int64) []event.Run {
	for len(runs) > 0 && runs[0].To <= from {
		runs = runs[1:]
	}
	n := 0
	for n < len(runs) && runs[n].From < to {
		n++
	}
	runs = runs[:n:n]
	if n == 0 || runs[0].From >= from && runs[n-1].To <= to {
		return runs
	}
	out := append([]event.Run(nil), runs...)
	out[0].From = max(out[0].From, from)
	out[n-1].To = min(out[n-1].To, to)
	return out
}
