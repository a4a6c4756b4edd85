package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// work is a run of items of one data set that has to be acknowledged.
type work struct {
	set      *dataset
	from, to int
}

// request is one attempt to send a run of items. Every event of it carries the
// request's number and its own place in it, so that SQL can tell for each
// request what of it is there.
type request struct {
	work
	number  int64
	table   string // type of its events, and name of their table
	good    int    // items that must be rows
	bad     int    // items that must be in `rejected`
	sum     int64  // of the good items' checks
	format  string
	written atomic.Bool // the whole request was handed to the kernel

	// Set when the answer has come, or is known not to come.
	acked bool
	ack   ack
	kill  int // number of the kill that cut it off; 0 when none did
	// Refused by a 503: when the ledger is strict, nothing of it may be there.
	refused bool
}

// ledger is the client's own account of what it sent and what it was told.
type ledger struct {
	mu       sync.Mutex
	rng      *rand.Rand
	queue    []work
	sent     []*request
	pending  map[*request]bool // without an answer so far
	ackedBy  map[string]int    // good items acknowledged, by table
	ackedAll int               // items acknowledged, bad ones included
	refusals int               // requests answered 503
	// patient: a connection whose request is refused sends it again, after a
	// moment, under a new number.
	patient bool
	// beside counts acknowledged events that are not the ledger's.
	beside int64
	// strict: what is answered 503 has not been stored.
	strict bool
}

func newLedger(seed uint64) *ledger {
	return &ledger{
		rng:     rand.New(rand.NewPCG(seed, 0)),
		pending: map[*request]bool{},
		ackedBy: map[string]int{},
	}
}

// add cuts a data set into requests of varying sizes, single events among
// them, and mixes them into the queue.
func (l *ledger) add(sets ...*dataset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(sets)
}

// enqueue is add under the lock.
func (l *ledger) enqueue(sets []*dataset) {
	for _, set := range sets {
		for at := 0; at < len(set.items); {
			n := 1
			switch p := l.rng.IntN(10); {
			case p < 3:
			case p < 7:
				n = 2 + l.rng.IntN(30)
			case p < 9:
				n = 50 + l.rng.IntN(150)
			default:
				n = 300 + l.rng.IntN(200)
			}
			to := min(at+n, len(set.items))
			l.queue = append(l.queue, work{set, at, to})
			at = to
		}
	}
	l.rng.Shuffle(len(l.queue), func(a, b int) { l.queue[a], l.queue[b] = l.queue[b], l.queue[a] })
}

// take makes the next request, with its body and headers; nil when nothing is
// left. An empty queue is filled with the sets of again first.
func (l *ledger) take(again []*dataset) (r *request, body []byte, contentType string, zipped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.enqueue(again)
	}
	if len(l.queue) == 0 {
		return nil, nil, "", false
	}
	r = &request{work: l.queue[0], number: int64(len(l.sent)) + 1}
	l.queue = l.queue[1:]
	l.sent = append(l.sent, r)
	l.pending[r] = true
	amount := r.place()

	lines := make([][]byte, 0, r.to-r.from)
	whole := true // no bad item, so a JSON array will do as well
	for i := r.from; i < r.to; i++ {
		it := r.set.items[i]
		stamped := fmt.Appendf(nil, `{"req":%d,"item":%d,%s%s`, r.number, i-r.from, amount, it.body[1:])
		switch {
		case r.set.typ == "access" && i%40 == 7: // broken in the middle of a string
			stamped = stamped[:len(stamped)-5]
			whole = false
			r.bad++
		case r.set.typ == "access" && i%40 == 23: // JSON, but no object
			stamped = fmt.Appendf(nil, `["req",%d,"item",%d]`, r.number, i-r.from)
			whole = false
			r.bad++
		default:
			r.good++
			r.sum += it.check
		}
		lines = append(lines, stamped)
	}
	switch p := l.rng.IntN(10); {
	case whole && len(lines) == 1 && p < 7:
		r.format, contentType = "object", "application/json"
		body = lines[0]
	case whole && p < 4:
		r.format, contentType = "array", "application/json"
		body = append([]byte{'['}, bytes.Join(lines, []byte{','})...)
		body = append(body, ']')
	default:
		r.format, contentType = "ndjson", "application/x-ndjson"
		body = append(bytes.Join(lines, []byte{'\n'}), '\n')
		if p == 9 {
			r.format, zipped = "ndjson.gz", true
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, _ = w.Write(body)
			_ = w.Close()
			body = z.Bytes()
		}
	}
	return r, body, contentType, zipped
}

// turnEvery is how many requests, of all sets, share a table of a turning set.
const turnEvery = 300

// place chooses the request's table and gives the field that its items get
// besides: "" or `"amount":1.5,`.
func (r *request) place() string {
	if r.table = r.set.typ; !r.set.turning {
		return ""
	}
	r.table = fmt.Sprintf("%s_%d", r.set.typ, r.number/turnEvery)
	if r.number%turnEvery < turnEvery/2 {
		return fmt.Sprintf(`"amount":%d,`, r.number)
	}
	return fmt.Sprintf(`"amount":%d.5,`, r.number)
}

