package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/stream"
)

// basic is a folder with three commits: types a, b, c in turn at offsets 0 to
// 29, and two rejections in each part of ten.
func basic(t *testing.T) *world {
	w := newWorld(t)
	for range 3 {
		w.send("events", append(each(10, "a", "b", "c"), ev{"!", "broken"}, ev{"!", "{"})...)
		w.load()
	}
	return w
}

func TestClean(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.send("events", append(each(5, "a", "d"), ev{"!", "x"})...)
	r := w.clean()
	require.Len(t, r.Streams, 2)
	s := r.Streams[0]
	require.Equal(t, [...]int64{42, 30, 7, 5, 35}, [...]int64{s.Acknowledged, s.Written, s.Rejections, s.NotYetWritten, s.InLog})
	s = r.Streams[1]
	require.Equal(t, [...]int64{7, 6, 0, 1}, [...]int64{s.Acknowledged, s.Written, s.Rejections, s.NotYetWritten})
	require.Len(t, r.Streams[0].Tables, 3)
	require.Empty(t, r.Explained)
}

func TestEmptyFolderIsClean(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.Empty(t, w.clean().Streams)
}

// A kill between the commits of tables and the watermark: they lead.
func TestTablesMayLeadTheWatermark(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.send("events", each(7, "a", "b")...)
	w.loadStream("events", false)
	w.send("events", each(4, "b")...)
	s := w.clean().Streams[0]
	require.Equal(t, [...]int64{37, 4}, [...]int64{s.Written, s.NotYetWritten})
}

func TestFileGoneFromSnapshot(t *testing.T) {
	t.Parallel()
	w := basic(t)
	files := w.files("events.b")
	w.snapshot("events.b", true, func(p string) bool { return strings.HasSuffix(p, files[1].Path) })
	r := w.wrong(false, "missing events.b 11-11,14-14,17-17")
	require.EqualValues(t, 3, r.Differences[0].Count)
	require.False(t, r.Streams[0].Balanced)
}

func TestRemovedByAnotherEngine(t *testing.T) {
	t.Parallel()
	w := basic(t)
	files := w.files("events.b")
	id := w.snapshot("events.b", false, func(p string) bool { return strings.HasSuffix(p, files[1].Path) })
	r := w.clean()
	require.Equal(t, []string{"removed events.b 11-11,14-14,17-17"}, words(r.Explained))
	require.Contains(t, r.Explained[0].Detail, fmt.Sprint(id))
	require.EqualValues(t, 3, r.Streams[0].Explained)
}

func TestFileAddedTwice(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		w := basic(t)
		files := w.files("events.a")
		w.snapshot("events.a", own, nil, files[0].Path)
		r := w.wrong(false, "doubled events.a "+offsetsOf(w, files[0].Path))
		require.Equal(t, []string{files[0].Path}, r.Differences[0].Files)
		require.True(t, r.Streams[0].Balanced, "each is counted once")
	}
}

// offsetsOf are the offsets of a file's rows, in short form.
func offsetsOf(w *world, path string) string {
	var out []string
	for _, o := range w.offsets(path) {
		out = append(out, fmt.Sprintf("%d-%d", o, o))
	}
	return strings.Join(out, ",")
}

// copied makes a copy of a data file, for another table.
func copied(w *world, f lake.File, to string) columnar.DataFile {
	w.t.Helper()
	text, err := os.ReadFile(f.Path)
	require.NoError(w.t, err)
	path := filepath.Join(filepath.Dir(f.Path), to)
	require.NoError(w.t, os.WriteFile(path, text, 0o644))
	return columnar.DataFile{Path: path, Arrangement: columnar.Arrangement{Partition: columnar.DefaultPartition()},
		Partition: []columnar.PartitionValue{{Long: received.Unix() / 86400}}, Rows: f.Rows, Bytes: f.Bytes}
}

func TestDoubledAcrossTables(t *testing.T) {
	t.Parallel()
	w := basic(t)
	from := w.files("events.a")[2]
	w.adopt("events.b", copied(w, from, "copy.parquet"))
	r := w.wrong(false, "doubled events.a, events.b "+offsetsOf(w, from.Path), "misplaced events.a, events.b "+offsetsOf(w, from.Path))
	require.Contains(t, r.Differences[1].Detail, "events.a")
}

func TestRowsOfAnotherTablesType(t *testing.T) {
	t.Parallel()
	w := basic(t)
	from := w.files("events.a")[2]
	w.adopt("events.b", copied(w, from, "copy.parquet"))
	w.snapshot("events.a", true, func(p string) bool { return strings.HasSuffix(p, from.Path) })
	w.wrong(false, "misplaced events.b "+offsetsOf(w, from.Path))
}

