package collect

import (
	"context"

	"naru/internal/event"
	"naru/internal/stream"
)

// again is what a request knows of a refused event that is judged again.
type again struct {
	on        bool
	id        []byte // the event's when its client gave none
	event     *event.Event
	refusal   *event.Rejection // why it is refused now
	accepted  bool
	partition int32
	number    int // among the events of its partition, from 0
}

// place notes where an event goes that is accepted, and gives its record the
// time at which it was received first.
func (a *again) place(l *lane, partition int32) {
	a.accepted, a.partition, a.number = true, partition, l.count
	l.b.At(a.event.ReceivedAt)
}

// cleaned tells whether a PII action changed the event before it was stored: what
// it changed was judged then. An event that none has changed is judged whole, also
// when its contract has such actions by now.
func (a *again) cleaned() bool { return a.on && a.event.Refusal.Changed }

// Replay is a request of refused events that are judged again, as the door judges
// now. Nothing of it is stored here: Writes are for whoever keeps account of
// rejections to append. Its events keep their times of receipt. Not for
// concurrent use.
type Replay struct{ r *Request }

// Replay begins one for events of a stream; the caller releases it. Its memory
// is that of the events, which the caller bounds.
func (e *Engine) Replay(ctx context.Context, door *DoorMetrics, name string) (*Replay, error) {
	r, err := e.Begin(ctx, door, name)
	if err != nil {
		return nil, err
	}
	r.again.on = true
	return &Replay{r}, nil
}

// Request takes the event through Accept and Refuse; Begin is to be called first.
func (p *Replay) Request() *Request { return p.r }

// Begin names the rejection whose event comes next.
func (p *Replay) Begin(rejected *event.Event) {
	p.r.again = again{on: true, event: rejected}
	if rejected.Refusal.ID == "" {
		p.r.again.id = rejected.ID
	}
}

// Outcome of the event: why it is refused, or else where it is in Writes: the
// number-th of its partition's events.
func (p *Replay) Outcome() (refusal *event.Rejection, partition int32, number int) {
	a := &p.r.again
	if !a.accepted && a.refusal == nil {
		return &event.Rejection{Reason: event.NotJSON, Detail: "there is no event in it"}, 0, 0
	}
	return a.refusal, a.partition, a.number
}

// Writes are all accepted events, partition by partition, valid until Release.
func (p *Replay) Writes() []stream.Write {
	w := p.r.writes[:0]
	for i := range p.r.accepted {
		w = p.r.accepted[i].writes(w, p.r.stream, int32(i), "")
	}
	p.r.writes = w
	return w
}

// Release gives the memory back.
func (p *Replay) Release() { p.r.Release() }
