package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	icetable "github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// received is when all events of the tests came.
var received = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// world is a folder with a log, a lake, and what loads one from the other.
type world struct {
	t       testing.TB
	dir     string
	logDir  string
	fs      vfs.FS
	cfg     seglog.Config
	lakeCfg iceberg.Config
	rows    *iceberg.MemoryCatalog
	log     *seglog.Log
	lake    *iceberg.Lake
	loaded  map[string]stream.Progress // by stream
	ids     int
	// contract is the hash of the one that sent events were judged by; "": none.
	contract string
	// paths are those of strings that hold JSON in events of a contract.
	paths string
	// reading is the log that is loaded; nil: log.
	reading stream.Log
	// operation of the snapshots that snapshot commits; "": overwrite.
	operation icetable.Operation
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), fs: vfs.OS(), rows: iceberg.NewMemoryCatalog(), cfg: newConfig(), lakeCfg: iceberg.DefaultConfig(),
		loaded: map[string]stream.Progress{}}
	w.logDir = filepath.Join(w.dir, "log")
	require.NoError(t, os.Mkdir(w.logDir, 0o755))
	w.open()
	t.Cleanup(w.close)
	return w
}

func newConfig() seglog.Config {
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Recycle, cfg.Reserve = 64*quantity.KiB, 0, 0
	return cfg
}

// open opens log and lake; without a catalog of its own the lake has SQLite.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.log, err = seglog.Open(w.fs, w.logDir, w.cfg, quiet)
	require.NoError(w.t, err)
	var opts []iceberg.Option
	if w.rows != nil {
		opts = append(opts, iceberg.WithCatalog(w.rows))
	}
	w.lake, err = iceberg.Open(w.t.Context(), w.lakeCfg, w.fs, w.dir, quiet, opts...)
	require.NoError(w.t, err)
}

func (w *world) close() {
	if w.log != nil { // else it is closed
		_ = w.log.Close()
		_ = w.lake.Close()
		w.log = nil
	}
}

// ev is one event; type "!" makes a refused one.
type ev struct{ typ, data string }

// each makes n events of the types in turn.
func each(n int, types ...string) []ev {
	var out []ev
	for i := range n {
		out = append(out, ev{types[i%len(types)], fmt.Sprintf(`{"n":%d,"text":"t%d","deep":{"list":[1,2,null],"x":%d.5}}`, i, i, i)})
	}
	return out
}

// send appends events to a stream in one frame.
func (w *world) send(name string, events ...ev) {
	w.t.Helper()
	var good, bad recordbatch.Builder
	good.Reset(received)
	bad.Reset(received)
	for _, e := range events {
		w.ids++
		x := &event.Event{ID: fmt.Appendf(nil, "id-%d", w.ids), Source: []byte("/test"), Type: []byte(e.typ), Data: []byte(e.data)}
		if w.contract != "" {
			x.Contract = event.Contract{ID: []byte("c"), Version: []byte("1"), Hash: []byte(w.contract)}
			x.JSONStrings = []byte(w.paths)
		}
		if e.typ == "!" {
			x.Type = []byte(recordbatch.RejectionType)
			x.Refusal = &event.Rejection{Stream: name, Reason: event.NotJSON, Detail: "here", Index: w.ids}
			bad.AppendEvent(x)
			continue
		}
		good.AppendEvent(x)
	}
	var writes []stream.Write
	if n := good.Count(); n > 0 {
		writes = append(writes, stream.Write{Stream: name, Batch: good.Finish(nil, recordbatch.Snappy), Count: n})
	}
	if n := bad.Count(); n > 0 {
		writes = append(writes, stream.Write{Stream: event.RejectedStream, Batch: bad.Finish(nil, recordbatch.Snappy), Count: n, RefusedFrom: name})
	}
	_, err := w.log.Append(w.t.Context(), writes...)
	require.NoError(w.t, err)
}

