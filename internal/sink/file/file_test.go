package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

type ctx = context.Context

var (
	life        = sinktest.Lives[0]
	errNotThere = fs.ErrNotExist
)

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"ndjson":  nil,
		"path":    func(s *Settings) { s.Path, s.OpenFiles = "id={_id}/one", 2 },
		"small":   func(s *Settings) { s.Roll.Bytes, s.Compress = 200, "gzip" },
		"at once": func(s *Settings) { s.Roll.Bytes = 1 },
		"csv":     func(s *Settings) { s.Format, s.Compress = "csv", "zstd" },
		"tsv":     func(s *Settings) { s.Format, s.Path = "tsv", "{_id}" },
		"avro":    func(s *Settings) { s.Format, s.Compress = "avro", "zstd" },
		"parquet": func(s *Settings) { s.Format, s.Path = "parquet", "{_id}" },
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				w := newWorld(change)
				return sinktest.Harness{
					Exact: true, Rewinds: sinktest.Anywhere,
					Tabular: w.cfg.options().Tabular(),
					Open:    func(t *testing.T) sink.Sink { return w.open(t) },
					IDs:     func(t *testing.T) []string { return w.ids(t) },
				}
			})
		})
	}
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/file.md") }

func numbers(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("a-", i))
	}
	slices.Sort(ids)
	return ids
}

func (w *world) requireIDs(t *testing.T, want []string, why ...any) {
	t.Helper()
	got := w.ids(t)
	slices.Sort(got)
	require.Equal(t, want, got, why...)
}

func TestNames(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Format, s.Path, s.Prefix = "csv", "{yes}", "edits" })
	s := w.open(t)
	b, _ := sinktest.Rows(life, 2, 5, 6, "a")
	rows := b.Rows.Whole()
	rows[1].Data = []byte(`{"yes":false}`) // the second row of one event in a file of its own
	b.Rows = event.RowsOf(rows...)
	require.NoError(t, s.Write(t.Context(), b))
	_, temps := w.files(t)
	require.Len(t, temps, 3)
	_, err := s.Drain(t.Context())
	require.NoError(t, err)
	files, temps := w.files(t)
	require.Empty(t, temps)
	require.Equal(t, []string{"/p/out/__null__/edits-a1000000-2-00000000000000000008.csv", "/p/out/false/edits-a1000000-2-00000000000000000006-1.csv", "/p/out/true/edits-a1000000-2-00000000000000000006.csv"},
		[]string{files[0], files[1], files[2]})
	require.NoError(t, s.Close())
}

// When files appear, and what the positions say until then.
func TestRoll(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Path, s.Roll.Bytes = "{_type}", 2400 })
	s := w.open(t)
	at := int64(0)
	write := func(n int, typ string) {
		specs := make([]sinktest.Spec, n)
		for i := range specs {
			specs[i] = sinktest.Spec{ID: fmt.Sprint("a-", at+int64(i)), Type: typ, Data: `{"a":"` + strings.Repeat("x", 100) + `"}`}
		}
		b := sinktest.Batch(life, 0, at, specs...)
		require.NoError(t, s.Write(t.Context(), b))
		at = b.Next
	}
	commit := func(want int64) {
		t.Helper()
		done, err := s.Commit(t.Context())
		require.NoError(t, err)
		off, _ := done.Get(life, 0)
		require.Equal(t, want, off)
	}
	write(3, "x")
	require.Equal(t, int64(1), s.PendingBytes())
	commit(0)
	w.now = w.now.Add(5*time.Minute - 1)
	commit(0)
	w.now = w.now.Add(1)
	require.Greater(t, s.PendingBytes(), int64(1)<<40)
	commit(3)
	require.Zero(t, s.PendingBytes())

	write(5, "y")
	write(5, "z")
	write(12, "x") // one is full, two are not
	commit(3)
	write(12, "x")
	commit(3)
	write(12, "x") // three are, three are not
	commit(49)
	files, _ := w.files(t)
	require.Len(t, files, 1+6)
	w.requireIDs(t, numbers(49))
	require.NoError(t, s.Close())
}

