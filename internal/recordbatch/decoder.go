package recordbatch

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"naru/internal/event"
)

// MaxRecords is the most that the records of one batch may take once
// decompressed: a batch is cut at CutSize, and one event more may be in it.
const MaxRecords = 128 << 20

// Decoder reads batches and reuses its memory. Not for concurrent use.
type Decoder struct {
	buf   []byte
	zstd  *zstd.Decoder
	ev    event.Event
	like  likeness
	times times

	made event.Event // of a row, whose data lie in row
	row  []byte
}

// likeness is what the headers of the record before looked like. Records of a
// batch mostly differ in the event's id and time alone, so what stands around
// them is compared with one look and needs no reading.
type likeness struct {
	before  []byte // the id; nil: nothing to compare with
	between []byte // id and time; all behind the id when there is no time
	behind  []byte // the time
	timed   bool
	of      event.Event // without id, time, key, data, offset
}

// Each calls fn for every event of the batch in raw, in order. The event and
// all its slices are valid only until fn returns. It verifies the checksum.
// An error of fn ends it and is returned as it is.
func (d *Decoder) Each(raw []byte, fn func(*event.Event) error) error {
	h, err := Check(raw)
	if err != nil {
		return err
	}
	recs, err := d.records(h, raw[HeadSize:h.Size])
	if err != nil {
		return err
	}
	d.like.before = nil // it lay in the memory that now holds this batch
	for i := int32(0); i < h.Count; i++ {
		size, n := readVarint(recs)
		if n == 0 || size < 0 || size > int64(len(recs)-n) {
			return fmt.Errorf("%w: record %d of %d: bad length", ErrMalformed, i, h.Count)
		}
		rec := recs[n : n+int(size)]
		recs = recs[n+int(size):]
		if err := d.record(h, rec); err != nil {
			return fmt.Errorf("record %d of %d: %w", i, h.Count, err)
		}
		if err := fn(&d.ev); err != nil {
			return err
		}
	}
	if len(recs) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last record", ErrMalformed, len(recs))
	}
	return nil
}

func (d *Decoder) records(h Head, b []byte) ([]byte, error) {
	switch h.Codec {
	case None:
		return b, nil
	case Snappy:
		n, err := s2.DecodedLen(b)
		if err != nil || n > MaxRecords {
			return nil, fmt.Errorf("%w: snappy length %d: %v", ErrMalformed, n, err)
		}
		if cap(d.buf) < n {
			d.buf = make([]byte, n)
		}
		out, err := s2.Decode(d.buf[:cap(d.buf)], b)
		if err != nil {
			return nil, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
		}
		return out, nil
	case Zstd:
		if d.zstd == nil {
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxRecords))
			if err != nil {
				return nil, fmt.Errorf("make zstd decoder: %w", err)
			}
			d.zstd = z
		}
		out, err := d.zstd.DecodeAll(b, d.buf[:0])
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
		}
		d.buf = out
		return out, nil
	}
	return nil, fmt.Errorf("%w: codec %d is not supported", ErrMalformed, h.Codec)
}

var errShort = fmt.Errorf("%w: record ends early", ErrMalformed)

func (d *Decoder) record(h Head, b []byte) error {
	if len(b) < 1 {
		return errShort
	}
	b = b[1:] // attributes: unused
	tsDelta, n := readVarint(b)
	if n == 0 {
		return errShort
	}
	b = b[n:]
	offDelta, n := readVarint(b)
	if n == 0 {
		return errShort
	}
	b = b[n:]
	key, b, err := readBytes(b)
	if err != nil {
		return err
	}
	data, b, err := readBytes(b)
	if err != nil {
		return err
	}
	if !d.alike(b) {
		if err := d.headers(b); err != nil {
			return err
		}
	}
	e := &d.ev
	e.Key, e.Data = key, data
	if e.Refusal != nil {
		e.Refusal.Original = e.Data
	}
	e.Offset = h.BaseOffset + offDelta
	ms := h.BaseTimeMs + tsDelta
	if h.AppendedTime {
		ms = h.MaxTimeMs
	}
	e.ReceivedAt = time.UnixMilli(ms).UTC()
	return nil
}

