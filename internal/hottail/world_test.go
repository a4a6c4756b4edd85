package hottail

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	sinktable "naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/vfs"
)

const hotDir = "/data/hot"

var quiet = slog.New(slog.DiscardHandler)

// world is a log, tables with the real loader at hand, and a hot tail over both.
type world struct {
	asked  map[string]string // tables that contracts ask for, by hash
	t      *testing.T
	fs     *vfs.Memory
	rows   *iceberg.MemoryCatalog
	look   *hooked // rows, as the lake sees them
	cfg    iceberg.Config
	hot    Config
	log    *memory.Log
	view   *view
	lake   *iceberg.Lake
	tables *sinktable.Tables
	tail   *Tail
	loads  map[string]*loader
	flush  func(ctx context.Context, stream string) error
	types  map[string]map[spot]string // what was sent: by stream and place its type
	number map[string]map[spot]float64
	next   int
}

// hooked is a catalog that tells when a table is looked up.
type hooked struct {
	iceberg.Catalog
	onLocation func(lake.Ident)
}

func (c *hooked) Location(ctx context.Context, t lake.Ident) (string, error) {
	if c.onLocation != nil {
		c.onLocation(t)
	}
	return c.Catalog.Location(ctx, t)
}

// view is the log as the hot tail sees it, with what a test does in between.
type view struct {
	stream.Log
	onProgress, onStat, onRead func()
	afterStat                  func()
	failRead                   error
	lost                       []event.Span
}

func (v *view) Progress(ctx context.Context, reader string) (stream.Progress, error) {
	p, err := v.Log.Progress(ctx, reader)
	call(v.onProgress)
	return p, err
}

func (v *view) Stat(ctx context.Context, name string) (stream.Stat, error) {
	call(v.onStat)
	st, err := v.Log.Stat(ctx, name)
	st.Lost = append(st.Lost, v.lost...)
	call(v.afterStat)
	return st, err
}

func (v *view) Read(ctx context.Context, name string, from event.Position, most stream.Bytes) (*event.Batch, error) {
	call(v.onRead)
	if v.failRead != nil {
		return nil, v.failRead
	}
	return v.Log.Read(ctx, name, from, most)
}

func call(fn func()) {
	if fn != nil {
		fn()
	}
}

