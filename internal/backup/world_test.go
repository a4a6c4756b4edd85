package backup_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"naru/internal/backup"
	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/pipeline"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink/table"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/verify"
	"naru/internal/vfs"
)

const (
	home = "/srv/f"
	away = "/backups/b"
)

var (
	quiet  = slog.New(slog.NewTextHandler(io.Discard, nil))
	layout = backup.Layout{Data: "data", Log: "data/log", Root: "data/root", Plain: []string{"naru.yaml", "models"}}
)

// node is a folder at work: log, lake and pipelines, without the doors.
type node struct {
	t    *testing.T
	fs   vfs.FS
	dir  string
	rows *iceberg.MemoryCatalog
	log  *seglog.Log
	lake *iceberg.Lake
	sent int64
}

func smallLog() seglog.Config {
	c := seglog.DefaultConfig()
	c.Segment, c.RetainBytes, c.Reserve, c.Recycle = 16*quantity.KiB, 0, 0, 32*quantity.KiB
	c.Promise = quantity.Duration(2 * time.Millisecond)
	return c
}

func start(t *testing.T, fsys vfs.FS, dir string, rows *iceberg.MemoryCatalog) *node {
	t.Helper()
	n := &node{t: t, fs: fsys, dir: dir, rows: rows}
	n.must(fsys.MkdirAll(dir + "/data/log"))
	var err error
	n.log, err = seglog.Open(fsys, dir+"/data/log", smallLog(), quiet)
	n.must(err)
	n.lake, err = iceberg.Open(t.Context(), iceberg.DefaultConfig(), fsys, dir+"/data", quiet, iceberg.WithCatalog(rows))
	n.must(err)
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) stop() {
	n.t.Helper()
	n.must(n.lake.Close())
	n.must(n.log.Close())
}

// send appends events of two types, one batch each; now and then the contract of one
// has just changed, and asks for a table.
func (n *node) send(batches int) {
	n.t.Helper()
	for range batches {
		n.sent++
		var b recordbatch.Builder
		b.Reset(time.Now())
		typ := fmt.Sprint("t", n.sent%2)
		var judged event.Contract
		if n.sent%5 == 0 {
			judged = event.Contract{ID: []byte("c"), Version: []byte("1"), Hash: fmt.Append(nil, n.sent)}
			n.must(n.lake.KeepShapes(map[string]*lake.Shape{string(judged.Hash): {Table: "asked"}}))
		}
		for i := range 3 {
			b.AppendEvent(&event.Event{ID: []byte("i"), Contract: judged, Source: []byte("/s"), Type: []byte(typ), Data: fmt.Appendf(nil, `{"n":%d,"i":%d,"pad":"%0100d"}`, n.sent, i, n.sent)})
		}
		_, err := n.log.Append(context.Background(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: 3})
		n.must(err)
	}
}

// load runs the pipelines until everything is committed.
func (n *node) load() {
	n.t.Helper()
	cfg := pipeline.DefaultConfig()
	cfg.CommitInterval = quantity.Duration(5 * time.Millisecond)
	set := pipeline.NewSet(cfg, n.log, table.New(n.lake, n.log, quiet).Open, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := set.Run(ctx); err != nil {
			n.t.Error(err)
		}
	})
	for !n.written() && !n.t.Failed() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	running.Wait()
}

// written tells whether the pipeline has counted every event once.
func (n *node) written() bool {
	st, err := n.log.Stat(context.Background(), "events")
	n.must(err)
	p, err := n.log.Progress(context.Background(), stream.DefaultReader+"events")
	n.must(err)
	if p.Counts.Written > st.Acknowledged {
		n.t.Fatalf("%d written of %d", p.Counts.Written, st.Acknowledged)
	}
	return p.Counts.Written == st.Acknowledged
}

// proved verifies that every event of the log is in its table once, and returns
// how many there are.
func (n *node) proved() int64 {
	n.t.Helper()
	r, err := verify.Run(n.t.Context(), verify.Folder{FS: n.fs, LogDir: n.dir + "/data/log", Lake: n.lake}, verify.Options{Deep: true, Beside: true})
	n.must(err)
	for _, d := range r.Differences {
		n.t.Errorf("%+v", d)
	}
	if len(r.Explained) > 0 {
		n.t.Errorf("explained: %+v", r.Explained)
	}
	if len(r.Streams) == 0 {
		n.t.Fatal("no events")
	}
	if got := r.Streams[0]; got.NotYetWritten != 0 || got.Written != got.Acknowledged {
		n.t.Errorf("%+v", got)
	}
	return r.Streams[0].Acknowledged
}

