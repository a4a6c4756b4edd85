package recordbatch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/twmb/franz-go/pkg/kmsg"

	"naru/internal/event"
)

var received = time.UnixMilli(1_767_225_600_123).UTC()

func sample(i int) *event.Event {
	return &event.Event{
		ID: fmt.Appendf(nil, "id-%d", i), Source: []byte("/shop"), Type: []byte("order.paid"),
		Subject: []byte("u1"), Time: received.Add(-time.Second), Data: fmt.Appendf(nil, `{"n":%d}`, i),
		Extensions: []event.Attr{{Name: []byte("traceparent"), Value: []byte("00-ab-cd-01")}},
		Key:        []byte("u1"), GeneratedID: i%2 == 0,
	}
}

func build(n int, codec Codec) []byte {
	var b Builder
	b.Reset(received)
	for i := range n {
		b.AppendEvent(sample(i))
	}
	return b.Finish(nil, codec)
}

func TestRoundTrip(t *testing.T) {
	for _, codec := range []Codec{None, Snappy} {
		raw := build(500, codec)
		SetBaseOffset(raw, 1000)
		var d Decoder
		i := 0
		err := d.Each(raw, func(e *event.Event) error {
			want := sample(i)
			if !bytes.Equal(e.ID, want.ID) || !bytes.Equal(e.Data, want.Data) || !bytes.Equal(e.Source, want.Source) ||
				!bytes.Equal(e.Type, want.Type) || !bytes.Equal(e.Subject, want.Subject) || !e.Time.Equal(want.Time) ||
				!bytes.Equal(e.Key, want.Key) || e.GeneratedID != want.GeneratedID || len(e.Extensions) != 1 ||
				!bytes.Equal(e.Extensions[0].Value, want.Extensions[0].Value) || string(e.ContentType) != "application/json" {
				t.Fatalf("event %d: got %+v", i, e)
			}
			if e.Offset != int64(1000+i) || !e.ReceivedAt.Equal(received) {
				t.Fatalf("event %d: offset %d at %s", i, e.Offset, e.ReceivedAt)
			}
			i++
			return nil
		})
		if err != nil || i != 500 {
			t.Fatalf("codec %d: %d events, %v", codec, i, err)
		}
	}
}

