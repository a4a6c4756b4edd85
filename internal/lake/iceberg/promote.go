package iceberg

import (
	"context"
	"fmt"
	"path"
	"strings"

	ice "github.com/apache/iceberg-go"

	"naru/internal/lake/columnar"
)

// AllowPromotion tells whether a column may become another one: the table is small
// enough to be rewritten, all its rows can be read for it, and no file is
// partitioned or sorted by the column.
func (t *Table) AllowPromotion(s *State, fieldID int) bool {
	if s.Bytes >= int64(t.lake.cfg.PromoteLimit) {
		return false
	}
	if !s.Exists {
		return true
	}
	if arrangesBy(s.head.meta, fieldID) {
		return false // the partitions of old files, and their order, are of its old id
	}
	_, err := t.lake.dataFiles(s.head)
	return err == nil
}

// promote rewrites the table's files to the new schema: a long column became
// double under a new field id, and old files know only the old one. Their rows stay
// as they stand, so partition and order stay, whoever chose them.
func (a *attempt) promote(ctx context.Context, w *snapshotWork, promoted []columnar.Promotion, to *columnar.Schema) ([]ice.DataFile, error) {
	l := a.t.lake
	for _, p := range promoted {
		if arrangesBy(a.head.meta, p.From.ID) {
			return nil, &MovedError{Table: a.t.ident, Reason: "somebody has partitioned or sorted it by " + p.From.Name}
		}
	}
	manifests, err := l.manifests(a.head)
	if err != nil {
		return nil, err
	}
	var out []ice.DataFile
	for _, m := range manifests {
		if m.ManifestContent() != ice.ManifestContentData {
			return nil, unfit(fmt.Errorf("commit %s: %w", a.t.ident, ErrRowDeletes), "%s", rowDeletesCure)
		}
		spec := w.base.PartitionSpecByID(int(m.PartitionSpecID()))
		if spec == nil {
			return nil, fmt.Errorf("commit %s: the table has no partition spec %d", a.t.ident, m.PartitionSpecID())
		}
		for e, err := range m.Entries(l.io, true) {
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
			}
			n, err := a.rewrite(ctx, w, *spec, e.DataFile(), to)
			if err != nil {
				return nil, err
			}
			out = append(out, n)
		}
	}
	return out, nil
}

// rewrite gives one file the new schema.
func (a *attempt) rewrite(ctx context.Context, w *snapshotWork, spec ice.PartitionSpec, old ice.DataFile, to *columnar.Schema) (ice.DataFile, error) {
	l := a.t.lake
	f, err := newDataFile(old)
	if err != nil {
		return nil, err
	}
	// Damage must not get a checksum of its own.
	if err := l.checkSum(ctx, f.Path); err != nil {
		return nil, a.t.damaged(fmt.Errorf("commit %s: rewrite %s: %w", a.t.ident, f.Path, err), KindData)
	}
	var folder string
	if rest, ok := strings.CutPrefix(path.Dir(f.Path), a.c.Base.Location+"/data/"); ok {
		folder = rest
	}
	n, err := columnar.Rewrite(ctx, l.fs, l.CreateFile, f.Path, l.dataPath(a.c.Base.Location, folder), a.head.schema, to)
	if n.Path != "" { // also when closing it has failed
		w.written = append(w.written, n.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("commit %s: rewrite %s: %w", a.t.ident, f.Path, err)
	}
	w.removed[f.location] = true
	return manifestEntry(spec, old.Partition(), old.SortOrderID(), n)
}