// Power is cut at every sync; afterwards everything is read again from some place
// that the watermark may have.
func TestPowerCutAtEverySync(t *testing.T) {
	load := func(t *testing.T, w *world, from int64) error {
		s, err := w.cfg.Open(t.Context(), w.env())
		if err != nil {
			return err
		}
		for at := from; at < 36 && err == nil; at += 3 {
			specs := sinktest.Events("a", 36)[at : at+3]
			for i := range specs {
				specs[i].Type = fmt.Sprint("t", i)
			}
			if err = s.Write(t.Context(), sinktest.Batch(life, 0, at, specs...)); err == nil && at%2 == 0 {
				_, err = s.Commit(t.Context())
			}
			w.now = w.now.Add(time.Hour)
		}
		if err == nil {
			_, err = s.(*Sink).Drain(t.Context())
		}
		return errors.Join(err, s.Close())
	}
	w := newWorld(func(s *Settings) { s.Path = "type={_type}" })
	var cuts []*vfs.Memory
	w.fs.OnSync(func(n int, _ vfs.Op, _ string) {
		for _, seed := range []uint64{0, 1, uint64(n) + 2, uint64(n) + 1000} {
			cuts = append(cuts, w.fs.CrashClone(seed))
		}
		cuts = append(cuts, w.fs.KillClone())
	})
	require.NoError(t, load(t, w, 0))
	w.fs.OnSync(nil)
	w.requireIDs(t, numbers(36))
	require.Greater(t, len(cuts), 5*40)
	for i, c := range cuts {
		after := *w
		after.fs = c
		after.cfg.now = func() time.Time { return after.now }
		s := after.open(t)
		at, err := s.Resume(t.Context(), "events")
		require.NoError(t, err)
		off, _ := at.Get(life, 0)
		after.requireIDs(t, numbers(int(off)), "cut %d: what has appeared is what the state says", i)
		_, temps := after.files(t)
		require.Empty(t, temps, "cut %d", i)
		require.NoError(t, s.Close())
		require.NoError(t, load(t, &after, min(off, []int64{0, 9, 18, 36}[i%4])), "cut %d", i)
		after.requireIDs(t, numbers(36), "cut %d", i)
	}
}

// Whatever fails and whenever it is killed, however rows are cut into batches and
// files: every row is in one file.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { history(t, seed) })
	}
}

func history(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	const total = 150
	specs := sinktest.Events("a", total)
	for i := range specs {
		specs[i].Type = fmt.Sprint("t", rng.IntN(5))
	}
	w := newWorld(func(s *Settings) {
		s.Format = []string{"ndjson", "csv", "tsv", "avro", "parquet"}[rng.IntN(5)]
		s.Compress = []string{"none", "gzip", "zstd"}[rng.IntN(3)]
		s.Path = []string{"", "t={_type}", "{_type}/{_offset}"}[rng.IntN(3)]
		s.Roll.Bytes, s.OpenFiles = quantity.Bytes(1+rng.IntN(3000)), 1+rng.IntN(5)
	})
	mark := int64(0)
	for session := 0; mark < total; session++ {
		require.Less(t, session, 300, "it does not come to an end")
		calm := session > 60
		if !calm && rng.IntN(5) == 0 {
			w.fs.Inject(vfs.Rule{Ops: vfs.OpAny &^ vfs.OpClose, Skip: rng.IntN(20), Times: 1})
		}
		opened, err := w.cfg.Open(t.Context(), w.env())
		if err != nil {
			w.fs.Heal()
			continue
		}
		s := asRows{opened.(*Sink)}
		at := mark
		if resume, err := s.Resume(t.Context(), "events"); err == nil {
			if off, ok := resume.Get(life, 0); ok && rng.IntN(3) > 0 {
				at = max(mark, off)
			}
		}
		for mark < total {
			if !calm && rng.IntN(10) == 0 {
				w.fs.Inject(vfs.Rule{Ops: vfs.OpAny &^ vfs.OpClose, Skip: rng.IntN(30), Times: 1, Err: []error{vfs.ErrInjected, syscall.ENOSPC}[rng.IntN(2)]})
			}
			if n := min(int64(1+rng.IntN(30)), total-at); n > 0 {
				b := sinktest.Batch(life, 0, at, specs[at:at+n]...)
				if s.Write(t.Context(), b) != nil {
					break
				}
				at = b.Next
			}
			w.now = w.now.Add(time.Duration(rng.IntN(200)) * time.Second)
			if !calm && rng.IntN(6) == 0 {
				w.fs.Inject(vfs.Rule{Ops: vfs.OpSync | vfs.OpSyncDir | vfs.OpRename | vfs.OpWrite, Skip: rng.IntN(15), Times: 1})
			}
			var done event.Positions
			if at == total || rng.IntN(6) == 0 {
				done, err = s.Drain(t.Context())
			} else {
				done, err = s.Commit(t.Context())
			}
			if err != nil {
				break
			}
			if off, ok := done.Get(life, 0); ok && rng.IntN(4) > 0 { // or the watermark is lost
				mark = max(mark, off)
			}
			if !calm && rng.IntN(5) == 0 {
				break
			}
		}
		w.fs.Heal()
		switch rng.IntN(3) {
		case 0:
			w.fs = w.fs.CrashClone(rng.Uint64())
		case 1:
			w.fs = w.fs.KillClone()
		default:
			require.NoError(t, s.Close())
		}
	}
	s := w.open(t)
	_, temps := w.files(t)
	require.Empty(t, temps)
	require.NoError(t, s.Close())
	want := numbers(total)
	w.requireIDs(t, want)
}

