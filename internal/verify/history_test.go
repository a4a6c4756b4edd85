package verify

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	icetable "github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/table"
	"naru/internal/stream/seglog"
)

// padded makes n events that fill segments.
func padded(n int) []ev {
	out := each(n, "a", "b")
	for i := range out {
		pad := ""
		for range 20 {
			pad += fmt.Sprintf("%016x", rand.Uint64())
		}
		out[i].data = fmt.Sprintf(`{"n":%d,"pad":"%s"}`, i, pad)
	}
	return out
}

// retain goes on until the log has dropped its oldest segment.
func (w *world) retain() {
	w.t.Helper()
	for {
		st, err := w.log.Stat(w.t.Context(), "events")
		require.NoError(w.t, err)
		if st.Ranges[0].Start > 0 {
			return
		}
		w.send("other", padded(20)...)
		w.load()
	}
}

func copyOf(t *testing.T, dir string) string {
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func TestAfterRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Segment = 32 * quantity.KiB
	w.cfg.RetainBytes = 3 * w.cfg.Segment
	w.close()
	w.open()
	for range 12 {
		w.send("events", append(padded(20), ev{"!", "x"})...)
		w.load()
	}
	w.retain()
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	require.Positive(t, st.Ranges[0].Start, "nothing was dropped")
	s := w.clean().Streams[0]
	require.Equal(t, [...]int64{252, 240, 12, 0}, [...]int64{s.Acknowledged, s.Written, s.Rejections, s.NotYetWritten})
	require.Less(t, s.InLog, int64(240))

	// What the log has not any more is still proved to be there once.
	w.open()
	files := w.files("events.a")
	old, older := files[len(files)-2].Path, files[len(files)-1].Path
	gone, double := offsetsOf(w, old), offsetsOf(w, older)
	w.snapshot("events.a", true, func(p string) bool { return strings.HasSuffix(p, old) }, older)
	w.wrong(false, "doubled events.a "+double, "missing "+gone) // nobody knows any more whose they were
}

// olderLog brings more into log and tables, and then the log back to where it was.
func olderLog(t *testing.T, w *world) {
	t.Helper()
	w.close()
	before := copyOf(t, w.logDir)
	w.open()
	w.send("events", each(6, "a", "b")...)
	w.load()
	w.close()
	require.NoError(t, os.RemoveAll(w.logDir))
	require.NoError(t, os.Rename(before, w.logDir))
}

func TestTableAheadOfTheLog(t *testing.T) {
	t.Parallel()
	w := basic(t)
	olderLog(t, w)
	r := w.verify(Options{})
	require.Equal(t, []string{"ahead events.a 30-30,32-32,34-34", "ahead events.b 31-31,33-33,35-35"}, words(r.Differences))
}

func TestAnotherLog(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.close()
	require.NoError(t, os.RemoveAll(w.logDir))
	require.NoError(t, os.Mkdir(w.logDir, 0o755))
	w.open()
	w.send("events", each(3, "a")...)
	r := w.verify(Options{})
	require.Contains(t, strings.Join(words(r.Differences), "\n"), "unknown_log events.a 0-0,3-3,6-6,9-10")
}

func TestWrongContent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send("events", each(9, "a", "b")...)
	w.load()
	var events []*event.Event
	for i := range 5 {
		e := &event.Event{ID: fmt.Appendf(nil, "id-%d", 2*i+1), Source: []byte("/test"), Type: []byte("a"), Offset: int64(2 * i), ReceivedAt: received,
			Data: []byte(each(9, "a")[2*i].data)}
		switch i {
		case 1:
			e.ID = []byte("another")
		case 2:
			e.Data = []byte(`{"n":4,"text":"t4","deep":{"list":[1,2,null],"x":4.25}}`)
		case 3:
			e.Source, e.ReceivedAt = []byte("/elsewhere"), received.Add(time.Second)
		}
		events = append(events, e)
	}
	made := w.build("events.a", w.incarnation(), events...)
	text, err := os.ReadFile(made[0].Path)
	require.NoError(t, err)
	to := w.files("events.a")[0]
	require.NoError(t, os.WriteFile(to.Path, text, 0o644))
	require.Empty(t, words(w.verify(Options{}).Differences), "the places are right")
	r := w.verify(Options{Deep: true})
	found := map[string]string{}
	for _, d := range r.Differences {
		if d.Kind == Content {
			found[words([]Difference{d})[0]] = d.Detail
			require.Equal(t, []string{to.Path}, d.Files)
		}
	}
	says := "the row says something else than its event, in "
	require.Equal(t, map[string]string{"content events.a 2-2": says + "_id", "content events.a 4-4": says + "deep.x",
		"content events.a 6-6": says + "_received_at, _source, _time"}, found)
	require.Contains(t, words(r.Differences), "file events.a", "its checksum")
}

