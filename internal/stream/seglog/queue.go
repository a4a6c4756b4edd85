package seglog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/stream"
)

// request is one frame to be: made ready by the goroutine that appends, given
// its place by the writer.
type request struct {
	kind   kind
	writes []stream.Write
	// Beside each write: its section without id, base and refused, and the
	// operator that adds its checksum to the frame's.
	sections []section
	shifts   []uint32
	batches  int64  // bytes
	extra    []byte // further sections, encoded
	extras   int
	names    int // the most that new dictionary entries take

	at   []event.Position // set by the writer, of the first record of each write
	err  error
	done chan struct{} // the writer sends when it no longer needs the bytes
}

// requests is a pool for each log: a channel made in one synctest bubble is not
// to turn up in another.
type requests struct{ sync.Pool }

func (p *requests) get(k kind) *request {
	r, _ := p.Get().(*request)
	if r == nil {
		r = &request{done: make(chan struct{}, 1)}
	}
	r.kind = k
	return r
}

// put takes the request back; nothing may still know it.
func (p *requests) put(r *request) {
	*r = request{sections: r.sections[:0], shifts: r.shifts[:0], extra: r.extra[:0], done: r.done}
	p.Put(r)
}

// prepare checks the writes and does all work on them that needs no place in
// the log.
func (r *request) prepare(writes []stream.Write) error {
	r.writes = writes
	for i := range writes {
		w := &writes[i]
		h, err := w.Check()
		if err != nil {
			return err
		}
		r.sections = append(r.sections, section{
			typ: sectionWrite, count: uint32(h.Count), delta: uint32(h.LastDelta), size: uint32(h.Size), maxTime: h.MaxTimeMs,
		})
		r.shifts = append(r.shifts, shiftOf(h.Size-batchHeadSize))
		r.batches += int64(h.Size)
		r.names += nameSectionSize(w.Stream)
		if w.RefusedFrom != "" {
			r.names += nameSectionSize(w.RefusedFrom)
		}
		if w.Resent {
			r.names += nameSectionSize(event.RejectedStream)
		}
	}
	return nil
}

// frameSize is the most that the frame can take.
func (r *request) frameSize() int64 {
	return align(int64(headSize+len(r.writes)*writeSectionSize+len(r.extra)+r.names) + r.batches)
}

// queue holds requests that wait for the writer, bounded in bytes, those in
// flight included.
type queue struct {
	mu struct {
		sync.Mutex
		reqs   []*request
		bytes  int64
		closed bool
		space  chan struct{} // made by who waits, closed when bytes go down or the queue closes
	}
	limit int64
	ready chan struct{} // holds one: the queue is not empty
}

func (q *queue) init(limit int64) {
	q.limit = limit
	q.ready = make(chan struct{}, 1)
}

// queueAfter is when a client should come back to a full queue.
const queueAfter = time.Second

func (q *queue) put(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	size := r.frameSize()
	for {
		q.mu.Lock()
		if q.mu.closed {
			q.mu.Unlock()
			return stream.ErrClosed
		}
		if q.mu.bytes == 0 || q.mu.bytes+size <= q.limit {
			q.mu.bytes += size
			q.mu.reqs = append(q.mu.reqs, r)
			q.mu.Unlock()
			select {
			case q.ready <- struct{}{}:
			default:
			}
			return nil
		}
		if q.mu.space == nil {
			q.mu.space = make(chan struct{})
		}
		space := q.mu.space
		q.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return &fault.RetryAfter{Err: fmt.Errorf("queue of %d bytes stays full: %w", q.limit, ctx.Err()), After: queueAfter}
		}
	}
}

// take swaps the queue for an empty one.
func (q *queue) take(spare []*request) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	reqs := q.mu.reqs
	q.mu.reqs = spare[:0]
	return reqs
}

// finish answers a request. The size is that of put: the request is the
// caller's again as soon as it is answered.
func (q *queue) finish(r *request, err error) {
	size := r.frameSize()
	r.err = err
	r.done <- struct{}{}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.bytes -= size
	q.wake()
}

// wake lets those that wait for space look again. The caller holds the lock.
func (q *queue) wake() {
	if q.mu.space != nil {
		close(q.mu.space)
		q.mu.space = nil
	}
}

// close lets nothing in any more; what is in stays.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.closed = true
	q.wake()
}
