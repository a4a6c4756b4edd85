package backup

import (
	"context"
	"time"

	"naru/internal/quantity"
)

// meter counts what is written and holds it to a rate.
type meter struct {
	ctx         context.Context // of the one call of Run
	rate        float64         // bytes a second; 0: no limit
	began       time.Time
	free        time.Time // when the next bytes may be written
	done, total int64
	tell        func(done, total int64)
	told        time.Time
}

// burst is how far a copy may run ahead of its rate, tellEvery how often it tells
// how far it is.
const burst, tellEvery = 100 * time.Millisecond, 100 * time.Millisecond

func newMeter(ctx context.Context, rate quantity.Bytes, tell func(done, total int64)) *meter {
	now := time.Now()
	return &meter{ctx: ctx, rate: float64(rate), began: now, free: now, tell: tell}
}

// take waits until n more bytes may be written.
func (m *meter) take(n int) error {
	m.done += int64(n)
	now := time.Now()
	if m.tell != nil && now.Sub(m.told) >= tellEvery {
		m.told = now
		m.tell(m.done, m.total)
	}
	if m.rate <= 0 {
		return m.ctx.Err()
	}
	if m.free.Before(now.Add(-burst)) {
		m.free = now.Add(-burst)
	}
	m.free = m.free.Add(time.Duration(float64(n) / m.rate * float64(time.Second)))
	if wait := m.free.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
		case <-m.ctx.Done():
		}
	}
	return m.ctx.Err()
}