// options of a backup of the node. The lake is opened once more, as another
// process would.
func (n *node) options(fsys vfs.FS, root string) backup.Options {
	n.t.Helper()
	lake, err := iceberg.Open(n.t.Context(), iceberg.DefaultConfig(), fsys, n.dir+"/data", quiet, iceberg.ReadOnly(), iceberg.WithCatalog(n.rows))
	n.must(err)
	return backup.Options{FS: fsys, Folder: n.dir, Layout: layout, Lake: lake, To: away, Root: root, Record: []byte("record\n"), Logger: quiet,
		Catalog: func(path string) iceberg.Catalog { return n.rows.Copied(path) }}
}

// restored starts a copy at the place it was made for, where nothing else is.
func restored(t *testing.T, disk *vfs.Memory, root string, rows *iceberg.MemoryCatalog) *node {
	t.Helper()
	if err := disk.MkdirAll(path.Dir(root)); err != nil {
		t.Fatal(err)
	}
	if err := disk.Rename(away, root); err != nil {
		t.Fatal(err)
	}
	return start(t, disk, root, rows)
}

// tableOf is the table that a batch of send goes to.
func tableOf(batch int64) string {
	if batch%5 == 0 {
		return "asked"
	}
	return fmt.Sprint("t", batch%2)
}

// lags fails when a watermark in the log is ahead of a table by an event of that
// table: without one a table does not commit.
func (n *node) lags() {
	n.t.Helper()
	log, err := seglog.Peek(n.fs, n.dir+"/data/log")
	n.must(err)
	tables, err := n.lake.List(n.t.Context())
	n.must(err)
	if len(log.Readers) == 0 || len(tables) == 0 {
		n.t.Fatalf("%d readers, %d tables", len(log.Readers), len(tables))
	}
	for name, at := range log.Readers {
		for _, id := range tables {
			if id.Namespace != at.Stream {
				continue
			}
			st, err := n.lake.Table(id).Load(n.t.Context())
			n.must(err)
			for inc, parts := range at.Positions {
				for partition, off := range parts {
					has, _ := st.Positions.Get(inc, partition)
					for at := has; at < off; at++ {
						if tableOf(at/3+1) == id.Name { // 3 events each, from batch 1 on
							n.t.Errorf("the watermark of %s is at %d of partition %d, %s has events up to %d", name, off, partition, id, has)
							break
						}
					}
				}
			}
		}
	}
}

// copied is the copy's catalog.
func (n *node) copied() *iceberg.MemoryCatalog {
	n.t.Helper()
	rows := n.rows.Copied(away + backup.PartialSuffix + "/data/catalog.db")
	if rows == nil {
		n.t.Fatal("no copy of the catalog")
	}
	return rows
}

func newDisk(t *testing.T) *vfs.Memory {
	t.Helper()
	disk := vfs.NewMemory()
	for _, dir := range []string{home + "/models/deep", path.Dir(away)} {
		if err := disk.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"naru.yaml": "log: {}\n", "models/deep/a.sql": "select 1\n", "notes.txt": "mine\n"} {
		f, err := disk.Create(home + "/" + name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return disk
}

// tree reads all files below a folder.
func tree(t *testing.T, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(string)
	walk = func(p string) {
		names, err := fsys.List(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			child := p + "/" + name
			info, err := fsys.Stat(child)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(child)
				continue
			}
			f, err := fsys.Open(child)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			out[strings.TrimPrefix(child, dir)] = string(b)
		}
	}
	walk(dir)
	return out
}

// tripwire calls fn before the first file below a folder is made.
type tripwire struct {
	vfs.FS
	below string
	fn    func()
}

func (w *tripwire) Create(p string) (vfs.File, error) {
	if strings.HasPrefix(p, w.below) && w.fn != nil {
		fn := w.fn
		w.fn = nil
		fn()
	}
	return w.FS.Create(p)
}