// load loads all streams as their pipelines do: rows, then the watermark.
func (w *world) load() {
	w.t.Helper()
	names, err := w.log.Streams(w.t.Context())
	require.NoError(w.t, err)
	for _, name := range names {
		if !event.Internal(name) {
			w.loadStream(name, true)
		}
	}
}

func (w *world) loadStream(name string, mark bool) {
	w.t.Helper()
	ctx := w.t.Context()
	out, err := table.New(w.lake, w.log, quiet).Open(ctx, name)
	require.NoError(w.t, err)
	defer out.Close()
	at, err := w.log.Progress(ctx, "default/"+name)
	require.NoError(w.t, err)
	at = at.Clone()
	at.Stream = name
	st, err := w.log.Stat(ctx, name)
	require.NoError(w.t, err)
	from := event.Position{}
	for _, r := range st.Ranges {
		if off, ok := at.Positions.Get(r.Incarnation, 0); ok {
			from = event.Position{Incarnation: r.Incarnation, Offset: min(off, r.End)}
		}
	}
	for {
		end := st.Ranges[len(st.Ranges)-1]
		if !from.Incarnation.IsZero() && from.Offset >= end.End { // offsets run on through incarnations
			break
		}
		reading := w.reading
		if reading == nil {
			reading = w.log
		}
		b, err := reading.Read(ctx, name, from, 1<<20)
		require.NoError(w.t, err)
		require.NoError(w.t, out.Write(ctx, b))
		duplicates := event.CountRuns(b.Without, b.From)
		at.Counts.Duplicates += duplicates
		at.Events[0] += duplicates
		n := int64(0)
		var dec recordbatch.Decoder
		require.NoError(w.t, dec.EachIn(b, func(*event.Event) error { n++; return nil }))
		at.Counts.Written += n
		at.Events[0] += n
		at.Positions.Advance(b.End())
		from = b.End()
	}
	_, err = out.(interface {
		Drain(context.Context) (event.Positions, error)
	}).Drain(ctx)
	require.NoError(w.t, err)
	if mark {
		require.NoError(w.t, w.log.Commit(ctx, nil, "default/"+name, at))
	}
}

// verify runs over the folder as it is; the log is closed first, as by a stop.
func (w *world) verify(o Options) *Report {
	w.t.Helper()
	w.close()
	o.DropUnread = w.cfg.DropUnread
	l, err := iceberg.Open(w.t.Context(), w.lakeCfg, w.fs, w.dir, quiet, iceberg.WithCatalog(w.rows), iceberg.ReadOnly())
	require.NoError(w.t, err)
	defer l.Close()
	r, err := Run(w.t.Context(), Folder{FS: w.fs, LogDir: w.logDir, Lake: l}, o)
	require.NoError(w.t, err)
	return r
}

// clean requires that nothing is wrong, with and without content.
func (w *world) clean() *Report {
	w.t.Helper()
	for _, deep := range []bool{false, true} {
		r := w.verify(Options{Deep: deep})
		require.Empty(w.t, words(r.Differences))
		require.True(w.t, r.Clean)
		for _, s := range r.Streams {
			require.True(w.t, s.Balanced, "%+v", s)
		}
	}
	return w.verify(Options{})
}

// wrong requires exactly these differences: kind, table, first to last offsets.
func (w *world) wrong(deep bool, want ...string) *Report {
	w.t.Helper()
	r := w.verify(Options{Deep: deep})
	require.Equal(w.t, want, words(r.Differences))
	require.False(w.t, r.Clean)
	return r
}

// words puts differences into short form.
func words(list []Difference) []string {
	var out []string
	for _, d := range list {
		text := string(d.Kind)
		if d.Table != "" {
			text += " " + d.Table
		}
		for i, s := range d.Offsets {
			sep := ","
			if i == 0 {
				sep = " "
			}
			text += sep + fmt.Sprintf("%d-%d", s.First, s.Last)
		}
		if len(d.Offsets) == 0 && d.Count != 0 {
			text += fmt.Sprintf(" (%d)", d.Count)
		}
		out = append(out, text)
	}
	return out
}

