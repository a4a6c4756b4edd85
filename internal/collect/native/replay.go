package native

import (
	"context"
	"fmt"
	"time"

	"naru/internal/collect"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/stream"
)

// Replay judges refused events again, as the door judges now: see
// collect.Replay. Not for concurrent use.
type Replay struct {
	replay *collect.Replay
	work   *work
	door   *Door
}

// Replay begins one for events of a stream; the caller releases it.
func (d *Door) Replay(ctx context.Context, streamName string) (*Replay, error) {
	p, err := d.engine.Replay(ctx, d.metrics, streamName)
	if err != nil {
		return nil, fmt.Errorf("replay to stream %s: %w", streamName, err)
	}
	wk := d.pool.Get().(*work)
	wk.req = p.Request()
	return &Replay{p, wk, d}, nil
}

// Judge takes a record of the stream rejected. A nil refusal: the event is
// accepted, the number-th of its partition's events in Writes. The record is not
// needed any more when Judge returns.
func (p *Replay) Judge(rejected *event.Event) (refusal *event.Rejection, partition int32, number int, err error) {
	wk, r := p.work, rejected.Refusal
	wk.params, wk.fields = params{stream: r.Stream}, p.door.plain
	wk.source, wk.typ = defaultSource, nil
	if len(rejected.Source) > 0 {
		wk.source = rejected.Source
	}
	if r.Type != "" {
		wk.typ = []byte(r.Type)
	}
	p.replay.Begin(rejected)
	take := wk.again
	if r.Reason == event.BadContract {
		take = wk.whole
	}
	if err := take(rejected); err != nil {
		return nil, 0, 0, fmt.Errorf("judge again: %w", err)
	}
	refusal, partition, number = p.replay.Outcome()
	return refusal, partition, number, nil
}

// whole takes an event that had been read before its contract refused it: the
// rejection has all its attributes, and the bytes are its data.
func (wk *work) whole(rejected *event.Event) error {
	r := rejected.Refusal
	it := &wk.item
	*it = collect.Item{Source: wk.source, Type: wk.typ, Subject: rejected.Subject, ContentType: rejected.ContentType,
		Data: r.Original, Extensions: rejected.Extensions, Key: rejected.Key}
	if wk.typ == nil {
		it.Type = defaultType
	}
	if r.ID != "" {
		it.ID = []byte(r.ID)
	}
	if !rejected.Time.IsZero() {
		it.Time = rejected.Time.AppendFormat(wk.timeBuf[:0], time.RFC3339Nano)
	}
	if wk.req.TooLarge(len(it.Data)) {
		return wk.refuse(event.TooLarge, wk.tooLarge(len(it.Data)), it.ContentType)
	}
	return wk.req.Accept(it)
}

// again takes the one item that the bytes of a rejection are.
func (wk *work) again(rejected *event.Event) error {
	body := rejected.Refusal.Original
	scan := &wk.req.Scan
	wk.item = collect.Item{Data: body}
	names := wk.fields.names
	structured := string(rejected.ContentType) == string(eventMedia)
	if structured {
		names = nil
	}
	start := jsonscan.Space(body, jsonscan.SkipMark(body))
	end := scan.Value(body, start, names)
	switch {
	case end < 0:
		return wk.refuse(event.NotJSON, fmt.Sprintf("%s at byte %d of the item", scan.Err.Reason, scan.Err.Offset), bytesMedia)
	case body[start] != '{':
		return wk.refuse(event.NotObject, "the item is no object; an event is a JSON object", jsonMedia)
	case jsonscan.Space(body, end) < len(body):
		return wk.refuse(event.NotJSON, fmt.Sprintf("the object ends at byte %d of the item, but more follows", end), bytesMedia)
	case structured:
		return wk.structured(body, jsonscan.Item{Start: start, End: end})
	}
	return wk.object(body, start, end)
}

// Writes are all accepted events, partition by partition, valid until Release.
func (p *Replay) Writes() []stream.Write { return p.replay.Writes() }

// Release gives the memory back.
func (p *Replay) Release() {
	p.work.forget()
	p.replay.Release()
	p.door.pool.Put(p.work)
}