// Rows without a place in the log are other writers'.
func TestRowsOfOtherWriters(t *testing.T) {
	t.Parallel()
	w := basic(t)
	path := filepath.Join(filepath.Dir(w.files("events.a")[0].Path), "foreign.parquet")
	out, err := os.Create(path)
	require.NoError(t, err)
	field := arrow.Field{Name: "_id", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{"1"})}
	pw, err := pqarrow.NewFileWriter(arrow.NewSchema([]arrow.Field{field}, nil), out, nil, pqarrow.DefaultWriterProps())
	require.NoError(t, err)
	b := array.NewStringBuilder(memory.DefaultAllocator)
	b.AppendValues([]string{"x", "y"}, nil)
	rec := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{field}, nil), []arrow.Array{b.NewArray()}, 2)
	require.NoError(t, pw.Write(rec))
	require.NoError(t, pw.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	w.adopt("events.a", columnar.DataFile{Path: path, Arrangement: columnar.Arrangement{Partition: columnar.DefaultPartition()},
		Partition: []columnar.PartitionValue{{Long: received.Unix() / 86400}}, Rows: 2, Bytes: info.Size()})
	r := w.clean()
	require.EqualValues(t, 2, r.Streams[0].Tables[0].Foreign)
}

// A repair cuts the log: the table's rows beyond the cut stay, a new incarnation
// goes on.
func TestAfterRepair(t *testing.T) {
	t.Parallel()
	w := basic(t)
	first := w.incarnation()
	// The log as it was, and damage in it: what came behind is not there any more.
	olderLog(t, w)
	damageTail(t, w)
	r, err := seglog.Repair(w.fs, w.logDir, w.cfg, quiet)
	require.NoError(t, err)
	require.True(t, r.Cut)
	w.open()
	require.NotEqual(t, first, w.incarnation())
	w.send("events", each(9, "b", "c")...)
	w.load()
	report := w.clean()
	found := strings.Join(words(report.Explained), "\n")
	require.Contains(t, found, "cut events.a")
	require.Contains(t, found, "cut events.b")
	require.EqualValues(t, 0, report.Streams[0].NotYetWritten)
}

// damageTail changes a byte of the last frame with events, which is promised.
func damageTail(t *testing.T, w *world) {
	t.Helper()
	names := w.segments()
	path := filepath.Join(w.logDir, names[len(names)-1])
	at := int64(0)
	require.NoError(t, seglog.Frames(w.fs, path, func(f seglog.FrameInfo) error {
		if f.Kind == "append" {
			at = f.Pos
		}
		return nil
	}))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff}, at+60)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// droppingUnread is a world in which retention has dropped events of "events"
// that nobody has read: from 20, which the tables have, up to start.
func droppingUnread(t *testing.T) (w *world, start int64) {
	t.Helper()
	w = newWorld(t)
	w.cfg.Segment = 32 * quantity.KiB
	w.cfg.RetainBytes, w.cfg.DropUnread = 3*w.cfg.Segment, true
	w.close()
	w.open()
	w.send("events", padded(20)...)
	w.load()
	for start <= 40 {
		w.send("events", padded(20)...)
		st, err := w.log.Stat(t.Context(), "events")
		require.NoError(t, err)
		start = st.Ranges[0].Start
	}
	// Retention works beside the test: where the log begins is settled once it is closed.
	w.close()
	log, err := seglog.Walk(t.Context(), w.fs, w.logDir, seglog.SurveyOptions{}, func(*seglog.Logged) error { return nil })
	require.NoError(t, err)
	for _, st := range log.Streams {
		if st.Stream == "events" {
			start = st.Ranges[0].Start
		}
	}
	return w, start
}