func ident(name string) lake.Ident {
	ns, n, _ := strings.Cut(name, ".")
	return lake.Ident{Namespace: ns, Name: n}
}

// files lists the data files of a table, oldest first.
func (w *world) files(name string) (out []lake.File) {
	w.t.Helper()
	v, err := w.lake.View(w.t.Context(), ident(name))
	require.NoError(w.t, err)
	defer v.Release()
	return v.Files
}

func (w *world) metadata(name string) (icetable.Metadata, string) {
	w.t.Helper()
	loc, err := w.rows.Location(w.t.Context(), ident(name))
	require.NoError(w.t, err)
	fsys := func(context.Context) (iceio.IO, error) { return iceio.LocalFS{}, nil }
	tbl, err := icetable.NewFromLocation(w.t.Context(), []string{"x"}, loc, fsys, nil)
	require.NoError(w.t, err)
	return tbl.Metadata(), loc
}

// change rewrites a table's metadata as another writer would.
func (w *world) change(name string, updates ...icetable.Update) {
	w.t.Helper()
	meta, loc := w.metadata(name)
	next, err := icetable.UpdateTableMetadata(meta, updates, loc)
	require.NoError(w.t, err)
	text, err := json.Marshal(next)
	require.NoError(w.t, err)
	w.ids++
	to := fmt.Sprintf("%s/metadata/9%04d-%08d-0000-4000-8000-000000000000.metadata.json", meta.Location(), w.ids, w.ids)
	require.NoError(w.t, os.WriteFile(strings.TrimPrefix(to, "file://"), text, 0o644))
	require.NoError(w.t, w.rows.Swap(w.t.Context(), ident(name), loc, to))
}

// snapshot commits a snapshot: files that drop names are removed, those of add,
// copies of live files, are added. own carries naru's summary on, as a naru with
// a bug would; else it is another engine's.
func (w *world) snapshot(name string, own bool, drop func(string) bool, add ...string) int64 {
	w.t.Helper()
	meta, _ := w.metadata(name)
	parent := meta.CurrentSnapshot()
	id, seq := int64(1000+w.ids), meta.LastSequenceNumber()+1
	w.ids++
	had, err := parent.Manifests(iceio.LocalFS{})
	require.NoError(w.t, err)
	path := fmt.Sprintf("%s/metadata/foreign-%d", strings.TrimPrefix(meta.Location(), "file://"), id)
	file, err := os.Create(path + "-m.avro")
	require.NoError(w.t, err)
	out, err := ice.NewManifestWriter(2, file, meta.PartitionSpec(), meta.CurrentSchema(), id)
	require.NoError(w.t, err)
	for _, m := range had {
		for e, err := range m.Entries(iceio.LocalFS{}, true) {
			require.NoError(w.t, err)
			if drop != nil && drop(e.DataFile().FilePath()) {
				require.NoError(w.t, out.Delete(e))
			} else {
				require.NoError(w.t, out.Existing(e))
			}
			for _, a := range add {
				if strings.TrimPrefix(e.DataFile().FilePath(), "file://") == a {
					require.NoError(w.t, out.Add(ice.NewManifestEntry(ice.EntryStatusADDED, &id, nil, nil, e.DataFile())))
				}
			}
		}
	}
	require.NoError(w.t, out.Close())
	require.NoError(w.t, file.Close())
	info, err := os.Stat(file.Name())
	require.NoError(w.t, err)
	m, err := out.ToManifestFile(file.Name(), info.Size())
	require.NoError(w.t, err)
	list, err := os.Create(path + "-l.avro")
	require.NoError(w.t, err)
	require.NoError(w.t, ice.WriteManifestList(2, list, id, &parent.SnapshotID, &seq, 0, []ice.ManifestFile{m}))
	require.NoError(w.t, list.Close())
	props := ice.Properties{}
	if own {
		props = parent.Summary.Properties
	}
	schema, operation := meta.CurrentSchema().ID, icetable.OpOverwrite
	if w.operation != "" {
		operation = w.operation
	}
	w.change(name, icetable.NewAddSnapshotUpdate(&icetable.Snapshot{SnapshotID: id, ParentSnapshotID: &parent.SnapshotID, SequenceNumber: seq,
		TimestampMs: meta.LastUpdatedMillis(), ManifestList: list.Name(), SchemaID: &schema,
		Summary: &icetable.Summary{Operation: operation, Properties: props}}),
		icetable.NewSetSnapshotRefUpdate(icetable.MainBranch, id, icetable.BranchRef, 0, 0, 0))
	return id
}

