package collect

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/web"
)

// maxListed is how many refused items an answer lists; the stream `rejected`
// has them all.
const maxListed = 100

// Item is an event as a door hands it over. All slices are copied at once.
type Item struct {
	ID          []byte // nil: naru makes one, and the event is never a duplicate
	Source      []byte
	Type        []byte
	Subject     []byte // nil: none
	Time        []byte // RFC 3339 (TimeText, TimeNumber); nil: the time of receipt stands in
	ContentType []byte
	Data        []byte
	Extensions  []event.Attr
	Key         []byte // nil: none

	sent []byte // digest of what was sent, where Data is not that; nil: it is
}

// Request is one request on its way: it owns all its buffers and is pooled. The
// order is Begin, ReadBody, Accept and Refuse for each item, Append, Answer,
// Release. Nothing is stored before Append. Not for concurrent use.
type Request struct {
	e      *Engine
	door   *DoorMetrics
	stream string

	// Received is the time of receipt of all its events.
	Received time.Time
	// Scan is for the door's use: scanners are too large to make for each item.
	Scan jsonscan.Scanner

	body      web.Body
	items     int
	accepted  []lane // by partition
	rejected  lane
	refused   []refused // the first maxListed
	contracts *contract.Set
	judge     judge
	broken    []broken
	refusals  [len(reasons) + 1]int
	seen      []seen // for those who look on
	unseen    [2]int // accepted and refused beyond these
	dry       dryRun
	writes    []stream.Write
	at        []event.Position

	again again // of a replay only

	ids   idMaker
	own   recordbatch.Headers
	none  recordbatch.Headers
	kinds [8]kind
	turn  int  // of the kind to replace next
	long  kind // one that is too large to keep
}

// kind holds the headers that events of one type share.
type kind struct {
	typ, source, contentType []byte
	contract                 *contract.Contract // nil: none
	headers                  recordbatch.Headers
}

func newRequest(e *Engine) *Request {
	return &Request{e: e, accepted: make([]lane, e.cfg.Partitions), judge: judge{keys: e.keys}}
}

func (r *Request) begin(door *DoorMetrics, name string, now time.Time) {
	r.door, r.stream = door, name
	r.items = 0
	r.refused, r.broken = r.refused[:0], r.broken[:0]
	r.seen, r.unseen = r.seen[:0], [2]int{}
	r.dry = dryRun{}
	r.contracts = r.e.inForce()
	r.refusals = [len(reasons) + 1]int{}
	r.ids.begun = false
	r.again = again{}
	r.receive(now)
}

// receive sets the time of receipt, before the first item.
func (r *Request) receive(now time.Time) {
	r.Received = now
	for i := range r.accepted {
		r.accepted[i].reset(now)
	}
	r.rejected.reset(now)
}

// Release gives the request's memory back; the request must not be used again.
func (r *Request) Release() {
	r.body.Release()
	for i := range r.accepted {
		r.accepted[i].trim()
	}
	r.rejected.trim()
	clear(r.refused)
	clear(r.broken)
	clear(r.seen)
	r.contracts, r.dry = nil, dryRun{}
	clear(r.writes) // they alias the lanes
	r.e.pool.Put(r)
}

// Stream is the name of the stream that events go to.
func (r *Request) Stream() string { return r.stream }

// ReadBody reads the request's body within the limits; its end is the time of
// receipt. The bytes are valid until Append has returned. Errors are *web.Error.
func (r *Request) ReadBody(hr *http.Request) ([]byte, error) {
	err := r.e.bodies.Read(&r.body, hr)
	r.door.sent.Add(float64(r.body.Sent))
	if err != nil {
		return nil, err
	}
	r.door.read.Add(float64(len(r.body.Bytes)))
	r.receive(r.e.now())
	r.accepted[0].charged = int(overhead(int64(len(r.body.Bytes))))
	return r.body.Bytes, nil
}

// TooLarge tells whether an event of size bytes is beyond the limit.
func (r *Request) TooLarge(size int) bool { return size > int(r.e.cfg.Event) }

// MaxEvent is the limit that TooLarge compares with.
func (r *Request) MaxEvent() quantity.Bytes { return r.e.cfg.Event }

