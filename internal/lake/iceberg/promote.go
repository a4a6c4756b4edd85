package iceberg

import (
	"context"
	"fmt"
	"slices"

	"naru/internal/lake/columnar"
)

// AllowPromotion tells whether the table is small enough to be rewritten, and
// all its rows can be read for it.
func (t *Table) AllowPromotion(s *State) bool {
	if s.Bytes >= int64(t.lake.cfg.PromoteLimit) {
		return false
	}
	if !s.Exists {
		return true
	}
	files, err := t.lake.dataFiles(s.head)
	return err == nil && !slices.ContainsFunc(files, func(f dataFile) bool { return !f.byDay })
}

// promote rewrites the table's files to the new schema: a long column became
// double under a new field id, and old files know only the old one.
func (a *attempt) promote(ctx context.Context, w *snapshotWork, to *columnar.Schema) ([]columnar.DataFile, error) {
	l := a.t.lake
	old, err := l.dataFiles(a.head)
	if err != nil {
		return nil, err
	}
	out := make([]columnar.DataFile, 0, len(old))
	for _, f := range old {
		if !f.byDay {
			return nil, unfit(fmt.Errorf("commit %s: %s is not partitioned by day(_time)", a.t.ident, f.Path),
				"let the engine that wrote the file write it again under the table's partition spec")
		}
		// Damage must not get a checksum of its own.
		if err := l.checkSum(ctx, f.Path); err != nil {
			return nil, a.t.damaged(fmt.Errorf("commit %s: rewrite %s: %w", a.t.ident, f.Path, err), KindData)
		}
		n, err := columnar.Rewrite(ctx, l.fs, l.CreateFile, f.Path, l.dataPath(a.c.Base.Location, f.day), f.day, a.head.schema, to)
		if n.Path != "" { // also when closing it has failed
			w.written = append(w.written, n.Path)
		}
		if err != nil {
			return nil, fmt.Errorf("commit %s: rewrite %s: %w", a.t.ident, f.Path, err)
		}
		w.removed[f.location] = true
		out = append(out, n)
	}
	return out, nil
}