func TestState(t *testing.T) {
	w := newWorld(nil)
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())

	name := "/p/data/sinks/p-file/files.json"
	text := string(w.read(t, name))
	put := func(text string) {
		f, err := w.fs.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for _, c := range []struct{ from, to, err, hint string }{
		{`"seq":1`, `"seq":2`, "corrupt " + name + ": checksum", "restore it from a backup"},
		{`"version":1`, `"version":2`, "version 2, this naru knows 1", "start the naru that has written it"},
		{`{"version"`, `{version`, "corrupt " + name + ": not JSON", "restore it from a backup"},
	} {
		require.Contains(t, text, c.from)
		put(strings.Replace(text, c.from, c.to, 1))
		_, err := w.cfg.Open(t.Context(), w.env())
		require.ErrorContains(t, err, c.err)
		require.Contains(t, fault.HintOf(err), c.hint)
	}
	put(text)
	env := w.env()
	env.Stream = "others"
	_, err = w.cfg.Open(t.Context(), env)
	require.ErrorContains(t, err, "it is of the stream events, the pipeline reads others")
	require.Contains(t, fault.HintOf(err), "another name")

	// The state is lost, and rows come again: nothing is overwritten.
	require.NoError(t, w.fs.Remove(name))
	s = w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("b", 3)...)))
	_, err = s.Drain(t.Context())
	require.ErrorContains(t, err, "it is there already")
	require.Contains(t, fault.HintOf(err), "lost its state")
	require.NoError(t, s.Close())
	w.requireIDs(t, numbers(3))
}

// The disk of the folder is not there at a start that has to publish.
func TestUnmounted(t *testing.T) {
	w := newWorld(nil)
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	w.fs.Inject(vfs.Rule{Ops: vfs.OpRename, Pattern: ".*"})
	_, err := s.Drain(t.Context())
	require.ErrorIs(t, err, vfs.ErrInjected)
	require.NoError(t, s.Close())
	w.fs.Heal()
	require.NoError(t, w.fs.Rename("/p/out", "/p/elsewhere"))
	_, err = w.cfg.Open(t.Context(), w.env())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Contains(t, fault.HintOf(err), "is its disk mounted?")
	require.NoError(t, w.fs.Rename("/p/elsewhere", "/p/out"))
	require.NoError(t, w.open(t).Close())
	w.requireIDs(t, numbers(3))
}

// The state was replaced, and the sync of its folder has failed: it is read by the
// next start, which publishes by it, and must be on disk by then.
func TestStateInMemoryAlone(t *testing.T) {
	w := newWorld(nil)
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	w.fs.Inject(vfs.Rule{Ops: vfs.OpSyncDir, Pattern: "p-file", Skip: 1}) // that of the list of files
	_, err := s.Drain(t.Context())
	require.ErrorIs(t, err, vfs.ErrInjected)
	require.NoError(t, s.Close())
	w.fs.Heal()
	var cuts []*vfs.Memory
	w.fs.OnSync(func(int, vfs.Op, string) { cuts = append(cuts, w.fs.CrashClone(0)) })
	require.NoError(t, w.open(t).Close())
	w.fs.OnSync(nil)
	w.requireIDs(t, numbers(3))
	for i, c := range append(cuts, w.fs.CrashClone(0)) {
		w.fs = c
		s = w.open(t)
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 4)...)))
		_, err = s.Drain(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Close())
		w.requireIDs(t, numbers(4), "cut %d", i)
	}
}