// spot is where an event stands in its stream.
type spot struct {
	log       event.Incarnation
	partition int32
	offset    int64
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	w := &world{t: t, fs: vfs.NewMemory(), rows: iceberg.NewMemoryCatalog(), cfg: iceberg.DefaultConfig(), hot: DefaultConfig(), log: memory.New(),
		loads: map[string]*loader{}, types: map[string]map[spot]string{}, number: map[string]map[spot]float64{}}
	w.cfg.GCDelay, w.cfg.CommitRate = 0, 1e6
	w.flush = func(context.Context, string) error { return nil }
	w.view, w.look = &view{Log: w.log}, &hooked{Catalog: w.rows}
	for _, c := range change {
		c(w)
	}
	w.open()
	t.Cleanup(func() { _ = w.lake.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.lake, err = iceberg.Open(w.t.Context(), w.cfg, w.fs, "/data", quiet, iceberg.WithCatalog(w.look))
	require.NoError(w.t, err)
	w.tables = sinktable.New(w.lake, w.log, quiet)
	w.tail = New(w.hot, Deps{FS: w.fs, Dir: hotDir, Log: w.view, Lake: w.lake, Logger: quiet,
		Reader: func(s string) string { return "default/" + s },
		Flush:  func(ctx context.Context, s string) error { return w.flush(ctx, s) }})
	require.NoError(w.t, w.tail.Open())
}

// restart is another process over the same disk and log.
func (w *world) restart() {
	w.t.Helper()
	for name, l := range w.loads {
		require.NoError(w.t, l.sink.Close())
		delete(w.loads, name)
	}
	require.NoError(w.t, w.lake.Close())
	w.open()
}

func id(name string) lake.Ident { return lake.Ident{Namespace: event.DefaultStream, Name: name} }

// ev is an event to send.
type ev struct {
	typ, data string
	partition int32
	contract  string // hash of the contract that it was judged by
}

// evs are n events of a type, numbered: {"n":…} with more fields besides.
func (w *world) evs(n int, typ string, more ...string) (out []ev) {
	for range n {
		out = append(out, ev{typ: typ, data: fmt.Sprintf(`{"n":%d%s}`, w.next, strings.Join(more, ""))})
		w.next++
	}
	return out
}

// sealing is how many big events finish a file.
const sealing = sealBytes >> 20

// big is evs with a MiB of data in each.
func (w *world) big(n int, typ string, more ...string) []ev {
	return w.evs(n, typ, append(more, `,"pad":"`, strings.Repeat("x", 1<<20), `"`)...)
}

// send appends events to a stream, one record batch for each run in a partition.
func (w *world) send(name string, events ...ev) {
	w.t.Helper()
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].partition == events[0].partition {
			n++
		}
		var rb recordbatch.Builder
		rb.Reset(time.Date(2015, 9, 12, 10, 0, 0, 0, time.UTC))
		for i, e := range events[:n] {
			one := event.Event{ID: fmt.Appendf(nil, "e%d", i), Source: []byte("/s"), Type: []byte(e.typ), Data: []byte(e.data)}
			if e.contract != "" {
				one.Contract = event.Contract{ID: []byte("c"), Version: []byte("1"), Hash: []byte(e.contract)}
			}
			if name == event.RejectedStream {
				one.Type, one.Refusal = []byte(recordbatch.RejectionType), &event.Rejection{Stream: event.DefaultStream, Type: e.typ, Reason: event.NotJSON, Original: []byte(e.data)}
			}
			rb.AppendEvent(&one)
		}
		at, err := w.log.Append(w.t.Context(), stream.Write{Stream: name, Partition: events[0].partition, Batch: rb.Finish(nil, recordbatch.None), Count: rb.Count()})
		require.NoError(w.t, err)
		if w.types[name] == nil {
			w.types[name], w.number[name] = map[spot]string{}, map[spot]float64{}
		}
		for i, e := range events[:n] {
			s := spot{at[0].Incarnation, at[0].Partition, at[0].Offset + int64(i)}
			w.types[name][s] = e.typ
			if asked := w.asked[e.contract]; asked != "" {
				w.types[name][s] = asked
			}
			var body struct{ N float64 }
			_ = json.Unmarshal([]byte(e.data), &body)
			w.number[name][s] = body.N
		}
		events = events[n:]
	}
}

// loader is what a pipeline does for a stream, step by step.
type loader struct {
	w    *world
	name string
	sink sink.Sink
	at   event.Positions // read up to
	mark event.Positions // of the last commit, perhaps not appended
}

func (w *world) loader(name string) *loader {
	w.t.Helper()
	if l := w.loads[name]; l != nil {
		return l
	}
	s, err := w.tables.Open(w.t.Context(), name)
	require.NoError(w.t, err)
	p, err := w.log.Progress(w.t.Context(), "default/"+name)
	require.NoError(w.t, err)
	l := &loader{w: w, name: name, sink: s, at: p.Positions.Clone()}
	resume, err := s.(sink.Resumer).Resume(w.t.Context(), name)
	require.NoError(w.t, err)
	for inc, parts := range resume {
		for partition, off := range parts {
			if have, ok := l.at.Get(inc, partition); ok && off < have {
				l.at[inc][partition] = off
			}
		}
	}
	w.loads[name] = l
	return l
}