// TimeUnparsable counts an event whose time could not be read.
func (r *Request) TimeUnparsable() { r.door.unparsable.Inc() }

// Items is the number of items so far: the index of the next one.
func (r *Request) Items() int { return r.items }

// next counts an item. The error is 413 when there are too many.
func (r *Request) next() error {
	if !r.again.on && r.items >= r.e.cfg.Events {
		return &web.Error{
			Status: http.StatusRequestEntityTooLarge, Title: "too many events",
			Detail: fmt.Sprintf("the request has more than %d events (collect.events); nothing was stored, send them in smaller requests", r.e.cfg.Events),
		}
	}
	r.items++
	return nil
}

// Accept takes an event, and judges it by the contract of its type: it may be
// refused after all.
func (r *Request) Accept(it *Item) error {
	if c := r.contracts.ForBytes(it.Type); c != nil {
		return r.judged(c, it)
	}
	return r.accept(nil, it, nil)
}

// accept takes an event that keeps its contract, or one that only observes.
func (r *Request) accept(c *contract.Contract, it *Item, violations []byte) error {
	if err := r.next(); err != nil {
		return err
	}
	if r.dry.on {
		return r.dryResult(c, it, nil)
	}
	own := &r.own
	own.Reset()
	switch {
	case it.ID != nil:
		own.AddBytes(recordbatch.HeaderID, it.ID)
	case r.again.id != nil:
		own.AddBytes(recordbatch.HeaderID, r.again.id)
		own.Add(recordbatch.HeaderIDOrigin, "generated")
	default:
		own.AddBytes(recordbatch.HeaderID, r.ids.next(r.Received.UnixMilli()))
		own.Add(recordbatch.HeaderIDOrigin, "generated")
	}
	if it.Time != nil {
		own.AddBytes(recordbatch.HeaderTime, it.Time)
	}
	if it.Subject != nil {
		own.AddBytes(recordbatch.HeaderSubject, it.Subject)
	}
	for i := range it.Extensions {
		x := &it.Extensions[i]
		own.AddBytes("ce_"+string(x.Name), x.Value)
	}
	if r.again.on && r.again.event.Sent != nil {
		it.sent = r.again.event.Sent // of the bytes before they were changed
	}
	if it.sent != nil {
		own.AddBytes(recordbatch.HeaderSent, it.sent)
	}
	if violations != nil {
		own.AddBytes(recordbatch.HeaderViolations, violations)
	}
	l := &r.accepted[partitionOf(it.Key, int32(len(r.accepted)))]
	if it.ID != nil {
		l.b.Identify()
	}
	if r.again.on {
		r.again.place(l, partitionOf(it.Key, int32(len(r.accepted))))
	}
	l.add(it.Key, it.Data, r.shared(it, c), own)
	if r.e.watch != nil && !r.again.on {
		r.looked(c, string(it.Type), string(it.ID), nil, violations != nil, it.Data)
	}
	return r.charge(l)
}

// overhead is what the records of a body of n bytes take while they are made,
// as a rule.
func overhead(n int64) int64 { return 4<<10 + min(2*n, 2*recordbatch.CutSize) }

// weigh is what a body of n bytes takes of the budget.
func weigh(n int64) int64 { return n + overhead(n) }

// charge holds more of the budget for a lane that takes more than the rule:
// tiny events have headers many times their size.
func (r *Request) charge(l *lane) error {
	if l.need() <= l.charged || r.again.on {
		return nil
	}
	more := max(64<<10, l.charged, l.need()-l.charged)
	if err := r.body.Hold(int64(more)); err != nil {
		return err
	}
	l.charged += more
	return nil
}

// shared returns the headers that the item's kind shares, built once for each kind.
func (r *Request) shared(it *Item, c *contract.Contract) *recordbatch.Headers {
	for i := range r.kinds {
		k := &r.kinds[i]
		if k.contract == c && bytes.Equal(k.typ, it.Type) && bytes.Equal(k.source, it.Source) && bytes.Equal(k.contentType, it.ContentType) && k.typ != nil {
			return &k.headers
		}
	}
	k := &r.long
	if len(it.Type)+len(it.Source)+len(it.ContentType) <= 512 {
		k = &r.kinds[r.turn%len(r.kinds)]
		r.turn++
	}
	k.set(it, c)
	return &k.headers
}

