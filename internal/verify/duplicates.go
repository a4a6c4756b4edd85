package verify

import (
	"context"
	"fmt"
	"slices"

	"naru/internal/dedupe"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// Verdicts notes which events of a log were judged to be duplicates. Only segments
// with verdicts are read. progress, in bytes, may be nil.
func Verdicts(ctx context.Context, fsys vfs.FS, logDir string, progress func(done, all int64)) (*dedupe.Found, error) {
	found := &dedupe.Found{}
	o := seglog.SurveyOptions{Progress: progress, Skip: func(has []seglog.SegmentStream) bool {
		return !slices.ContainsFunc(has, func(s seglog.SegmentStream) bool { return found.Wants(s.Stream) })
	}}
	_, err := seglog.Walk(ctx, fsys, logDir, o, func(b *seglog.Logged) error {
		for _, raw := range b.Raw {
			if err := found.Take(b.Stream, b.Partition, raw); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read verdicts: %w", err)
	}
	return found, nil
}

// readVerdicts takes in which events were judged to be duplicates.
func (v *verifier) readVerdicts(ctx context.Context) (err error) {
	v.judged = &dedupe.Found{}
	if !slices.ContainsFunc(v.before.Streams, func(st stream.Stat) bool { return v.judged.Wants(st.Stream) }) {
		return nil
	}
	v.judged, err = Verdicts(ctx, v.FS, v.LogDir, func(done, all int64) { v.tell("verdicts", done, all) })
	return err
}

// duplicate tells whether an event was judged to be one: it gets no row.
func (v *verifier) duplicate(l *lane, offset int64) bool {
	return v.judged.Has(l.stream, l.partition, offset)
}
