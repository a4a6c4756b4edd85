package upload

import (
	"context"
	"io"
	"sync"
	"time"

	"naru/internal/client/records"
)

// feed reads ahead: one goroutine fills a batch while another is being sent. A
// batch is given when it is full, when the input has ended, or when its first
// record has waited for the linger time, so that what comes slowly through a
// pipe is on its way soon.
type feed struct {
	source     Source
	maxBytes   int
	maxRecords int64
	linger     time.Duration

	mu struct {
		sync.Mutex
		cur   *batch
		since time.Time // of its first record
		spare *batch
	}
	news chan struct{} // a batch has begun, is full, or the input has ended
	room chan struct{} // a batch was taken
}

func newFeed(source Source, o Options) *feed {
	f := &feed{source: source, maxBytes: o.BatchBytes, maxRecords: int64(o.BatchRecords), linger: o.Linger,
		news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	f.mu.cur, f.mu.spare = &batch{}, &batch{}
	return f
}

func (f *feed) full(b *batch) bool { return b.records >= f.maxRecords || len(b.body) >= f.maxBytes }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fill reads until the input ends or ctx does.
func (f *feed) fill(ctx context.Context) {
	var rec records.Record
	for ctx.Err() == nil {
		err := f.source.Next(&rec)
		f.mu.Lock()
		b := f.mu.cur
		if err != nil {
			if b.last = true; err != io.EOF {
				b.err = err
			}
			f.mu.Unlock()
			signal(f.news)
			return
		}
		if b.add(&rec); b.records == 1 {
			f.mu.since = time.Now()
		}
		tell, full := b.records == 1, f.full(b)
		f.mu.Unlock()
		if tell || full {
			signal(f.news)
		}
		for full {
			select {
			case <-f.room:
			case <-ctx.Done():
				return
			}
			f.mu.Lock()
			full = f.full(f.mu.cur)
			f.mu.Unlock()
		}
	}
}

// take waits for the next batch; ok is false when stop is closed or ctx ends
// first. The batch before it is given back by the call.
func (f *feed) take(ctx context.Context, stop <-chan struct{}) (b *batch, ok bool) {
	for {
		select {
		case <-stop:
			return nil, false
		default:
		}
		f.mu.Lock()
		b = f.mu.cur
		wait := time.Duration(-1)
		if b.records > 0 {
			wait = max(f.linger-time.Since(f.mu.since), 0)
		}
		if b.last || f.full(b) || wait == 0 {
			f.mu.cur, f.mu.spare = f.mu.spare, b
			f.mu.cur.reset()
			f.mu.Unlock()
			signal(f.room)
			return b, true
		}
		f.mu.Unlock()
		if !f.wait(ctx, stop, wait) {
			return nil, false
		}
	}
}

// wait for news, or for the time to be over unless it is negative.
func (f *feed) wait(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	var over <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-f.news:
	case <-over:
	case <-stop:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}
