package verify

import (
	"context"
	"fmt"
	"slices"

	"naru/internal/dedupe"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
)

// readVerdicts notes which events were judged to be duplicates. Only segments with
// verdicts are read.
func (v *verifier) readVerdicts(ctx context.Context) error {
	v.judged = &dedupe.Found{}
	if !slices.ContainsFunc(v.before.Streams, func(st stream.Stat) bool { return v.judged.Wants(st.Stream) }) {
		return nil
	}
	o := seglog.SurveyOptions{
		Progress: func(done, all int64) { v.tell("verdicts", done, all) },
		Skip: func(has []seglog.SegmentStream) bool {
			return !slices.ContainsFunc(has, func(s seglog.SegmentStream) bool { return v.judged.Wants(s.Stream) })
		},
	}
	_, err := seglog.Walk(ctx, v.FS, v.LogDir, o, func(b *seglog.Logged) error {
		for _, raw := range b.Raw {
			if err := v.judged.Take(b.Stream, b.Partition, raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read verdicts: %w", err)
	}
	return nil
}

// duplicate tells whether an event was judged to be one: it gets no row.
func (v *verifier) duplicate(l *lane, offset int64) bool {
	return v.judged.Has(l.stream, l.partition, offset)
}