func TestDroppedUnread(t *testing.T) {
	t.Parallel()
	w, start := droppingUnread(t)
	// Nobody has read on since.
	r := w.clean()
	require.Len(t, r.Explained, 1)
	require.Equal(t, DroppedUnread, r.Explained[0].Kind)
	require.EqualValues(t, 20, r.Explained[0].Offsets[0].First)

	// Read on, as the pipeline does: it counts what it has missed.
	w.cfg.RetainBytes = 0 // no more goes meanwhile
	w.open()
	st, err := w.log.Stat(t.Context(), "events")
	require.NoError(t, err)
	require.Equal(t, start, st.Ranges[0].Start)
	at, err := w.log.Progress(t.Context(), "default/events")
	require.NoError(t, err)
	at.Positions[st.Incarnation][0], at.Counts.Dropped, at.Events[0] = start, start-20, start
	require.NoError(t, w.log.Commit(t.Context(), nil, "default/events", at))
	w.load()
	r = w.clean()
	require.Equal(t, []string{fmt.Sprintf("dropped_unread 20-%d", start-1)}, words(r.Explained))
	require.EqualValues(t, start-20, r.Streams[0].Explained)

	// It must not have counted more: the surplus would hide rows that are lost later.
	w.open()
	at, err = w.log.Progress(t.Context(), "default/events")
	require.NoError(t, err)
	at.Counts.Dropped, at.Counts.Written = at.Counts.Dropped+3, at.Counts.Written-3
	require.NoError(t, w.log.Commit(t.Context(), nil, "default/events", at))
	w.wrong(false, "counts (3)", fmt.Sprintf("missing 20-%d", start-1))
}

// Rolled back by somebody: naru reads the rows again, so they are not lost.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	w := basic(t)
	meta, _ := w.metadata("events.b")
	w.change("events.b", icetable.NewSetSnapshotRefUpdate(icetable.MainBranch, *meta.CurrentSnapshot().ParentSnapshotID, icetable.BranchRef, 0, 0, 0))
	s := w.clean().Streams[0]
	require.EqualValues(t, 3, s.NotYetWritten)
	require.Contains(t, s.Tables[1].Note, "rolled back")
}

func TestDroppedTable(t *testing.T) {
	t.Parallel()
	w := basic(t)
	require.NoError(t, w.rows.Drop(t.Context(), ident("events.b")))
	w.wrong(false, "no_table events.b 1-1,4-4,7-7,11-11,14-14,17-17,21-21,24-24,27-27")
	w.open()
	w.send("events", each(2, "a", "b")...)
	w.load()
	r := w.clean()
	require.Equal(t, []string{"remade events.b 1-1,4-4,7-7,11-11,14-14,17-17,21-21,24-24,27-27"}, words(r.Explained))
}

func TestUnreadableTable(t *testing.T) {
	t.Parallel()
	w := basic(t)
	loc, err := w.rows.Location(t.Context(), ident("events.b"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(strings.TrimPrefix(loc, "file://"), []byte("{"), 0o644))
	r := w.wrong(false, "stopped events.b")
	require.NotEmpty(t, r.Differences[0].Hint)
	require.EqualValues(t, 9, r.Streams[0].Unread)
}

// Types beyond the limit of tables share _other, and leave it when the limit is
// raised.
func TestOtherTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lakeCfg.MaxTables = 2
	w.close()
	w.open()
	w.send("events", each(12, "a", "b", "c", "d")...)
	w.load()
	w.clean()
	w.lakeCfg.MaxTables = 3
	w.open()
	w.send("events", each(12, "a", "b", "c", "d")...)
	w.load()
	r := w.clean()
	require.Len(t, r.Streams[0].Tables, 4)
	w.open()
	adopted := copied(w, w.files("events.c")[0], "copy.parquet")
	w.adopt("events._other", adopted)
	w.wrong(false, "doubled events._other, events.c 14-14,18-18,22-22", "misplaced events._other, events.c 14-14,18-18,22-22")
}