// A file with fewer rows under the name of one with more.
func TestRowsGoneFromFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send("events", each(9, "a", "b")...)
	w.load()
	w.send("events", each(6, "a", "b")...)
	w.load()
	files := w.files("events.a")
	short, long := files[0], files[1]
	gone, double := offsetsOf(w, long.Path), offsetsOf(w, short.Path)
	text, err := os.ReadFile(short.Path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(long.Path, text, 0o644))
	r := w.wrong(false, "doubled events.a "+double, "file events.a (3)", "missing events.a "+gone)
	require.Equal(t, []string{long.Path}, r.Differences[1].Files)
}

func TestFileMissing(t *testing.T) {
	t.Parallel()
	w := basic(t)
	f := w.files("events.c")[1]
	gone := offsetsOf(w, f.Path)
	require.NoError(t, os.Remove(f.Path))
	r := w.wrong(false, "file events.c", "missing events.c "+gone)
	require.Equal(t, []string{f.Path}, r.Differences[0].Files)
}

func TestPositionsMovedPastUnwritten(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.send("events", each(6, "a", "b")...)
	w.positions("events.b", event.Positions{w.incarnation(): {0: 36}})
	w.wrong(false, "missing events.b 31-31,33-33,35-35")
}

func TestPositionsMovedBack(t *testing.T) {
	t.Parallel()
	w := basic(t)
	inc := w.incarnation()
	w.close()
	w.rewind("events.b", event.Positions{inc: {0: 11}})
	w.wrong(false, "skipped events.b 11-11,14-14,17-17,21-21,24-24,27-27", "unclaimed events.b 11-11,14-14,17-17,21-21,24-24,27-27")
}

func TestWatermarkAhead(t *testing.T) {
	t.Parallel()
	w := basic(t)
	w.send("events", each(6, "a", "b", "z")...)
	inc := w.incarnation()
	at, err := w.log.Progress(t.Context(), "default/events")
	require.NoError(t, err)
	at.Positions[inc][0], at.Counts.Written, at.Events[0] = 34, 34, 34
	require.NoError(t, w.log.Commit(t.Context(), nil, "default/events", at))
	w.wrong(false, "no_table events.z 32-32", "skipped events.a 30-30,33-33", "skipped events.b 31-31")
}

func TestWatermarkCountsWrong(t *testing.T) {
	t.Parallel()
	w := basic(t)
	at, err := w.log.Progress(t.Context(), "default/events")
	require.NoError(t, err)
	at.Counts.Written, at.Events[0] = 29, 29
	require.NoError(t, w.log.Commit(t.Context(), nil, "default/events", at))
	w.wrong(false, "counts (1)")
}

// Counts that add up to the events below the watermark, and are wrong each.
func TestWatermarkCountsAddUpAndAreWrong(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		counts stream.Counts
		events int64
		want   string
	}{
		"too many dropped": {stream.Counts{Written: 25, Dropped: 5}, 30, "counts (5)"},
		"below zero":       {stream.Counts{Written: 35, Dropped: -5}, 30, "counts (-5)"},
		"partition":        {stream.Counts{Written: 30}, 29, "counts (-1)"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := basic(t)
			at, err := w.log.Progress(t.Context(), "default/events")
			require.NoError(t, err)
			at.Counts, at.Events[0] = tt.counts, tt.events
			require.NoError(t, w.log.Commit(t.Context(), nil, "default/events", at))
			w.wrong(false, tt.want)
		})
	}
}

func TestRejectedRowMissing(t *testing.T) {
	t.Parallel()
	w := basic(t)
	files := w.files("rejected.rejected")
	w.snapshot("rejected.rejected", true, func(p string) bool { return strings.HasSuffix(p, files[2].Path) })
	r := w.wrong(false, "missing rejected.rejected 0-1")
	require.Equal(t, event.RejectedStream, r.Differences[0].Stream)
}

func TestEventMissingInLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 25 { // several segments
		w.send("events", padded(30)...)
	}
	w.load()
	w.close()
	names := w.segments()
	require.Greater(t, len(names), 3)
	// A byte in the middle of an older one.
	path := filepath.Join(w.logDir, names[1])
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	text[len(text)/2] ^= 1
	require.NoError(t, os.WriteFile(path, text, 0o644))
	r := w.verify(Options{})
	require.Equal(t, []string{"log"}, words(r.Differences))
	require.Equal(t, []string{path}, r.Differences[0].Files)
	require.Contains(t, r.Differences[0].Detail, names[1])

	// A whole segment.
	require.NoError(t, os.Remove(path))
	r = w.verify(Options{})
	require.Equal(t, []string{"log"}, words(r.Differences))
	require.Contains(t, r.Differences[0].Detail, "missing")
}
