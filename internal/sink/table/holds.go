package table

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/sink"
)

var _ sink.Holder = (*Sink)(nil)

// Holds implements sink.Holder by the places that the rows carry. Of a table
// that is stopped because it cannot be read, nothing is counted.
func (s *Sink) Holds(ctx context.Context, spans []event.Span) (int64, error) {
	byLog := map[string][]event.Span{}
	for _, x := range spans {
		byLog[x.Incarnation.String()] = append(byLog[x.Incarnation.String()], x)
	}
	total := int64(0)
	count := func(p *columnar.Places) error {
		for i, log := range p.Log {
			for _, x := range byLog[string(log)] {
				if x.Partition == p.Partition[i] && x.From <= p.Offset[i] && p.Offset[i] < x.To {
					total++
				}
			}
		}
		return nil
	}
	options := columnar.PlacesOptions{Want: func(first, last int64) bool {
		return slices.ContainsFunc(spans, func(x event.Span) bool { return x.From <= last && first < x.To })
	}}
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		t, before := s.names[name], total
		if t.stopped == nil && !t.state.Exists {
			continue
		}
		err := s.eachFile(ctx, t, func(path string) error {
			_, err := columnar.ReadPlaces(ctx, s.lake.FS(), path, options, count)
			return err
		})
		if err != nil && t.stopped != nil && ctx.Err() == nil {
			total = before
			s.tables.logger.Warn("rows of a stopped table cannot be counted: what it has of the dropped events counts as dropped",
				slog.String("table", t.ident.String()), slog.Any("error", err))
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("count rows of %s: %w", t.ident, err)
		}
	}
	return total, nil
}

// eachFile calls fn for the data files of a table's newest snapshot.
func (s *Sink) eachFile(ctx context.Context, t *target, fn func(path string) error) error {
	view, err := s.lake.View(ctx, t.ident)
	if err != nil {
		return err
	}
	defer view.Release()
	for _, f := range view.Files {
		if err := fn(f.Path); err != nil {
			return err
		}
	}
	return nil
}
