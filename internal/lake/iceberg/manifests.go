package iceberg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"naru/internal/fault"
	"naru/internal/lake/columnar"
)

// mergeBelow is the size up to which manifests are merged into one.
const mergeBelow = 4 << 20

// snapshotWork is a snapshot being made on top of a head.
type snapshotWork struct {
	lake    *Lake
	base    table.Metadata // what it is built on, its schema already the new one
	parent  *table.Snapshot
	id      int64
	added   []ice.DataFile
	removed map[string]bool // locations of data files
	written []string        // files made, to be removed if the catalog refuses them

	manifests []ice.ManifestFile // of the new snapshot, as its list has them
	gone      []dataFile         // data files that the snapshot removes
}

// write makes the manifests and the manifest list and returns the snapshot.
func (w *snapshotWork) write(ctx context.Context, had []ice.ManifestFile, props ice.Properties) (*table.Snapshot, error) {
	kept, err := w.filter(had)
	if err != nil {
		return nil, err
	}
	kept, err = w.merge(ctx, kept)
	if err != nil {
		return nil, err
	}
	var all []ice.ManifestFile
	bySpec := map[int32][]ice.DataFile{}
	for _, f := range w.added {
		bySpec[f.SpecID()] = append(bySpec[f.SpecID()], f)
	}
	for spec, files := range bySpec {
		m, err := w.manifest(int(spec), func(wr *ice.ManifestWriter) error {
			for _, f := range files {
				if err := wr.Add(ice.NewManifestEntry(ice.EntryStatusADDED, &w.id, nil, nil, f)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	all = append(all, kept...)

	seq := w.base.LastSequenceNumber() + 1
	var parent *int64
	if w.parent != nil {
		parent = &w.parent.SnapshotID
	}
	var list bytes.Buffer
	if err := ice.WriteManifestList(2, &list, w.id, parent, &seq, 0, all); err != nil {
		return nil, fmt.Errorf("write manifest list: %w", err)
	}
	path := w.lake.manifestPath(w.base.Location(), list.Bytes())
	if err := w.file(path, list.Bytes()); err != nil {
		return nil, err
	}
	// Read back what was written: the list has given the new manifests their
	// sequence numbers.
	if w.manifests, err = ice.ReadManifestList(bytes.NewReader(list.Bytes())); err != nil {
		return nil, fmt.Errorf("read manifest list back: %w", err)
	}
	schemaID := w.base.CurrentSchema().ID
	// A clock that jumped back must not make a table refuse commits.
	now := max(w.lake.now().UnixMilli(), w.base.LastUpdatedMillis())
	return &table.Snapshot{SnapshotID: w.id, ParentSnapshotID: parent, SequenceNumber: seq, TimestampMs: now,
		ManifestList: path, SchemaID: &schemaID, Summary: w.summary(props)}, nil
}

// filter drops the removed data files from the manifests that hold them.
func (w *snapshotWork) filter(had []ice.ManifestFile) ([]ice.ManifestFile, error) {
	if len(w.removed) == 0 {
		return had, nil
	}
	var kept []ice.ManifestFile
	for _, m := range had {
		var entries []ice.ManifestEntry
		hit := false
		for e, err := range m.Entries(w.lake.io, true) {
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
			}
			entries = append(entries, e)
			hit = hit || w.removed[e.DataFile().FilePath()]
		}
		if !hit {
			kept = append(kept, m)
			continue
		}
		n, err := w.manifest(int(m.PartitionSpecID()), func(wr *ice.ManifestWriter) error {
			for _, e := range entries {
				if !w.removed[e.DataFile().FilePath()] {
					if err := wr.Existing(e); err != nil {
						return err
					}
					continue
				}
				if err := wr.Delete(e); err != nil {
					return err
				}
				f, err := newDataFile(e.DataFile())
				if err != nil {
					return err
				}
				w.gone = append(w.gone, f)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		kept = append(kept, n)
	}
	if len(w.gone) != len(w.removed) {
		return nil, fmt.Errorf("replace %d data files: only %d of them are in the table", len(w.removed), len(w.gone))
	}
	return kept, nil
}

// merge puts small manifests together once there are many, so that their
// number, and with it the cost of a commit and of planning, stays flat.
func (w *snapshotWork) merge(ctx context.Context, had []ice.ManifestFile) ([]ice.ManifestFile, error) {
	if !w.base.Properties().GetBool(table.ManifestMergeEnabledKey, false) || len(w.removed) > 0 {
		return had, nil
	}
	limit := max(2, w.base.Properties().GetInt(table.ManifestMinMergeCountKey, table.ManifestMinMergeCountDefault))
	small := map[int32]int{} // by spec: a manifest has files of one
	isSmall := func(m ice.ManifestFile) bool {
		return m.ManifestContent() == ice.ManifestContentData && m.Length() < mergeBelow && w.base.PartitionSpecByID(int(m.PartitionSpecID())) != nil
	}
	for _, m := range had {
		if isSmall(m) {
			small[m.PartitionSpecID()]++
		}
	}
	out := had
	for _, spec := range slices.Sorted(maps.Keys(small)) {
		if small[spec] < limit {
			continue
		}
		var rest, bin []ice.ManifestFile
		for _, m := range out {
			if isSmall(m) && m.PartitionSpecID() == spec {
				bin = append(bin, m)
			} else {
				rest = append(rest, m)
			}
		}
		var err error
		if out, err = w.mergeOf(ctx, spec, bin, rest); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mergeOf puts the manifests of one spec together, in front of the others.
func (w *snapshotWork) mergeOf(ctx context.Context, spec int32, bin, out []ice.ManifestFile) ([]ice.ManifestFile, error) {
	had := append(slices.Clone(bin), out...)
	// One that is damaged is for its readers to complain of; rows are taken on.
	bin = slices.DeleteFunc(bin, func(m ice.ManifestFile) bool {
		_, err := w.lake.io.ReadFile(m.FilePath())
		var bad *fault.Corrupt
		broken := errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist)
		if broken {
			w.lake.log.Error("manifest cannot be read and is left as it is; queries of the table fail",
				slog.Any("error", err), slog.String("hint", "naru table fsck tells more"))
			out = append(out, m)
		}
		return broken
	})
	if len(bin) < 2 {
		return had, nil
	}
	merged, err := w.manifest(int(spec), func(wr *ice.ManifestWriter) error {
		for _, m := range bin {
			if err := ctx.Err(); err != nil {
				return err
			}
			for e, err := range m.Entries(w.lake.io, true) {
				if err == nil {
					err = wr.Existing(e)
				}
				if err != nil {
					return fmt.Errorf("merge manifest %s: %w", m.FilePath(), err)
				}
			}
		}
		return nil
	})
	if errors.Is(err, ice.ErrEmptyManifest) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return append([]ice.ManifestFile{merged}, out...), nil
}

// manifest writes one manifest.
func (w *snapshotWork) manifest(specID int, fill func(*ice.ManifestWriter) error) (ice.ManifestFile, error) {
	spec := w.base.PartitionSpecByID(specID)
	if spec == nil {
		return nil, fmt.Errorf("write manifest: the table has no partition spec %d", specID)
	}
	var buf bytes.Buffer
	wr, err := ice.NewManifestWriter(2, &buf, *spec, w.base.CurrentSchema(), w.id)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	if err := fill(wr); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	if err := wr.Close(); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	path := w.lake.manifestPath(w.base.Location(), buf.Bytes())
	m, err := wr.ToManifestFile(path, int64(buf.Len()))
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return m, w.file(path, buf.Bytes())
}

func (w *snapshotWork) file(path string, b []byte) error {
	w.written = append(w.written, path)
	return w.lake.io.WriteFile(path, b)
}

// summary counts as Iceberg's spec wants it; the totals go on from the parent's.
func (w *snapshotWork) summary(own ice.Properties) *table.Summary {
	props := ice.Properties{}
	for k, v := range own {
		props[k] = v
	}
	var before ice.Properties
	if w.parent != nil && w.parent.Summary != nil {
		before = w.parent.Summary.Properties
	}
	count := func(key string, n int64) {
		if n > 0 {
			props[key] = strconv.FormatInt(n, 10)
		}
	}
	total := func(key string, delta int64) {
		had, err := strconv.ParseInt(before[key], 10, 64)
		if err != nil && w.parent != nil {
			return // the parent does not say, so neither can this one
		}
		props[key] = strconv.FormatInt(had+delta, 10)
	}
	partitions := map[string]bool{}
	var files, rows, size, delFiles, delRows, delSize int64
	for _, f := range w.added {
		files, rows, size = files+1, rows+f.Count(), size+f.FileSizeBytes()
		partitions[fmt.Sprint(f.SpecID(), f.Partition())] = true
	}
	for _, f := range w.gone {
		delFiles, delRows, delSize = delFiles+1, delRows+f.Rows, delSize+f.Bytes
	}
	count("added-data-files", files)
	count("added-records", rows)
	count("added-files-size", size)
	count("deleted-data-files", delFiles)
	count("deleted-records", delRows)
	count("removed-files-size", delSize)
	count("changed-partition-count", int64(len(partitions)))
	total("total-data-files", files-delFiles)
	total("total-records", rows-delRows)
	total("total-files-size", size-delSize)
	total("total-delete-files", 0)
	total("total-position-deletes", 0)
	total("total-equality-deletes", 0)
	op := table.OpAppend
	if len(w.gone) > 0 {
		op = table.OpOverwrite
	}
	return &table.Summary{Operation: op, Properties: props}
}

// manifestEntry turns a finished Parquet file into what a manifest says of it.
// partition has the values by the ids of the spec's fields; order is that of all its
// rows, nil for none.
func manifestEntry(spec ice.PartitionSpec, partition map[int]any, order *int, f columnar.DataFile) (ice.DataFile, error) {
	b, err := ice.NewDataFileBuilder(spec, ice.EntryContentData, scheme+f.Path, ice.ParquetFile, partition, nil, nil, f.Rows, f.Bytes)
	if err != nil {
		return nil, fmt.Errorf("describe data file %s: %w", f.Path, err)
	}
	n := len(f.Stats)
	sizes, values, nulls := make(map[int]int64, n), make(map[int]int64, n), make(map[int]int64, n)
	lower, upper := make(map[int][]byte, n), make(map[int][]byte, n)
	for id, s := range f.Stats {
		sizes[id], values[id], nulls[id] = s.Size, s.Values, s.Nulls
		if s.Lower != nil {
			lower[id] = s.Lower
		}
		if s.Upper != nil {
			upper[id] = s.Upper
		}
	}
	b.ColumnSizes(sizes).ValueCounts(values).NullValueCounts(nulls).LowerBoundValues(lower).UpperBoundValues(upper)
	if len(f.SplitOffsets) > 0 {
		b.SplitOffsets(f.SplitOffsets)
	}
	if order != nil {
		b.SortOrderID(*order)
	}
	return b.Build(), nil
}

func newUUID() uuid.UUID { return uuid.New() }

// newSnapshotID is a random positive number that the table has not had.
func newSnapshotID(meta table.Metadata) int64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		id := int64(binary.BigEndian.Uint64(b[:]) >> 1)
		if id > 0 && meta.SnapshotByID(id) == nil {
			return id
		}
	}
}