// write hands the sink all that the log has.
func (l *loader) write() *loader {
	l.w.t.Helper()
	st, err := l.w.log.Stat(l.w.t.Context(), l.name)
	require.NoError(l.w.t, err)
	for _, r := range st.Ranges {
		at := event.Position{Incarnation: r.Incarnation, Partition: r.Partition, Offset: r.Start}
		if off, ok := l.at.Get(r.Incarnation, r.Partition); ok {
			at.Offset = max(at.Offset, off)
		}
		for at.Offset < r.End {
			b, err := l.w.log.Read(l.w.t.Context(), l.name, at, 1<<20)
			require.NoError(l.w.t, err)
			require.NoError(l.w.t, l.sink.Write(l.w.t.Context(), b))
			at = b.End()
			l.at.Advance(at)
		}
	}
	return l
}

// commit makes the tables have it; the watermark stays.
func (l *loader) commit() *loader {
	l.w.t.Helper()
	done, err := l.sink.(sink.Drainer).Drain(l.w.t.Context())
	require.NoError(l.w.t, err)
	l.mark = done
	return l
}

// appendMark moves the watermark to the last commit's place.
func (l *loader) appendMark() *loader {
	l.w.t.Helper()
	require.NoError(l.w.t, l.w.log.Commit(l.w.t.Context(), nil, "default/"+l.name, stream.Progress{Stream: l.name, Positions: l.mark}))
	return l
}

// load commits all of a stream.
func (w *world) load(name string) {
	w.t.Helper()
	w.loader(name).write().commit().appendMark()
}

// lose forgets the session: the next one begins at the watermark.
func (w *world) lose(name string) {
	if l := w.loads[name]; l != nil {
		require.NoError(w.t, l.sink.Close())
		delete(w.loads, name)
	}
}

// cells are a row's values by column name.
type cells map[string]columnar.Value

// read gives the rows that a view stands for.
func (w *world) read(v *lake.View) map[spot][]cells {
	w.t.Helper()
	out := map[spot][]cells{}
	part := func(files []lake.File, columns []lake.Column, want func(spot) bool) {
		s := schemaOf(columns)
		for _, f := range files {
			_, err := columnar.ReadRows(w.t.Context(), w.fs, f.Path, s, func(r *columnar.Row) error {
				inc, err := event.ParseIncarnation(string(r.Log))
				if err != nil {
					return err
				}
				at := spot{inc, r.Partition, r.Offset}
				if !want(at) {
					return nil
				}
				c := cells{}
				for _, x := range r.Values {
					x.Text = slices.Clone(x.Text)
					c[x.Field.Name] = x
				}
				out[at] = append(out[at], c)
				return nil
			})
			require.NoError(w.t, err)
		}
	}
	part(v.Files, v.Columns, func(spot) bool { return true })
	if v.Hot != nil {
		part(v.Hot.Files, v.Hot.Columns, func(at spot) bool {
			return slices.ContainsFunc(v.Hot.Spans, func(s event.Span) bool {
				return s.Incarnation == at.log && s.Partition == at.partition && s.From <= at.offset && at.offset < s.To
			})
		})
	}
	return out
}

// schemaOf is columns as columnar reads them.
func schemaOf(columns []lake.Column) *columnar.Schema {
	s := &columnar.Schema{}
	for _, c := range columns {
		f := columnar.Field{ID: c.FieldID, ElementID: c.ElementID, Name: c.Name}
		for k := columnar.Bool; k < columnar.Foreign; k++ {
			if k != columnar.JSON && k.Iceberg() == c.Type {
				f.Kind = k
			}
		}
		s.Fields = append(s.Fields, f)
	}
	return s
}

// cut cuts tables; the views are released when the test ends.
func (w *world) cut(tables ...lake.Ident) []*lake.View {
	w.t.Helper()
	views, err := w.tail.Cut(w.t.Context(), tables)
	require.NoError(w.t, err)
	for i, v := range views {
		require.Equal(w.t, tables[i], v.Ident)
		w.t.Cleanup(v.Release)
	}
	return views
}

func letGo(views []*lake.View) {
	for _, v := range views {
		v.Release()
	}
}

