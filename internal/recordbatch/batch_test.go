package recordbatch

import (
	"bytes"
	"errors"
	"fmt"
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
		var d Decoder
		if h, err := ReadHead(raw); err == nil {
			fixCRC(raw[:h.Size])
		}
		_ = d.Each(raw, func(*event.Event) error { return nil })
	})
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