func (k *kind) set(it *Item, c *contract.Contract) {
	k.contract = c
	k.typ = append(k.typ[:0], it.Type...)
	k.source = append(k.source[:0], it.Source...)
	k.contentType = append(k.contentType[:0], it.ContentType...)
	k.headers.Reset()
	k.headers.Add(recordbatch.HeaderSpecVersion, "1.0")
	k.headers.AddBytes(recordbatch.HeaderSource, it.Source)
	k.headers.AddBytes(recordbatch.HeaderType, it.Type)
	k.headers.AddBytes(recordbatch.HeaderContentType, it.ContentType)
	if c != nil {
		addRef(&k.headers, c)
		if paths := c.Embedded(); paths != nil {
			k.headers.AddBytes(recordbatch.HeaderJSONStrings, paths)
		}
	}
}

// refused is a refused item as the answer lists it.
type refused struct {
	event.Rejection                    // without its bytes
	contract        *contract.Contract // that it breaks; nil: none
}

// Refuse takes an item that is not accepted: it goes to the stream `rejected`
// with its bytes. source and contentType describe the bytes. Index and Stream
// of rej are set here.
func (r *Request) Refuse(rej event.Rejection, source, contentType []byte) error {
	it := Item{Source: source, ContentType: contentType}
	r.cleanRefused(&rej, &it)
	return r.refuse(&rej, &it, nil)
}

// refuse stores a refused item with all that an accepted one would have, so that
// it can be sent again as it was. Its type and id stand in the rejection.
func (r *Request) refuse(rej *event.Rejection, it *Item, c *contract.Contract) error {
	index := r.items
	if err := r.next(); err != nil {
		return err
	}
	rej.Index, rej.Stream = index, r.stream
	if r.dry.on {
		return r.dryResult(c, it, rej)
	}
	if r.again.on {
		r.again.refusal = rej
		return nil
	}
	ev := event.Event{
		ID: r.ids.next(r.Received.UnixMilli()), GeneratedID: true,
		Source: it.Source, Type: rejectionType, ContentType: it.ContentType, Subject: it.Subject, Extensions: it.Extensions, Sent: it.sent, Refusal: rej,
	}
	own := &r.own
	own.Reset()
	recordbatch.EventHeaders(own, &ev)
	if it.Time != nil {
		own.AddBytes(recordbatch.HeaderTime, it.Time)
	}
	if c != nil {
		addRef(own, c)
	}
	r.rejected.add(it.Key, rej.Original, &r.none, own)
	if len(r.refused) < maxListed {
		listed := refused{*rej, c}
		listed.Original = nil
		r.refused = append(r.refused, listed)
	}
	if r.e.watch != nil {
		r.looked(r.contracts.For(rej.Type), rej.Type, rej.ID, rej, false, rej.Original)
	}
	r.refusals[reasonIndex(rej.Reason)]++
	return r.charge(&r.rejected)
}

var rejectionType = []byte(recordbatch.RejectionType)

// Append stores everything in one atomic append and returns when it is durable.
// Errors are *web.Error. The body is given back.
func (r *Request) Append(ctx context.Context) error {
	w := r.writes[:0]
	for i := range r.accepted {
		w = r.accepted[i].writes(w, r.stream, int32(i), "")
	}
	w = r.rejected.writes(w, event.RejectedStream, 0, r.stream)
	r.writes = w
	r.at = r.at[:0]
	if len(w) == 0 {
		return nil
	}
	at, err := r.e.log.Append(ctx, w...)
	// Not before: requests that wait for a slow disk hold memory too. And not
	// later: a client may be slow to read its answer.
	r.body.Release()
	if err != nil {
		return r.e.logError(err)
	}
	if len(at) != len(w) {
		return r.e.logError(fmt.Errorf("append %d writes: the log answered %d positions", len(w), len(at)))
	}
	r.at = at
	r.e.stored(r.stream)
	r.count()
	return nil
}
