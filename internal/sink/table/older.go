package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/stream"
)

// ErrOlder: the lake is an older copy than the one with which the watermark was
// reached, and the log no longer has all that came since.
var ErrOlder = errors.New("lake is older than what the log still has")

// reader is the name of the pipeline that these sinks are opened for.
func reader(streamName string) string { return stream.DefaultReader + streamName }

// older compares the lake's mark with the watermark in the log. Where the mark is
// behind, an older copy of the lake was put in place: what it lacks begins at the
// mark and is read again from there, as far as the log has it.
func (s *Sink) older(ctx context.Context, st stream.Stat) error {
	at, err := s.tables.log.Progress(ctx, reader(s.stream))
	if err != nil {
		return err
	}
	mark, err := s.lake.Mark(s.stream, at.Positions)
	if err != nil {
		return err
	}
	begun := map[int32]bool{} // partitions
	for _, r := range st.Ranges {
		from, to := stream.Reached(st, mark, r.Partition), stream.Reached(st, at.Positions, r.Partition)
		if begun[r.Partition] || from >= to || r.End <= from {
			continue
		}
		begun[r.Partition] = true
		first := max(from, r.Start)
		if s.behind == nil {
			s.behind = event.Positions{}
		}
		s.behind.Advance(event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: first})
		s.tables.logger.Warn("the lake is older than the watermark: its rows are read from the log again", slog.String("stream", s.stream),
			slog.Int("partition", int(r.Partition)), slog.Int64("from", from), slog.Int64("to", to))
		if first > from {
			s.gaps = append(s.gaps, event.Span{Incarnation: r.Incarnation, Partition: r.Partition, From: from, To: min(first, to)})
		}
	}
	if s.gaps == nil {
		return nil
	}
	// Tables stop, and their events are passed by meanwhile: whoever accepts the
	// gap by taking the marks away gets what the log has, all the same.
	s.tables.logger.Error("the log no longer has all that an older lake lacks", slog.String("stream", s.stream), slog.Any("missing", s.gaps))
	return s.lake.ReloadStream(s.stream)
}

// judgeOlder tells whether rows of the table may be among those that neither the
// lake nor the log has.
func (s *Sink) judgeOlder(state *iceberg.State, st stream.Stat) error {
	for _, g := range s.gaps {
		if !state.Exists || stream.Reached(st, state.Positions, g.Partition) >= g.To {
			continue
		}
		return fault.WithHint(fmt.Errorf("%w: events %d to %d of partition %d are in neither", ErrOlder, g.From, g.To, g.Partition),
			"stop the server and bring back the newer lake and catalog; or accept the gap by removing lake/%s from the data folder; then start", iceberg.MarksFile)
	}
	return nil
}
