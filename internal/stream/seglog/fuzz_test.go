package seglog

import (
	"testing"
	"time"

	"naru/internal/event"
	"naru/internal/stream"
)

func sampleCheckpoint() *checkpoint {
	return &checkpoint{
		segment: 7, created: time.UnixMilli(1_767_225_600_000).UTC(), incarnation: event.Incarnation{1, 2}, oldest: 3,
		predecessor: predecessor{number: 6, length: 1 << 20, last: 99, checksum: 0xdeadbeef, maxTime: 1_767_225_600_000},
		closed:      []closedIncarnation{{incarnation: event.Incarnation{9}, ends: map[uint32]int64{1: 5, 2: 0}}},
		parts: []partState{
			{id: 1, stream: "events", start: 3, end: 500, bytes: 70_000},
			{id: 2, stream: "rejected", partition: 2, end: 4, bytes: 400},
		},
		streams: []streamState{{"events", 600, 4}, {"rejected", 4, 0}},
		readers: map[string]stream.Progress{"loader": {
			Stream: "events", Positions: event.Positions{{1, 2}: {0: 400}, {9}: {0: 5}}, Counts: stream.Counts{Written: 398, Rejections: 1, Duplicates: 1},
		}},
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	want := sampleCheckpoint()
	body := want.append(nil)
	got, err := parseCheckpoint(body)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.append(nil)) != string(body) || got.parts[1] != want.parts[1] || !got.readers["loader"].Positions.Equal(want.readers["loader"].Positions) {
		t.Fatalf("got %+v", got)
	}
	for n := range body {
		if _, err := parseCheckpoint(body[:n]); err == nil {
			t.Fatalf("cut at %d of %d: accepted", n, len(body))
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(sampleCheckpoint().append(nil))
	f.Add((&checkpoint{segment: 1, incarnation: event.Incarnation{1}}).append(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseCheckpoint(body)
		if err != nil {
			return
		}
		again, err := parseCheckpoint(c.append(nil))
		if err != nil {
			t.Fatalf("its own encoding: %v", err)
		}
		if string(again.append(nil)) != string(c.append(nil)) {
			t.Fatal("two encodings of one checkpoint")
		}
		stateOf(c).checkpoint()
	})
}

func FuzzFooter(f *testing.F) {
	x := newIndex()
	for i := range 5 {
		x.add(section{id: 1, base: int64(i) * 10, delta: 9, size: 50_000, maxTime: 5}, int64(1000*(i+1)))
	}
	f.Add(appendFooter(nil, 3, x, stateOf(sampleCheckpoint()).parts))
	f.Fuzz(func(t *testing.T, body []byte) {
		foot, err := parseFooter(body)
		if err != nil {
			return
		}
		for _, id := range foot.ids() {
			if in := foot.parts[id]; in.end > in.first {
				in.find(in.first)
			}
		}
	})
}

// FuzzFrame lets the body through: the checksum would hide the parser.
func FuzzFrame(f *testing.F) {
	table := appendNameSection(nil, 1, 0, "events")
	table = appendWriteSection(table, section{id: 1, base: 0, count: 1, delta: 0, size: 70})
	table = appendProgressSection(table, appendProgress(nil, "r", stream.Progress{Stream: "events", Positions: event.Positions{{1}: {0: 1}}}))
	table = appendForgetSection(table, "old")
	table = appendTrimSection(table, 4)
	whole, _ := sealFrame(append(append(make([]byte, headSize), table...), make([]byte, 70)...), head{kind: kindCommit, nonce: 5, sequence: 2, sections: 5, table: len(table)})
	f.Add(whole)
	promise, _ := sealFrame(make([]byte, headSize), head{kind: kindPromise, nonce: 5, sequence: 2, synced: 1})
	f.Add(promise)
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := readHead(raw)
		if err != nil || h.length > int64(len(raw)) {
			return
		}
		h.crc = checksum(raw[bodyOff:h.length])
		fr, err := checkFrame(h, raw)
		if err != nil {
			return
		}
		_, _ = fr.describe(map[uint32]string{})
		st := newState()
		_ = st.apply(raw[headSize:headSize+fr.table], fr.sections, fr.length, place{}, newIndex())
		if fr.kind == kindAppend || fr.kind == kindCommit {
			if err := fr.each(func(s section, at int64) error {
				if s.typ == sectionWrite {
					_ = fr.raw[at : at+int64(s.size)]
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