// positions commits no rows, and positions that go on.
func (w *world) positions(name string, at event.Positions) {
	w.t.Helper()
	h := w.lake.Table(ident(name))
	s, err := h.Load(w.t.Context())
	require.NoError(w.t, err)
	_, err = h.Commit(w.t.Context(), iceberg.Commit{Base: s, Schema: s.Schema, Positions: at})
	require.NoError(w.t, err)
}

// rewind gives a table older positions, as a naru with a bug would.
func (w *world) rewind(name string, at event.Positions) {
	w.t.Helper()
	w.open()
	meta, _ := w.metadata(name)
	s := *meta.CurrentSnapshot()
	props := ice.Properties{}
	maps.Copy(props, s.Summary.Properties)
	props["naru.positions"] = at.String()
	s.ParentSnapshotID, s.SnapshotID, s.SequenceNumber = &meta.CurrentSnapshot().SnapshotID, s.SnapshotID/2, s.SequenceNumber+1
	s.Summary = &icetable.Summary{Operation: icetable.OpAppend, Properties: props}
	w.change(name, icetable.NewAddSnapshotUpdate(&s), icetable.NewSetSnapshotRefUpdate(icetable.MainBranch, s.SnapshotID, icetable.BranchRef, 0, 0, 0),
		icetable.NewSetPropertiesUpdate(ice.Properties{"naru.positions": at.String()}))
}

// build makes data files of events for a table.
func (w *world) build(name string, inc event.Incarnation, events ...*event.Event) []columnar.DataFile {
	w.t.Helper()
	h := w.lake.Table(ident(name))
	s, err := h.Load(w.t.Context())
	require.NoError(w.t, err)
	b := columnar.NewBuilder(w.fs, s.Schema, columnar.Options{Path: func(folder string) string { return h.DataPath(s, folder) }, Create: w.lake.CreateFile, Writers: w.lake.Writers})
	for _, e := range events {
		require.NoError(w.t, b.Append(e, inc, 0))
	}
	files, err := b.Finish(w.t.Context())
	require.NoError(w.t, err)
	return files
}

// adopt commits files to a table, under the positions that it has.
func (w *world) adopt(name string, files ...columnar.DataFile) {
	w.t.Helper()
	h := w.lake.Table(ident(name))
	s, err := h.Load(w.t.Context())
	require.NoError(w.t, err)
	_, err = h.Commit(w.t.Context(), iceberg.Commit{Base: s, Schema: s.Schema, Positions: s.Positions, Files: files})
	require.NoError(w.t, err)
}

// offsets are those of a file's rows.
func (w *world) offsets(path string) (out []int64) {
	w.t.Helper()
	_, err := columnar.ReadPlaces(w.t.Context(), w.fs, path, columnar.PlacesOptions{}, func(p *columnar.Places) error {
		out = append(out, p.Offset...)
		return nil
	})
	require.NoError(w.t, err)
	return out
}

func (w *world) segments() (out []string) {
	w.t.Helper()
	names, err := w.fs.List(w.logDir)
	require.NoError(w.t, err)
	for _, n := range names {
		if strings.HasSuffix(n, ".seg") {
			out = append(out, n)
		}
	}
	return out
}

func (w *world) incarnation() event.Incarnation {
	w.t.Helper()
	st, err := w.log.Stat(w.t.Context(), "events")
	require.NoError(w.t, err)
	return st.Incarnation
}
