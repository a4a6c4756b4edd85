package native

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"naru/internal/collect"
	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/obs"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// judging makes a door that judges events of type t by a contract with a maximum.
func judging(t *testing.T, log stream.Log, maximum int, now time.Time) *Door {
	t.Helper()
	set, problems := contract.Compile([]contract.File{{Name: "contracts/t.odcs.yaml", Data: fmt.Appendf(nil, `apiVersion: v3.1.0
kind: DataContract
id: c
version: 1.0.0
status: active
schema:
  - name: t
    properties:
      - {name: n, logicalType: integer, logicalTypeOptions: {maximum: %d}}
`, maximum)}})
	if problems != nil {
		t.Fatal(problems)
	}
	e, err := collect.New(collect.DefaultConfig(), collect.Deps{Log: log, Contracts: func() *contract.Set { return set }, Registry: obs.NewRegistry(),
		Logger: obs.Discard(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// show is all of an event that a client can see.
func show(e *event.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "sent %s id %s generated %t source %s type %s subject %s time %v media %s key %s received %v data %s contract %s", e.Sent, e.ID, e.GeneratedID, e.Source, e.Type,
		e.Subject, e.Time, e.ContentType, e.Key, e.ReceivedAt, e.Data, e.Contract.ID)
	for _, x := range e.Extensions {
		fmt.Fprintf(&b, " %s=%s", x.Name, x.Value)
	}
	return b.String()
}

func eachOf(t *testing.T, raw [][]byte, fn func(*event.Event)) {
	t.Helper()
	var dec recordbatch.Decoder
	for _, r := range raw {
		if err := dec.Each(r, func(e *event.Event) error { fn(e); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplayGivesWhatTheDoorWouldHave: what a contract refuses becomes, sent again,
// the very event that a looser contract would have let in, however it was sent.
func TestReplayGivesWhatTheDoorWouldHave(t *testing.T) {
	send := func(d *Door) {
		do(t, d, request("?source=app", `{"type":"t","n":9,"time":"2026-01-02T03:04:05Z"}`+"\n", "Content-Type", "application/x-ndjson"))
		do(t, d, request("?id_field=k", `{"type":"t","n":9,"k":"k1"}`+"\n", "Content-Type", "application/x-ndjson"))
		do(t, d, request("", `{"n":9}`, "Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "b1", "Ce-Source", "/b", "Ce-Type", "t",
			"Ce-Subject", "u1", "Ce-Time", "2026-01-02T03:04:05.123456789Z", "Ce-Partitionkey", "p1", "Ce-Trace", "x\"y"))
		do(t, d, request("", `{"specversion":"1.0","id":"s1","source":"/s","type":"t","dataschema":"https://example.com/s","datacontenttype":"application/vnd.x+json","data":{"n":9}}`,
			"Content-Type", "application/cloudevents+json"))
	}
	read := func(log stream.Log, name string) (raw [][]byte) {
		at := event.Position{}
		st, err := log.Stat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for at.Offset < st.Ranges[0].End {
			b, err := log.Read(context.Background(), name, at, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range b.Raw {
				raw = append(raw, bytes.Clone(r))
			}
			at = b.End()
		}
		return raw
	}
	loose, strict := memory.New(), memory.New()
	send(judging(t, loose, 10, received))
	send(judging(t, strict, 5, received))
	var want, got, generated []string
	eachOf(t, read(loose, "events"), func(e *event.Event) {
		if e.GeneratedID {
			e.ID = nil
		}
		want = append(want, show(e))
	})
	d := judging(t, memory.New(), 10, received.Add(24*time.Hour))
	p, err := d.Replay(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	n := 0
	eachOf(t, read(strict, event.RejectedStream), func(e *event.Event) {
		if e.Refusal.Reason != event.BadContract {
			t.Fatalf("refused for %s", e.Refusal.Reason)
		}
		generated = append(generated, string(e.ID))
		refusal, partition, number, err := p.Judge(e)
		if err != nil || refusal != nil || partition != 0 || number != n {
			t.Fatalf("%+v, %d, %d, %v", refusal, partition, number, err)
		}
		n++
	})
	var raw [][]byte
	for _, w := range p.Writes() {
		raw = append(raw, w.Batch)
	}
	eachOf(t, raw, func(e *event.Event) {
		if e.GeneratedID {
			if string(e.ID) != generated[len(got)] {
				t.Errorf("id %s, the rejection has %s", e.ID, generated[len(got)])
			}
			e.ID = nil
		}
		got = append(got, show(e))
	})
	if len(got) != 4 || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("sent again:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestReplayRefusesAgain: what is refused for other reasons is read anew.
func TestReplayRefusesAgain(t *testing.T) {
	log := memory.New()
	d := judging(t, log, 5, received)
	p, err := d.Replay(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	for _, c := range []struct {
		media, original string
		reason          event.Reason // empty: accepted
	}{
		{"application/octet-stream", `{"a":`, event.NotJSON},
		{"application/json", `[1]`, event.NotObject},
		{"application/json", `{"a":1} {"a":2}`, event.NotJSON},
		{"application/json", ``, event.NotJSON},
		{"application/json", ` {"type":"u","a":1} `, ""},
		{"application/json", `{"type":"t","n":6}`, event.BadContract},
		{"application/json", `{"type":"t","n":5}`, ""},
		{"application/cloudevents+json", `{"specversion":"1.0","id":"i"}`, event.BadAttribute},
		{"application/cloudevents+json", `{"specversion":"1.0","id":"i","source":"s","type":"t","data":{"n":6}}`, event.BadContract},
		{"application/cloudevents+json", `{"specversion":"1.0","id":"i","source":"s","type":"t","data":{"n":4}}`, ""},
	} {
		refusal, _, _, err := p.Judge(&event.Event{ID: []byte("r"), ContentType: []byte(c.media), ReceivedAt: received,
			Refusal: &event.Rejection{Stream: "events", Reason: event.TooLarge, Original: []byte(c.original)}})
		got := event.Reason("")
		if refusal != nil {
			got = refusal.Reason
		}
		if err != nil || got != c.reason {
			t.Errorf("%s: %q, want %q; %v", c.original, got, c.reason, err)
		}
	}
	n := 0
	for _, w := range p.Writes() {
		n += int(w.Count)
	}
	if n != 3 {
		t.Errorf("%d accepted, want 3", n)
	}
}
