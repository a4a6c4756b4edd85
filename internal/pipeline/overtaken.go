package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"naru/internal/event"
	"naru/internal/sink"
	"naru/internal/stream"
)

// errOvertaken: retention has dropped events that the watermark had not passed
// (log.drop_unread). The session ends, and the next one counts them.
var errOvertaken = errors.New("retention has overtaken the reader")

// skip moves the sink and the ledger over what is gone: what the sink holds of
// it was written, the rest is dropped.
func (p *Pipeline) skip(ctx context.Context, out sink.Sink, led *ledger, g stream.Gap) error {
	held := int64(0)
	if h, ok := out.(sink.Holder); ok && g.Events > 0 {
		n, err := h.Holds(ctx, g.Spans)
		if err != nil {
			return fmt.Errorf("count what the sink of %s holds: %w", p.stream, err)
		}
		held = min(n, g.Events)
	}
	b := &event.Batch{Stream: p.stream, Incarnation: g.To.Incarnation, Partition: g.To.Partition, From: g.From, Next: g.To.Offset}
	if err := out.Write(ctx, b); err != nil {
		return fmt.Errorf("write %s at %s: %w", p.stream, b.End(), err)
	}
	led.wrote(b, stream.Counts{Written: held, Dropped: g.Events - held}, nil)
	p.update(func(s *Status) { s.Held = led.events })
	p.logger.Warn("retention dropped events before they were read (log.drop_unread); they are counted as dropped unread",
		slog.Int64("events", g.Events-held), slog.Int64("already_written", held), slog.Int("partition", int(g.To.Partition)),
		slog.Int64("from_offset", g.From), slog.Int64("goes_on_at", g.To.Offset))
	return nil
}

// passed counts what the sink holds of the events that a repair of the log has
// lost just before a batch, and that the watermark had not passed: a table may be
// ahead of it. The rest of them is in no table.
func (p *Pipeline) passed(ctx context.Context, out sink.Sink, st stream.Stat, begin event.Positions, b handed) (int64, error) {
	from := max(b.sought, stream.Reached(st, begin, b.in.Partition))
	var spans []event.Span
	lost := int64(0)
	for _, x := range st.Lost {
		if x.From, x.To = max(x.From, from), min(x.To, b.in.From); x.Partition == b.in.Partition && x.From < x.To {
			spans = append(spans, x)
			lost += x.To - x.From
		}
	}
	if lost == 0 {
		return 0, nil
	}
	held := int64(0)
	if h, ok := out.(sink.Holder); ok {
		n, err := h.Holds(ctx, spans)
		if err != nil {
			return 0, fmt.Errorf("count what the sink of %s holds: %w", p.stream, err)
		}
		held = min(n, lost)
	}
	p.logger.Warn("a repair of the log has lost events before they were read",
		slog.Int64("events", lost-held), slog.Int64("already_written", held), slog.Int("partition", int(b.in.Partition)),
		slog.Int64("from_offset", from), slog.Int64("goes_on_at", b.in.From))
	return held, nil
}

// overtaken tells whether retention has passed the watermark since the session
// began, which it did at the given positions or behind a gap.
func (p *Pipeline) overtaken(st stream.Stat, begin event.Positions, led *ledger) bool {
	at := led.progress()
	for inc, parts := range begin {
		for partition, off := range parts {
			at.Positions.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	return len(stream.Gaps(st, at)) > 0
}