// checkSQL is the SQL whose sum over the request's rows must be its sum.
func (s *dataset) checkSQL() string {
	if s.turning {
		return fmt.Sprintf("%s + if(floor(amount) = req and (amount > req) = (req %% %d >= %d), 0, 1000000)", s.check, turnEvery, turnEvery/2)
	}
	return s.check
}

// answered notes an acknowledgement.
func (l *ledger) answered(r *request, a ack) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, r)
	r.acked, r.ack = true, a
	l.ackedBy[r.table] += r.good
	l.ackedAll += r.good + r.bad
	if a.Accepted != r.good || len(a.Rejected) != r.bad {
		return fmt.Errorf("request %d (%s, %s) was sent %d good and %d bad items, the answer says %d and %d",
			r.number, r.set.typ, r.format, r.good, r.bad, a.Accepted, len(a.Rejected))
	}
	return nil
}

// refuse notes a request that is to come back later. It stays without an
// acknowledgement; false ends the connection's work.
func (l *ledger) refuse(r *request, unavailable bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.refused = unavailable
	l.refusals++
	if !l.patient {
		return false
	}
	delete(l.pending, r)
	l.queue = append(l.queue, r.work)
	time.Sleep(refusalPause) // under the lock: the others are refused as well
	return true
}

// refusalPause keeps refused connections from spinning; far below Retry-After.
const refusalPause = 5 * time.Millisecond

// refused counts the requests that were answered 503 or 429.
func (l *ledger) refused() int { l.mu.Lock(); defer l.mu.Unlock(); return l.refusals }

// cut closes the account of a kill: what has no answer by now will get none.
// Its items go back to the queue, to be sent under a new number.
func (l *ledger) cut(kill int) (withoutAnswer []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.pending {
		r.kill = kill
		withoutAnswer = append(withoutAnswer, r)
		l.queue = append([]work{r.work}, l.queue...)
	}
	clear(l.pending)
	return withoutAnswer
}

// inFlight counts requests whose bytes are all sent and whose answer is not
// there.
func (l *ledger) inFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for r := range l.pending {
		if r.written.Load() {
			n++
		}
	}
	return n
}

// acked counts acknowledged items; left the runs that are still to be sent.
func (l *ledger) acked() int { l.mu.Lock(); defer l.mu.Unlock(); return l.ackedAll }
func (l *ledger) left() int  { l.mu.Lock(); defer l.mu.Unlock(); return len(l.queue) }

// tables are the tables of all requests so far, with the acknowledged items
// that must be rows of each.
func (l *ledger) tables() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for _, r := range l.sent {
		out[r.table] = l.ackedBy[r.table]
	}
	return out
}

// load sends from the ledger over several connections until stop is called,
// the queue is empty, or the server is gone.
type load struct {
	wg      sync.WaitGroup
	stopped atomic.Bool
	mu      sync.Mutex
	errs    []error // broken promises, not broken connections
}

// start sends what is in the queue, and then the sets of again, again and again:
// whoever waits for something to happen under load gives some, for a queue that
// ran dry ends the load, however fast the machine is.
func (l *ledger) start(url string, connections int, again ...*dataset) *load {
	ld := &load{}
	for range connections {
		ld.wg.Add(1)
		go func() {
			defer ld.wg.Done()
			transport := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
			for !ld.stopped.Load() {
				r, body, contentType, zipped := l.take(again)
				if r == nil {
					return
				}
				if !ld.send(l, client, url, r, body, contentType, zipped) {
					return
				}
			}
		}()
	}
	return ld
}

// send makes one request; false ends the connection's work.
func (ld *load) send(l *ledger, client *http.Client, url string, r *request, body []byte, contentType string, zipped bool) bool {
	req, err := http.NewRequest("POST", url+"/v1/events?type="+r.table, bytes.NewReader(body))
	if err != nil {
		ld.fail(err)
		return false
	}
	// A request that the transport sends again by itself would be two requests.
	req.GetBody = nil
	req.Header.Set("Content-Type", contentType)
	if zipped {
		req.Header.Set("Content-Encoding", "gzip")
	}
	trace := &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { r.written.Store(i.Err == nil) }}
	resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		return false // stays without an answer
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return false
	}
	switch resp.StatusCode {
	case http.StatusOK:
		a, err := parseAck(answer.Bytes())
		if err != nil {
			ld.fail(err)
			return false
		}
		if err := l.answered(r, a); err != nil {
			ld.fail(err)
		}
		return true
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || s < 0 {
			ld.fail(fmt.Errorf("%d with Retry-After %q, want whole seconds", resp.StatusCode, resp.Header.Get("Retry-After")))
		}
		return l.refuse(r, resp.StatusCode == http.StatusServiceUnavailable)
	default:
		ld.fail(fmt.Errorf("request %d (%s, %s): %d %s", r.number, r.set.typ, r.format, resp.StatusCode, answer.Bytes()))
		return false
	}
}

func (ld *load) fail(err error) {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	ld.errs = append(ld.errs, err)
}

// finish lets every connection end its request and returns what went wrong.
func (ld *load) finish() []error {
	ld.stopped.Store(true)
	return ld.drain()
}

// drain waits until the queue is empty or the server is gone.
func (ld *load) drain() []error {
	ld.wg.Wait()
	ld.mu.Lock()
	defer ld.mu.Unlock()
	return ld.errs
}
