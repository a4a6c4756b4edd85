package iceberg

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"testing"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
)

var errLost = errors.New("connection lost")

// change commits updates of the metadata as another engine would.
func (w *world) change(make func(table.Metadata) []table.Update) {
	w.t.Helper()
	h, err := w.lake.load(w.t.Context(), views, nil)
	require.NoError(w.t, err)
	meta, err := table.UpdateTableMetadata(h.meta, make(h.meta), h.location)
	require.NoError(w.t, err)
	text, err := json.Marshal(meta)
	require.NoError(w.t, err)
	loc := h.meta.Location() + "/metadata/99999-" + newUUID().String() + ".metadata.json"
	require.NoError(w.t, w.lake.io.WriteFile(loc, text))
	require.NoError(w.t, w.rows.Swap(w.t.Context(), views, h.location, loc))
}

func (w *world) rollBackTo(id int64) {
	w.t.Helper()
	w.change(func(table.Metadata) []table.Update {
		return []table.Update{table.NewSetSnapshotRefUpdate(table.MainBranch, id, table.BranchRef, 0, 0, 0)}
	})
}

// foreignAppend adds a snapshot as another engine would; drop lists snapshots
// that it expires in the same step.
func (w *world) foreignAppend(drop ...int64) {
	w.t.Helper()
	w.change(func(meta table.Metadata) []table.Update {
		parent := meta.CurrentSnapshot()
		id, seq, schema := newSnapshotID(meta), meta.LastSequenceNumber()+1, meta.CurrentSchema().ID
		had, err := parent.Manifests(w.lake.io)
		require.NoError(w.t, err)
		list := meta.Location() + "/metadata/snap-" + newUUID().String() + ".avro"
		out, err := w.lake.io.Create(list)
		require.NoError(w.t, err)
		require.NoError(w.t, ice.WriteManifestList(2, out, id, &parent.SnapshotID, &seq, 0, had))
		require.NoError(w.t, out.Close())
		up := []table.Update{table.NewAddSnapshotUpdate(&table.Snapshot{SnapshotID: id, ParentSnapshotID: &parent.SnapshotID,
			SequenceNumber: seq, TimestampMs: meta.LastUpdatedMillis(), ManifestList: list, SchemaID: &schema,
			Summary: &table.Summary{Operation: table.OpAppend, Properties: ice.Properties{
				"total-records": parent.Summary.Properties["total-records"]}}}),
			table.NewSetSnapshotRefUpdate(table.MainBranch, id, table.BranchRef, 0, 0, 0)}
		if len(drop) > 0 {
			up = append(up, table.NewRemoveSnapshotsUpdate(drop, false))
		}
		return up
	})
}

func (w *world) requireRows(rows int64, files int) {
	w.t.Helper()
	v := w.view()
	defer v.Release()
	unique(w.t, v)
	require.Len(w.t, v.Files, files)
	require.Equal(w.t, rows, v.Rows)
	for _, f := range v.Files {
		_, err := w.fs.Stat(f.Path)
		require.NoError(w.t, err)
	}
}

func TestLostAnswerAfterCommit(t *testing.T) {
	w := newWorld(t)
	n := 0
	w.cat.after = func() error { n++; return errLost }
	w.add(3) // the table is made, and the answer is lost
	s := w.add(4)
	require.Equal(t, 2, n, "a commit was made twice")
	require.Equal(t, at(7), s.Positions)
	require.Len(t, s.head.meta.Snapshots(), 2)
	w.requireRows(7, 2)
}

func TestLostAnswerBeforeCommit(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	n := 0
	w.cat.before = func() error {
		if n++; n == 1 {
			return errLost
		}
		return nil
	}
	s := w.add(4)
	require.Equal(t, at(7), s.Positions)
	require.Len(t, s.head.meta.Snapshots(), 2)
	w.requireRows(7, 2)
}

// The first swap arrives only when the second one is under way.
func TestLateSwapIsNotMadeTwice(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	slow := &lateCatalog{badCatalog: w.cat}
	w.lake.catalog = slow
	s := w.add(4)
	require.True(t, slow.landed)
	require.Equal(t, at(7), s.Positions)
	require.Len(t, s.head.meta.Snapshots(), 2)
	w.requireRows(7, 2)
}

type lateCatalog struct {
	*badCatalog
	from, to string
	landed   bool
}

func (c *lateCatalog) Swap(ctx context.Context, t lake.Ident, from, to string) error {
	if c.from == "" {
		c.from, c.to = from, to
		return errLost
	}
	if !c.landed {
		c.landed = true
		if err := c.badCatalog.Swap(ctx, t, c.from, c.to); err != nil {
			return err
		}
	}
	return c.badCatalog.Swap(ctx, t, from, to)
}

