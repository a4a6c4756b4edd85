package main

import (
	"fmt"
	"strings"
	"time"

	"naru/internal/client/upload"
	"naru/internal/quantity"
)

// progress draws a line on a terminal while a file is sent, and says on any
// output why nothing moves.
type progress struct {
	c        *cli
	size     int64        // of the input, 0 when it is not known
	consumed func() int64 // of the input
	began    time.Time
	drawn    time.Time
	open     bool // a line stands there without its end
}

// drawEvery is how often the line is drawn anew.
const drawEvery = 100 * time.Millisecond

func newProgress(c *cli, size int64, consumed func() int64) *progress {
	return &progress{c: c, size: size, consumed: consumed, began: time.Now()}
}

func (p *progress) observe(r upload.Result, pause time.Duration, reason error) {
	if reason != nil {
		p.end()
		fmt.Fprintf(p.c.err, "waiting %s: %v\n", pause.Round(100*time.Millisecond), reason)
		return
	}
	if !p.c.terminal || time.Since(p.drawn) < drawEvery {
		return
	}
	p.drawn = time.Now()
	fmt.Fprint(p.c.err, "\r\x1b[K"+p.line(r, time.Since(p.began)))
	p.open = true
}

// line is the bar: how far, how much, how fast.
func (p *progress) line(r upload.Result, took time.Duration) string {
	done := p.consumed()
	rate := float64(r.Accepted+r.Rejected) / max(took.Seconds(), 1e-3)
	tail := fmt.Sprintf("%s  %d events  %.0f/s", quantity.Bytes(done), r.Skipped+r.Records, rate)
	if p.size <= 0 {
		return tail
	}
	const width = 30
	part := min(float64(done)/float64(p.size), 1)
	full := int(part * width)
	return fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("#", full), strings.Repeat("-", width-full), 100*part, tail)
}

// end leaves the line.
func (p *progress) end() {
	if p.open {
		fmt.Fprint(p.c.err, "\r\x1b[K")
		p.open = false
	}
}