// alike sets the headers of the event from those of the record before, if b has
// the same but for the id.
func (d *Decoder) alike(b []byte) bool {
	l := &d.like
	if l.before == nil || !bytes.HasPrefix(b, l.before) {
		return false
	}
	id, rest, err := readBytes(b[len(l.before):])
	if err != nil || !bytes.HasPrefix(rest, l.between) {
		return false
	}
	rest = rest[len(l.between):]
	var at time.Time
	if l.timed {
		var text []byte
		if text, rest, err = readBytes(rest); err != nil {
			return false
		}
		at, _ = d.times.parse(text)
	}
	if !bytes.Equal(rest, l.behind) {
		return false
	}
	d.ev = l.of
	d.ev.ID, d.ev.Time = id, at
	return true
}

// headers reads all headers into the event.
func (d *Decoder) headers(block []byte) error {
	d.ev = event.Event{Extensions: d.ev.Extensions[:0]}
	d.like.before = nil
	count, n := readVarint(block)
	if n == 0 || count < 0 {
		return errShort
	}
	b := block[n:]
	var like likeness
	ids, times := 0, 0
	for range count {
		var name, value []byte
		var err error
		if name, b, err = readBytes(b); err != nil {
			return err
		}
		at := len(block) - len(b)
		if value, b, err = readBytes(b); err != nil {
			return err
		}
		switch string(name) {
		case HeaderID:
			ids++
			d.ev.ID = value
			like.before, like.between = block[:at], b
		case HeaderTime:
			// Foreign producers may write anything; the receipt time stands in.
			if t, ok := d.times.parse(value); ok {
				d.ev.Time = t
			}
			if times++; times == 1 && ids == 1 {
				like.timed = true
				like.between, like.behind = like.between[:len(like.between)-len(block[at:])], b
			}
		default:
			if err := setHeader(&d.ev, name, value); err != nil {
				return err
			}
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%w: %d bytes behind a record's headers", ErrMalformed, len(b))
	}
	// What has more of its own is not worth comparing with.
	if ids == 1 && (times == 0 || times == 1 && like.timed) && d.ev.Refusal == nil && len(d.ev.Extensions) == 0 {
		d.like = like
		d.like.of = d.ev
	}
	return nil
}

func readBytes(b []byte) (v, rest []byte, err error) {
	size, n := readVarint(b)
	switch {
	case n == 0 || size < -1 || size > int64(len(b)-n):
		return nil, nil, errShort
	case size == -1:
		return nil, b[n:], nil
	}
	end := n + int(size)
	return b[n:end:end], b[end:], nil
}

// ErrStop ends EachIn early without being an error.
var ErrStop = errors.New("stop")

// EachIn calls fn for every event of a log batch at or behind b.From that is not
// among b.Without, or for every row that steps have made of them. fn returning ErrStop ends it without an error.
func (d *Decoder) EachIn(b *event.Batch, fn func(*event.Event) error) error {
	for i := range b.Rows.Len() {
		if b.Rows.List[i].Offset < b.From {
			continue
		}
		d.row = b.Rows.Event(i, &d.made, d.row)
		if err := fn(&d.made); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read rows of %s/%d: %w", b.Stream, b.Partition, err)
		}
	}
	without := b.Without
	for _, raw := range b.Raw {
		err := d.Each(raw, func(e *event.Event) error {
			if e.Offset < b.From {
				return nil
			}
			for len(without) > 0 && without[0].To <= e.Offset {
				without = without[1:]
			}
			if len(without) > 0 && without[0].From <= e.Offset {
				return nil
			}
			return fn(e)
		})
		if errors.Is(err, ErrStop) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decode %s/%d: %w", b.Stream, b.Partition, err)
		}
	}
	return nil
}