func TestDeadCatalogKeepsFiles(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	w.cat.before = func() error { return errLost }
	h := w.lake.Table(views)
	s := load(t, h)
	c := work(t, h, s, 4, 7)
	_, err := h.Commit(t.Context(), c)
	require.ErrorIs(t, err, errLost)
	require.True(t, fault.IsTransient(err))
	_, err = w.fs.Stat(c.Files[0].Path)
	require.NoError(t, err, "a file was removed although the catalog had not refused it")
	require.Equal(t, at(3), load(t, h).Positions)
}

func TestCancelledCommitLooksForItself(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	h := w.lake.Table(views)
	s := load(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	w.cat.after = func() error { cancel(); return ctx.Err() }
	s, err := h.Commit(ctx, work(t, h, s, 4, 7))
	require.NoError(t, err)
	require.Equal(t, at(7), s.Positions)
	w.requireRows(7, 2)
}

func TestForeignCommitIsBuiltUpon(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	once := false
	w.cat.before = func() error {
		if !once {
			once = true
			w.foreignAppend()
		}
		return nil
	}
	s := w.add(4)
	require.Equal(t, at(7), s.Positions)
	require.Len(t, s.head.meta.Snapshots(), 3)
	w.requireRows(7, 2)
	require.Empty(t, w.names(".tmp"))
}

func TestZombieChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	h := w.lake.Table(views)
	stale := load(t, h)
	c := work(t, h, stale, 4, 7)
	w.add(9) // the living writer, from the same positions
	before := load(t, h).head.location
	_, err := h.Commit(t.Context(), c)
	var moved *MovedError
	require.ErrorAs(t, err, &moved)
	require.True(t, fault.IsTransient(err))
	require.Equal(t, before, load(t, h).head.location)
	_, err = w.fs.Stat(c.Files[0].Path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	w.requireRows(12, 2)
}

// A zombie that began before the table was there.
func TestZombieOfNewTable(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	c := work(t, h, load(t, h), 4, 4)
	w.add(9)
	_, err := h.Commit(t.Context(), c)
	var moved *MovedError
	require.ErrorAs(t, err, &moved)
	w.requireRows(9, 1)
}

func TestRollBackIsSeen(t *testing.T) {
	w := newWorld(t)
	first := w.add(3)
	w.add(4)
	h := w.lake.Table(views)
	stale := load(t, h)
	w.rollBackTo(first.head.snap.SnapshotID)

	_, err := h.Commit(t.Context(), work(t, h, stale, 5, 12))
	var moved *MovedError
	require.ErrorAs(t, err, &moved, "rows were added behind a gap")

	s := load(t, h)
	require.Equal(t, at(3), s.Positions)
	require.Equal(t, at(7), s.RolledBack)

	// Loaded again in two commits: as long as the first alone is there, a new
	// start must still see the gap.
	s, err = h.Commit(t.Context(), work(t, h, s, 2, 5))
	require.NoError(t, err)
	require.Equal(t, at(5), s.Positions)
	require.Equal(t, at(7), s.RolledBack)
	s, err = h.Commit(t.Context(), work(t, h, s, 2, 7))
	require.NoError(t, err)
	require.Nil(t, s.RolledBack)
	w.requireRows(7, 3)
}

func TestExpiredOwnSnapshots(t *testing.T) {
	w := newWorld(t)
	first := w.add(3)
	w.foreignAppend(first.head.snap.SnapshotID)
	h := w.lake.Table(views)
	s := load(t, h)
	require.Equal(t, at(3), s.Positions, "the property counts when no summary is left")
	require.Nil(t, s.RolledBack)
	w.add(4)
	w.requireRows(7, 2)
}

// The answer is lost, and before we look, our own snapshot is expired.
func TestLostAnswerAndExpiredSnapshot(t *testing.T) {
	w := newWorld(t)
	first := w.add(3)
	w.cat.after = func() error {
		w.cat.after = nil
		h, err := w.lake.load(t.Context(), views, nil)
		require.NoError(t, err)
		w.foreignAppend(first.head.snap.SnapshotID, h.snap.SnapshotID)
		return errLost
	}
	s := w.add(4)
	require.Equal(t, at(7), s.Positions)
	w.requireRows(7, 2)
}

func TestDroppedAndRecreated(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	h := w.lake.Table(views)
	stale := load(t, h)
	require.NoError(t, w.rows.Drop(t.Context(), views))

	_, err := h.Commit(t.Context(), work(t, h, stale, 4, 7))
	var moved *MovedError
	require.ErrorAs(t, err, &moved)

	s := load(t, h)
	require.False(t, s.Exists)
	require.Empty(t, s.Positions)
	require.NotEqual(t, stale.Location, s.Location, "the dropped table's files are still someone's")
	s, err = h.Commit(t.Context(), work(t, h, s, 2, 9))
	require.NoError(t, err)
	require.NotEqual(t, stale.head.meta.TableUUID(), s.head.meta.TableUUID())
	w.requireRows(2, 1)

	// A writer that has slept through both.
	_, err = h.Commit(t.Context(), work(t, h, stale, 4, 7))
	require.ErrorAs(t, err, &moved)
	w.requireRows(2, 1)
}

func TestReplacedTableWithSamePositions(t *testing.T) {
	w := newWorld(t)
	w.add(3)
	h := w.lake.Table(views)
	stale := load(t, h)
	require.NoError(t, w.rows.Drop(t.Context(), views))
	s := load(t, h)
	_, err := h.Commit(t.Context(), work(t, h, s, 3, 3))
	require.NoError(t, err)
	_, err = h.Commit(t.Context(), work(t, h, stale, 4, 7))
	var moved *MovedError
	require.ErrorAs(t, err, &moved)
}

func TestPositionsNeverGoBack(t *testing.T) {
	w := newWorld(t)
	s := w.add(3)
	h := w.lake.Table(views)
	_, err := h.Commit(t.Context(), work(t, h, s, 1, 2))
	var moved *MovedError
	require.ErrorAs(t, err, &moved)
}

func TestForeignRenameAndDrop(t *testing.T) {
	w := newWorld(t)
	h := w.lake.Table(views)
	s := load(t, h)
	c := work(t, h, s, 1, 1)
	c.Schema = withColumns(c.Schema, "user", "page")
	s, err := h.Commit(t.Context(), c)
	require.NoError(t, err)

	w.change(func(meta table.Metadata) []table.Update {
		fields := slices.DeleteFunc(meta.CurrentSchema().Fields(), func(f ice.NestedField) bool { return f.Name == "page" })
		fields[len(fields)-1].Name = "visitor"
		return []table.Update{table.NewAddSchemaUpdate(ice.NewSchema(9, fields...)), table.NewSetCurrentSchemaUpdate(-1)}
	})
	// A commit that had begun before fits all the same: its files carry field ids.
	s, err = h.Commit(t.Context(), work(t, h, s, 1, 2))
	require.NoError(t, err)
	f, ok := s.Schema.ByPath("user")
	require.True(t, ok)
	require.Equal(t, "visitor", f.Name)
	require.False(t, f.Dropped)
	f, ok = s.Schema.ByPath("page")
	require.True(t, ok)
	require.True(t, f.Dropped)

	// The next column comes behind them, and both changes last.
	c = work(t, h, s, 1, 3)
	c.Schema = withColumns(c.Schema, "price")
	s, err = h.Commit(t.Context(), c)
	require.NoError(t, err)
	var names []string
	for _, col := range columns(s.head.meta.CurrentSchema()) {
		names = append(names, col.Name)
	}
	require.Equal(t, []string{"visitor", "price"}, names[len(names)-2:])
	w.requireRows(3, 3)
}

func TestNewColumnsOnBothSides(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	h := w.lake.Table(views)
	s := load(t, h)
	c := work(t, h, s, 1, 2)
	c.Schema = withColumns(c.Schema, "user")
	w.change(func(meta table.Metadata) []table.Update {
		fields := append(meta.CurrentSchema().Fields(), ice.NestedField{ID: meta.LastColumnID() + 1, Name: "note", Type: ice.PrimitiveTypes.String})
		return []table.Update{table.NewAddSchemaUpdate(ice.NewSchema(9, fields...)), table.NewSetCurrentSchemaUpdate(-1)}
	})
	_, err := h.Commit(t.Context(), c)
	var moved *MovedError
	require.ErrorAs(t, err, &moved, "one field id would stand for two columns")
}

func TestForeignTableIsRefusedWithCure(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	w.change(func(table.Metadata) []table.Update {
		return []table.Update{table.NewRemovePropertiesUpdate([]string{"naru.columns"})}
	})
	_, err := w.lake.Table(views).Load(t.Context())
	require.ErrorIs(t, err, ErrNotOurs)
	require.NotEmpty(t, fault.HintOf(err))
	w.requireRows(1, 1)
}

func TestWhoseWordCounts(t *testing.T) {
	other := event.Incarnation{2}
	for _, c := range []struct {
		name          string
		table, writer event.Positions
		want          event.Positions
	}{
		{"equal", at(5), at(5), nil},
		{"ahead", at(7), at(5), at(7)},
		{"behind", at(5), at(7), nil},
		{"unknown life", event.Positions{other: {1: 4}}, at(7), event.Positions{other: {1: 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, ahead(c.table, c.writer))
		})
	}
}

func (w *world) tag(name string, id int64) {
	w.t.Helper()
	w.change(func(table.Metadata) []table.Update {
		return []table.Update{table.NewSetSnapshotRefUpdate(name, id, table.TagRef, 0, 0, 0)}
	})
}