func TestRejectionRoundTrip(t *testing.T) {
	e := &event.Event{ID: []byte("r1"), Source: []byte("/naru"), Type: []byte(RejectionType), Data: []byte("{oops"),
		Refusal: &event.Rejection{Index: 7, ID: "x", Type: "t", Stream: "events", Reason: event.NotJSON, Detail: "byte 1"}}
	var b Builder
	b.Reset(received)
	b.AppendEvent(e)
	var d Decoder
	err := d.Each(b.Finish(nil, Snappy), func(got *event.Event) error {
		want := *e.Refusal
		want.Original = e.Data
		if g := *got.Refusal; g.Index != 7 || g.Reason != want.Reason || g.Detail != want.Detail || g.Stream != want.Stream ||
			g.ID != want.ID || g.Type != want.Type || !bytes.Equal(g.Original, want.Original) {
			t.Errorf("got %+v, want %+v", g, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An independent implementation of the protocol reads what we write.
func TestKafkaReads(t *testing.T) {
	raw := build(3, None)
	var kb kmsg.RecordBatch
	if err := kb.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if kb.NumRecords != 3 || kb.LastOffsetDelta != 2 || kb.ProducerID != -1 || kb.FirstTimestamp != received.UnixMilli() {
		t.Fatalf("head: %+v", kb)
	}
	recs := kb.Records
	for i := range 3 {
		var r kmsg.Record
		size, n := readVarint(recs)
		end := n + int(size)
		if err := r.ReadFrom(recs[:end]); err != nil {
			t.Fatal(err)
		}
		recs = recs[end:]
		if string(r.Value) != fmt.Sprintf(`{"n":%d}`, i) || r.OffsetDelta != int32(i) || r.Headers[1].Key != "ce_id" {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	comp := build(500, Snappy)
	if err := kb.ReadFrom(comp); err != nil {
		t.Fatal(err)
	}
	if kb.Attributes&7 != 2 {
		t.Fatalf("500 records were not compressed: attributes %d", kb.Attributes)
	}
	if _, err := s2.Decode(nil, kb.Records); err != nil {
		t.Fatal(err)
	}
}

func TestEveryFlipIsFound(t *testing.T) {
	raw := build(20, Snappy)
	var d Decoder
	for i := 8; i < len(raw); i++ {
		if i >= 12 && i < 16 {
			continue // leader epoch: outside the checksum by the protocol
		}
		raw[i] ^= 0x40
		if err := d.Each(raw, func(*event.Event) error { return nil }); !errors.Is(err, ErrMalformed) {
			t.Fatalf("flip at %d: %v", i, err)
		}
		raw[i] ^= 0x40
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(build(3, None))
	f.Add(build(50, Snappy))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Let the body through: the checksum would hide the parser.
		if h, err := ReadHead(raw); err == nil {
			fixCRC(raw[:h.Size])
		}
		sameWithoutLikeness(t, raw)
	})
}

// all decodes a batch; each record by itself when alone is set, else with what is
// known from the one before.
func all(raw []byte, alone bool) (events []string, alike int, err error) {
	var d Decoder
	err = d.Each(raw, func(e *event.Event) error {
		if d.like.before != nil && len(e.ID) > 0 {
			alike++
		}
		shown := *e
		shown.Refusal, shown.Data = nil, nil // a pointer, and long
		text := fmt.Sprintf("%+v %x", shown, sha256.Sum256(e.Data))
		if e.Refusal != nil {
			refusal := *e.Refusal
			refusal.Original = nil
			text += fmt.Sprintf(" %+v", refusal)
		}
		events = append(events, text)
		if alone {
			d.like.before = nil
		}
		return nil
	})
	return events, alike, err
}

func sameWithoutLikeness(t *testing.T, raw []byte) (alike int) {
	t.Helper()
	got, alike, err := all(raw, false)
	want, _, werr := all(raw, true)
	if fmt.Sprint(err) != fmt.Sprint(werr) || len(got) != len(want) {
		t.Fatalf("with what is known from the record before %d events, %v; without %d, %v", len(got), err, len(want), werr)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("event %d with what is known from the record before:\n%s\nwithout:\n%s", i, got[i], want[i])
		}
	}
	return alike
}

// Records are read the same whatever stands before them.
func TestLikeness(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	pick := func(of ...string) []byte {
		if s := of[rng.IntN(len(of))]; s != "" {
			return []byte(s)
		}
		return nil
	}
	total := 0
	for range 300 {
		var b Builder
		b.Reset(received)
		timed := rng.IntN(2) == 0
		for i := range 1 + rng.IntN(40) {
			e := &event.Event{ID: pick("", "a", "b", "a long one that has ce_id in it"), Source: pick("/s", "/s", "/other"), Type: pick("t", "t", "t", "u"),
				Subject: pick("", "", "", "who"), Data: fmt.Appendf(nil, "%d", i), Key: pick("", "k"), GeneratedID: rng.IntN(4) == 0,
				ContentType: pick("", "", "", "text/plain")}
			if timed {
				e.Time = received.Add(time.Duration(rng.Int64N(int64(time.Hour))))
			}
			switch rng.IntN(12) {
			case 0:
				e.Time = received
			case 1:
				e.Extensions = []event.Attr{{Name: []byte("x"), Value: pick("1", "2")}}
			case 2:
				e.Extensions = []event.Attr{{Name: []byte("id"), Value: pick("1", "2")}} // a second ce_id
			case 3:
				e.Refusal = &event.Rejection{Reason: event.NotJSON, Detail: "d", Index: i}
			}
			b.AppendEvent(e)
		}
		total += sameWithoutLikeness(t, b.Finish(nil, None))
	}
	if total < 1000 {
		t.Errorf("only %d records could be compared", total)
	}
}

func BenchmarkDecode(b *testing.B) {
	var bld Builder
	var shared, own Headers
	shared.Add(HeaderSpecVersion, "1.0")
	shared.Add(HeaderSource, "/shop")
	shared.Add(HeaderType, "page")
	shared.Add(HeaderContentType, "application/json")
	bld.Reset(received)
	for i := range 500 {
		own.Reset()
		own.Add(HeaderID, fmt.Sprintf("0198c0de-0000-7000-8000-%012d", i))
		own.Add(HeaderTime, received.Add(time.Duration(i)*time.Millisecond).Format(time.RFC3339Nano))
		bld.Append(nil, bytes.Repeat([]byte("x"), 264), &shared, &own)
	}
	raw := bld.Finish(nil, None)
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Each(raw, func(*event.Event) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(500*b.N), "ns/event")
}

func BenchmarkAppend(b *testing.B) {
	var bld Builder
	var shared, own Headers
	shared.Add(HeaderSpecVersion, "1.0")
	shared.Add(HeaderSource, "/shop")
	shared.Add(HeaderType, "page")
	data := bytes.Repeat([]byte("x"), 264)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		bld.Reset(received)
		for range 500 {
			own.Reset()
			own.Add(HeaderID, "0198c0de-0000-7000-8000-000000000000")
			bld.Append(nil, data, &shared, &own)
		}
		out = bld.Finish(out[:0], Snappy)
	}
}

// What is known of a record ends with its batch, whose memory the next one takes.
func TestBatchesByTurns(t *testing.T) {
	var d Decoder
	for i := range 4 {
		var b Builder
		var shared, own Headers
		shared.Add(HeaderType, "t")
		b.Reset(received)
		origin := []string{"generated", "somewhere"}[i%2] // of one length
		for range 50 {                                    // enough to be compressed
			own.Reset()
			own.Add(HeaderID, "x")
			own.Add(HeaderIDOrigin, origin)
			b.Append(nil, []byte("{}"), &shared, &own)
		}
		err := d.Each(b.Finish(nil, Snappy), func(e *event.Event) error {
			if e.GeneratedID != (origin == "generated") {
				t.Errorf("batch of %s: %t", origin, e.GeneratedID)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