// A table that is loaded anew: neither before the start that does it, nor while
// it goes on, is anything lost.
func TestWhileLoadedAgain(t *testing.T) {
	t.Parallel()
	w := basic(t)
	require.NoError(t, w.lake.ReloadTable(t.Context(), ident("events.b")))
	s := w.clean().Streams[0]
	require.EqualValues(t, 9, s.NotYetWritten)

	w.open()
	out, err := table.New(w.lake, w.log, quiet).Open(t.Context(), "events")
	require.NoError(t, err)
	b, err := w.log.Read(t.Context(), "events", event.Position{}, 1)
	require.NoError(t, err)
	require.EqualValues(t, 10, b.Next)
	require.NoError(t, out.Write(t.Context(), b))
	_, err = out.(sink.Drainer).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, out.Close())
	s = w.clean().Streams[0]
	require.EqualValues(t, 6, s.NotYetWritten)

	w.open()
	out, err = table.New(w.lake, w.log, quiet).Open(t.Context(), "events")
	require.NoError(t, err)
	from := event.Position{}
	for range 3 {
		b, err := w.log.Read(t.Context(), "events", from, 1)
		require.NoError(t, err)
		require.NoError(t, out.Write(t.Context(), b))
		from = b.End()
	}
	_, err = out.(sink.Drainer).Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, out.Close())
	s = w.clean().Streams[0]
	require.EqualValues(t, 0, s.NotYetWritten)

	// It has all that the log has: rows that it lacks did not go with the old table.
	w.open()
	offsets, drop := []string{}, map[string]bool{}
	for _, f := range w.files("events.b") {
		for _, o := range w.offsets(f.Path) {
			offsets = append(offsets, fmt.Sprintf("%d-%d", o, o))
			drop[f.Path] = true
		}
	}
	require.Len(t, offsets, 9)
	w.snapshot("events.b", true, func(p string) bool { return drop[strings.TrimPrefix(p, "file://")] })
	w.wrong(false, "missing events.b 1-1,4-4,7-7,11-11,14-14,17-17,21-21,24-24,27-27")
}

// Sums that differ never end as clean, even if it is not found where.
func TestDifferenceThatIsNotFound(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.close()
	l, err := iceberg.Open(t.Context(), w.lakeCfg, w.fs, w.dir, quiet, iceberg.WithCatalog(w.rows), iceberg.ReadOnly())
	require.NoError(t, err)
	defer l.Close()
	v := &verifier{Folder: Folder{FS: w.fs, LogDir: w.logDir, Lake: l}, Options: Options{Deep: true}, hash: newHasher(),
		streams: map[string]*streamState{}, lanes: map[laneKey]*lane{}, states: newStates()}
	v.before, err = seglog.Peek(v.FS, v.LogDir)
	require.NoError(t, err)
	require.NoError(t, v.pin(t.Context()))
	defer v.release()
	require.NoError(t, v.readLog(t.Context()))
	require.NoError(t, v.readRows(t.Context()))
	require.Empty(t, v.compare())
	for k, l := range v.lanes {
		if k.stream == "events" {
			l.chunk(0).cells[0].rows.content++
		}
	}
	require.NoError(t, v.oneByOne(t.Context(), v.compare()))
	require.Equal(t, []string{"counts 0-29"}, words(v.report().Differences))
}

// Rewriting files is to change no row: what is gone by it is lost.
func TestRowsLostByCompaction(t *testing.T) {
	t.Parallel()
	w := basic(t)
	drop := w.files("events.a")[0].Path
	w.operation = icetable.OpReplace
	w.snapshot("events.a", false, func(p string) bool { return strings.HasSuffix(p, drop) })
	r := w.wrong(false, "missing events.a "+offsetsOf(w, drop))
	require.Contains(t, r.Differences[0].Detail, "replace")
}

// Events that retention must not have dropped are lost, not dropped as configured.
func TestDroppedUnreadThoughForbidden(t *testing.T) {
	t.Parallel()
	w, start := droppingUnread(t)
	w.cfg.DropUnread = false
	w.wrong(false, fmt.Sprintf("missing 20-%d", start-1))
}
