package collect

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"naru/internal/contract"
	"naru/internal/event"
)

// Bounds of what is shown. The door never waits: what is beyond them is counted.
const (
	watchQueue    = 256 // events that wait to be shown
	watchRequest  = 32  // of one request
	watchAccepted = 20  // a second
	watchRejected = 40  // a second
	watchData     = 160 // bytes of an event
)

// Watch shows events while they come, as people read them: naru serve --dev. The
// zero value is not ready: NewWatch.
type Watch struct {
	queue chan seen
	// Events that the queue had no room for.
	accepted, rejected atomic.Int64
}

// seen is one event as it is shown.
type seen struct {
	at       time.Time
	stream   string
	typ, id  string
	refusal  *event.Rejection // nil: it was accepted
	violates bool             // an observing contract
	data     string
}

// NewWatch makes one; events are shown while Run runs.
func NewWatch() *Watch { return &Watch{queue: make(chan seen, watchQueue)} }

// offer hands over an event that has been stored.
func (w *Watch) offer(s seen) {
	select {
	case w.queue <- s:
	default:
		w.missed(s.refusal != nil, 1)
	}
}

func (w *Watch) missed(refused bool, n int) {
	if refused {
		w.rejected.Add(int64(n))
	} else {
		w.accepted.Add(int64(n))
	}
}

// Run shows events until ctx ends. What out does not take ends nothing.
func (w *Watch) Run(ctx context.Context, out io.Writer) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	accepted, rejected := 0, 0
	for {
		select {
		case s := <-w.queue:
			n, most := &accepted, watchAccepted
			if s.refusal != nil {
				n, most = &rejected, watchRejected
			}
			if *n++; *n > most {
				w.missed(s.refusal != nil, 1)
				continue
			}
			_, _ = io.WriteString(out, s.String())
		case <-second.C:
			accepted, rejected = 0, 0
			if a, r := w.accepted.Swap(0), w.rejected.Swap(0); a+r > 0 {
				_, _ = fmt.Fprintf(out, "         … and %d accepted, %d rejected, not shown\n", a, r)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// String is one line, harmless to a terminal.
func (s seen) String() string {
	var b strings.Builder
	b.WriteString(s.at.Format("15:04:05 "))
	if s.refusal == nil {
		b.WriteString("accepted ")
	} else {
		b.WriteString("REJECTED ")
	}
	b.WriteString(s.stream + " " + s.typ)
	if s.id != "" {
		b.WriteString(" " + s.id)
	}
	if r := s.refusal; r != nil {
		b.WriteString(": " + string(r.Reason) + ": " + r.Detail)
	}
	if s.violates {
		b.WriteString(" (breaks its contract, which observes)")
	}
	if s.data != "" {
		b.WriteString("  " + s.data)
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, b.String()) + "\n"
}

// looked notes an event for those who look on, without its personal values.
func (r *Request) looked(c *contract.Contract, typ, id string, rej *event.Rejection, violates bool, data []byte) {
	if len(r.seen) >= watchRequest {
		if rej != nil {
			r.unseen[1]++
		} else {
			r.unseen[0]++
		}
		return
	}
	s := seen{at: r.Received, stream: r.stream, typ: short(typ), id: short(id), violates: violates}
	if rej != nil {
		s.refusal = &event.Rejection{Reason: rej.Reason, Detail: rej.Detail}
	}
	if c == nil || c.Personal() == 0 {
		s.data = short(string(data[:min(len(data), watchData+1)]))
	} else {
		s.data = "(personal data)"
	}
	r.seen = append(r.seen, s)
}

// short is a text as it is shown.
func short(s string) string {
	if len(s) <= watchData {
		return s
	}
	return shorten(s, watchData) + "…"
}

// shorten keeps at most n bytes of a text, whole characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// show hands over what the request has stored.
func (r *Request) show() {
	w := r.e.watch
	for _, s := range r.seen {
		w.offer(s)
	}
	w.missed(false, r.unseen[0])
	w.missed(true, r.unseen[1])
}