// owner is the table that an event's rows go to, while there is no limit.
func owner(name, typ string) string {
	if name == event.RejectedStream {
		return event.RejectedStream
	}
	return lake.TableName(typ)
}

// requireAll cuts the tables and demands every event sent so far, once, and its
// number.
func (w *world) requireAll(tables ...lake.Ident) []*lake.View {
	w.t.Helper()
	views, err := w.tail.Cut(w.t.Context(), tables)
	require.NoError(w.t, err)
	for i, v := range views {
		require.Equal(w.t, tables[i], v.Ident)
		w.requireRows(v, func(s spot) bool { return owner(v.Ident.Namespace, w.types[v.Ident.Namespace][s]) == v.Ident.Name })
	}
	letGo(views)
	return views
}

// requireRows demands of a view the events for which want holds, each once.
func (w *world) requireRows(v *lake.View, want func(spot) bool) {
	w.t.Helper()
	got := w.read(v)
	name := v.Ident.Namespace
	for s := range w.types[name] {
		n := 0
		if want(s) {
			n = 1
		}
		if len(got[s]) != n {
			require.Len(w.t, got[s], n, "%s at %v (hot %+v)", v.Ident, s, v.Hot)
		}
		if n == 0 || name == event.RejectedStream || v.Ident.Name == lake.OtherTable {
			continue
		}
		x := got[s][0]["n"]
		number := x.Double
		if x.Field.Kind == columnar.Long {
			number = float64(x.Long)
		}
		if w.number[name][s] != number {
			require.Failf(w.t, "another number", "%s at %v: %v, sent %v", v.Ident, s, number, w.number[name][s])
		}
	}
	for s := range got {
		if _, ok := w.types[name][s]; !ok {
			require.Failf(w.t, "a row that the log has not", "%s at %v", v.Ident, s)
		}
	}
}

// files lists the small files.
func (w *world) files() []string {
	w.t.Helper()
	names, err := w.fs.List(hotDir)
	require.NoError(w.t, err)
	return names
}

// change edits a table's current metadata file, as another engine's commit would.
func (w *world) change(t lake.Ident, edit func(meta map[string]any)) {
	w.t.Helper()
	from, err := w.rows.Location(w.t.Context(), t)
	require.NoError(w.t, err)
	f, err := w.fs.Open(strings.TrimPrefix(from, "file://"))
	require.NoError(w.t, err)
	meta := map[string]any{}
	dec := json.NewDecoder(f)
	dec.UseNumber()
	require.NoError(w.t, dec.Decode(&meta))
	require.NoError(w.t, f.Close())
	edit(meta)
	to := strings.TrimSuffix(from, ".metadata.json") + "-x.metadata.json"
	text, err := json.Marshal(meta)
	require.NoError(w.t, err)
	out, err := w.lake.CreateFile(strings.TrimPrefix(to, "file://"))
	require.NoError(w.t, err)
	_, err = out.Write(text)
	require.NoError(w.t, err)
	require.NoError(w.t, out.Close())
	require.NoError(w.t, w.rows.Swap(w.t.Context(), t, from, "file://"+out.Path()))
}

// columns edits the current schema's columns.
func (w *world) columns(t lake.Ident, edit func(fields []any) []any) {
	w.t.Helper()
	w.change(t, func(meta map[string]any) {
		for _, s := range meta["schemas"].([]any) {
			if s := s.(map[string]any); s["schema-id"] == meta["current-schema-id"] {
				next := map[string]any{"type": "struct", "schema-id": len(meta["schemas"].([]any)) + 7, "fields": edit(slices.Clone(s["fields"].([]any)))}
				meta["schemas"] = append(meta["schemas"].([]any), next)
				meta["current-schema-id"] = next["schema-id"]
				return
			}
		}
		w.t.Fatal("no current schema")
	})
}

// failing is a disk that cannot be written to.
func (w *world) failing(ops vfs.Op, err error) {
	w.fs.Inject(vfs.Rule{Ops: ops, Pattern: "[0-9]*.parquet", Err: err})
}