// Somebody cleans up what is being written.
func TestRemovedWhileWritten(t *testing.T) {
	w := newWorld(nil)
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, temps := w.files(t)
	require.NoError(t, w.fs.Remove(temps[0]))
	_, err := s.Drain(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Close())
	s = w.open(t)
	at, err := s.Resume(t.Context(), "events")
	require.NoError(t, err)
	require.Nil(t, at)
	require.NoError(t, s.Close())
}

// Consumers take files away, folders too: a start does not miss them.
func TestFilesTaken(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Path = "{_type}" })
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, vfs.RemoveAll(w.fs, "/p/out/page_view"))
	s = w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 5)...)))
	_, err = s.Drain(t.Context())
	require.NoError(t, err)
	w.requireIDs(t, []string{"a-3", "a-4"})
	require.NoError(t, s.Close())
}

// Readers remove the whole folder: what has appeared is theirs.
func TestFolderTaken(t *testing.T) {
	w := newWorld(nil)
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, vfs.RemoveAll(w.fs, "/p/out"))
	require.NoError(t, w.open(t).Close())
}

// A copy of the project, made while the original was publishing, leaves the
// original's files alone, also where both write into one folder.
func TestCopy(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Dir = "/shared" })
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	env := w.env()
	env.Dir, env.State = "/copy", "/copy/data/sinks/p-file"
	require.NoError(t, w.fs.MkdirAll(env.State))
	f, err := w.fs.Create(env.State + "/files.json")
	require.NoError(t, err)
	_, err = f.Write(w.read(t, "/p/data/sinks/p-file/files.json"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	other, err := w.cfg.Open(t.Context(), env)
	require.NoError(t, err)
	require.NoError(t, other.Close())
	require.NotEqual(t, s.state.ID, other.(*Sink).state.ID)
	_, err = s.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	names, err := w.fs.List("/shared")
	require.NoError(t, err)
	require.Equal(t, []string{"part-a1000000-0-00000000000000000000.ndjson"}, names)
}

// Folder or template change while something is unfinished in the old ones.
func TestOtherFolder(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Path = "{_type}" })
	s := w.open(t)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	w.fs = w.fs.KillClone()
	w.cfg.Dir, w.cfg.Path = "out/other", ""
	s = w.open(t)
	_, temps := w.files(t)
	require.Empty(t, temps)
	require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, 0, sinktest.Events("a", 3)...)))
	_, err := s.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	w.requireIDs(t, numbers(3))
}

func TestMemory(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Format, s.Memory, s.Path = "parquet", quantity.MiB, "{_type}" })
	s := asRows{w.open(t)}
	var specs []sinktest.Spec
	for i := range 4000 {
		specs = append(specs, sinktest.Spec{ID: strings.Repeat("x", 1000), Type: fmt.Sprint("t", i%20), Data: "{}"})
	}
	for at := 0; at < len(specs); at += 500 {
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, int64(at), specs[at:at+500]...)))
		held := int64(0)
		for _, f := range s.open {
			held += f.w.Held()
		}
		require.LessOrEqual(t, held, int64(quantity.MiB))
	}
	require.NoError(t, s.Close())
}

func TestMistakes(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"dir: must be a folder":    func(s *Settings) { s.Dir = "" },
		`format: "xml" is none of`: func(s *Settings) { s.Format = "xml" },
		`compress: "xz" is none`:   func(s *Settings) { s.Compress = "xz" },
		"path: \"..\": a folder":   func(s *Settings) { s.Path = "a/../b" },
		"prefix: \".x\": letters":  func(s *Settings) { s.Prefix = ".x" },
		"roll.bytes: must be":      func(s *Settings) { s.Roll.Bytes = 0 },
		"roll.every: must be":      func(s *Settings) { s.Roll.Every = 0 },
		"open_files: must be":      func(s *Settings) { s.OpenFiles = 0 },
		"memory: must be":          func(s *Settings) { s.Memory = 1 },
	} {
		w := newWorld(change)
		require.ErrorContains(t, w.cfg.Validate(), want)
	}
	w := newWorld(func(s *Settings) { s.Path = "{gone}" })
	s := w.open(t)
	b, _ := sinktest.Rows(life, 0, 0, 3, "a")
	err := s.Write(t.Context(), b)
	require.ErrorContains(t, err, "path: there is no column gone; there are _id, _time, n")
	require.Contains(t, fault.HintOf(err), "correct path of the sink")
	require.NoError(t, s.Close())
}
