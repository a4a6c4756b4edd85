package file

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// fill publishes events in threes, PREFIX-0, PREFIX-1, ….
func (w *world) fill(t *testing.T, prefix string, from, to int64) {
	t.Helper()
	s := w.open(t)
	for at := from; at < to; at += 3 {
		specs := sinktest.Events(prefix, int(at)+3)[at:]
		for i := range specs {
			specs[i].Type = fmt.Sprint("t", i)
		}
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, at, specs...)))
		_, err := s.Drain(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
}

func (w *world) rewind(t *testing.T, from int64, again bool) error {
	s, err := w.cfg.Open(t.Context(), w.env())
	if err != nil {
		return err
	}
	err = s.(*Sink).Rewind(t.Context(), to(from), again)
	return errors.Join(err, s.Close())
}

func (w *world) rewindable(t *testing.T, from int64) (int64, error) {
	s := w.open(t)
	at, err := s.Rewindable(t.Context(), to(from))
	require.NoError(t, s.Close())
	off, _ := at.Get(life, 0)
	return off, err
}

func to(off int64) event.Positions { return event.Positions{life: {0: off}} }

func (w *world) at(t *testing.T) int64 {
	s := w.open(t)
	at, err := s.Resume(t.Context(), "events")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	off, _ := at.Get(life, 0)
	return off
}

// Power is cut at every sync of a rewind: what is left of it is done by the next start,
// and it can be asked for again.
func TestPowerCutInARewind(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Path = "type={_type}" })
	w.fill(t, "a", 0, 12)
	files, _ := w.files(t)
	require.Len(t, files, 12)
	var cuts []*vfs.Memory
	w.fs.OnSync(func(n int, _ vfs.Op, _ string) {
		for _, seed := range []uint64{0, 1, uint64(n) + 2} {
			cuts = append(cuts, w.fs.CrashClone(seed))
		}
		cuts = append(cuts, w.fs.KillClone())
	})
	require.NoError(t, w.rewind(t, 3, false))
	w.fs.OnSync(nil)
	w.requireIDs(t, numbers(3))
	require.Greater(t, len(cuts), 4*10)
	begun := 0
	for i, c := range cuts {
		after := *w
		after.fs = c
		after.cfg.now = func() time.Time { return after.now }
		off := after.at(t)
		if off == 3 {
			begun++
			after.requireIDs(t, numbers(3), "cut %d: begun is done", i)
		} else {
			require.EqualValues(t, 12, off, "cut %d", i)
			after.requireIDs(t, numbers(12), "cut %d", i)
		}
		require.NoError(t, after.rewind(t, 3, false), "cut %d", i)
		after.requireIDs(t, numbers(3), "cut %d", i)
		after.fill(t, "a", 3, 9)
		after.requireIDs(t, numbers(9), "cut %d", i)
	}
	require.Greater(t, begun, 4)
	require.Less(t, begun, len(cuts)-2)
}

// Power is cut at every sync while files appear: the list has all of them that count.
func TestPowerCutBeforeARewind(t *testing.T) {
	w := newWorld(func(s *Settings) { s.Path = "type={_type}" })
	var cuts []*vfs.Memory
	w.fs.OnSync(func(n int, _ vfs.Op, _ string) {
		for _, seed := range []uint64{0, 1, uint64(n) + 2} {
			cuts = append(cuts, w.fs.CrashClone(seed))
		}
		cuts = append(cuts, w.fs.KillClone())
	})
	w.fill(t, "a", 0, 9)
	w.fs.OnSync(nil)
	for i, c := range cuts {
		after := *w
		after.fs = c
		after.cfg.now = func() time.Time { return after.now }
		off := after.at(t)
		for from := max(off-3, 0); from >= 0; from -= 3 {
			_, err := after.rewindable(t, from)
			require.NoError(t, err, "cut %d", i)
			require.NoError(t, after.rewind(t, from, false), "cut %d", i)
			after.requireIDs(t, numbers(int(from)), "cut %d", i)
		}
		after.fill(t, "a", 0, 6)
		after.requireIDs(t, numbers(6), "cut %d", i)
	}
}

// Whatever fails and whenever it is killed, also in rewinds: the files have the rows of
// the last run of each place, once.
func TestRewindsAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { rewinds(t, seed) })
	}
}

func rewinds(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	w := newWorld(func(s *Settings) {
		s.Path, s.Roll.Bytes = []string{"", "t={_type}"}[rng.IntN(2)], quantity.Bytes(1+rng.IntN(1500))
	})
	const total = 90
	run, calm := 0, false
	want := map[int64]int{} // by which run
	var pending *int64      // a rewind that was begun
	upset := func(n int) {
		if !calm && rng.IntN(n) == 0 {
			w.fs.Inject(vfs.Rule{Ops: vfs.OpAny &^ vfs.OpClose, Skip: rng.IntN(25), Times: 1})
		}
	}
	write := func() error {
		opened, err := w.cfg.Open(t.Context(), w.env())
		if err != nil {
			return err
		}
		s := opened.(*Sink)
		if pending != nil { // as the pipeline does it before the sink runs again
			if err := s.Rewind(t.Context(), to(*pending), false); err != nil {
				return errors.Join(err, s.Close())
			}
			pending = nil
			return s.Close()
		}
		from, _ := s.state.Positions.Get(life, 0)
		for at := from; at < total && rng.IntN(12) > 0; {
			n := min(int64(1+rng.IntN(9)), total-at)
			var specs []sinktest.Spec
			for off := at; off < at+n; off++ {
				by, some := want[off]
				if !some {
					by, want[off] = run, run
				}
				specs = append(specs, sinktest.Spec{ID: fmt.Sprintf("%d-%d", off, by), Type: fmt.Sprint("t", off%4), Data: "{}"})
			}
			b := sinktest.Batch(life, 0, at, specs...)
			if err = s.Write(t.Context(), b); err != nil {
				break
			}
			at = b.Next
			w.now = w.now.Add(time.Duration(rng.IntN(200)) * time.Second)
			if _, err = s.Commit(t.Context()); err != nil {
				break
			}
			if rng.IntN(3) == 0 || at == total {
				if _, err = s.Drain(t.Context()); err != nil {
					break
				}
			}
		}
		if rng.IntN(3) == 0 { // killed
			w.fs = w.fs.CrashClone(rng.Uint64())
			return err
		}
		return errors.Join(err, s.Close())
	}
	for session := range 120 {
		calm = session > 60
		upset(3)
		_ = write()
		w.fs.Heal()
		if rng.IntN(3) == 0 {
			w.fs = w.fs.KillClone()
		}
		if session < 60 && pending == nil && rng.IntN(4) == 0 {
			if s, err := w.cfg.Open(t.Context(), w.env()); err == nil {
				place, err := s.(*Sink).Rewindable(t.Context(), to(rng.Int64N(total)))
				require.NoError(t, err)
				require.NoError(t, s.Close())
				off, _ := place.Get(life, 0)
				pending = &off
				run++
				for at := range want {
					if at >= off {
						delete(want, at)
					}
				}
			}
			w.fs.Heal()
		}
	}
	var ids []string
	for off, by := range want {
		ids = append(ids, fmt.Sprintf("%d-%d", off, by))
	}
	slices.Sort(ids)
	require.Len(t, ids, total)
	w.requireIDs(t, ids)
	t.Logf("%d rewinds", run)
}

// It goes back to where a publication began, and the files that come then have names
// that none has had.
func TestRewindNames(t *testing.T) {
	w := newWorld(nil)
	w.fill(t, "a", 0, 9)
	old, _ := w.files(t)
	off, err := w.rewindable(t, 5)
	require.NoError(t, err)
	require.EqualValues(t, 3, off)
	require.NoError(t, w.rewind(t, 3, false))
	w.requireIDs(t, numbers(3))
	require.NoError(t, w.fs.Remove(old[0])) // readers may take what they like
	w.fill(t, "b", 3, 9)
	files, _ := w.files(t)
	require.Equal(t, []string{"/p/out/part-a1000000-0-00000000000000000003-r1.ndjson", "/p/out/part-a1000000-0-00000000000000000006-r1.ndjson"}, files)
	require.NoError(t, w.rewind(t, 0, true))
	w.fill(t, "c", 0, 3)
	w.requireIDs(t, []string{"b-3", "b-4", "b-5", "b-6", "b-7", "b-8", "c-0", "c-1", "c-2"}, "beside what is there")
	_, err = w.rewindable(t, 0)
	require.NoError(t, err, "what came since can go")
}

func TestRewindGoesAsFarAsTheList(t *testing.T) {
	stays := func(w *world, from int64, why string) {
		t.Helper()
		_, err := w.rewindable(t, from)
		require.ErrorIs(t, err, sink.ErrStays)
		require.ErrorContains(t, err, why)
	}
	list := "/p/data/sinks/p-file/" + historyName
	w := newWorld(nil)
	w.fill(t, "a", 0, 6)
	require.NoError(t, w.fs.Remove(list)) // it was written before there were lists
	w.fill(t, "a", 6, 12)
	_, err := w.rewindable(t, 6)
	require.NoError(t, err)
	stays(w, 5, "does not go back as far")
	require.Error(t, w.rewind(t, 5, false))
	w.requireIDs(t, numbers(12))

	// A record that was damaged hides those before it, and one that was cut off by a
	// crash none.
	text := w.read(t, list)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n\n")
	require.Len(t, lines, 2)
	put := func(text string) {
		f, err := w.fs.Create(list)
		require.NoError(t, err)
		_, err = f.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	put("\n" + lines[0] + "\n\n" + strings.Replace(lines[1], `"seq":4`, `"seq":5`, 1) + "\n")
	stays(w, 6, "does not go back as far")
	put("\n" + lines[0] + "\n\n" + lines[1] + "\n\n" + lines[1][:40])
	w.fill(t, "a", 12, 15)
	off, err := w.rewindable(t, 7)
	require.NoError(t, err)
	require.EqualValues(t, 6, off)

	// A list that is full forgets the oldest.
	w = newWorld(func(s *Settings) { s.History = quantity.MiB })
	w.cfg.History = 2000 // below what may be set
	s, err := Open(t.Context(), w.cfg.Files, w.env(), Target{Dir: "/p/out", Place: folder{w.fs, "/p/out", "out"}})
	require.NoError(t, err)
	for at := int64(0); at < 60; at += 3 {
		require.NoError(t, s.Write(t.Context(), sinktest.Batch(life, 0, at, sinktest.Events("a", int(at)+3)[at:]...)))
		_, err := s.Drain(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, len(w.read(t, list)), 2000)
	}
	require.NoError(t, s.Close())
	w.cfg.History = quantity.MiB
	stays(w, 0, "does not go back as far")
	require.NoError(t, w.rewind(t, 55, false))
	w.requireIDs(t, numbers(54))
}

// A state that is gone, or was removed because it is damaged, leaves a list whose numbers
// come again: a rewind does not go by it.
func TestRewindWithoutTheFormerState(t *testing.T) {
	w := newWorld(nil)
	w.fill(t, "a", 0, 12)
	require.NoError(t, w.fs.Remove("/p/data/sinks/p-file/"+stateName))
	w.fill(t, "a", 12, 18)
	require.NoError(t, w.rewind(t, 15, false))
	w.requireIDs(t, numbers(15))
	require.NoError(t, w.rewind(t, 3, false))
	w.requireIDs(t, numbers(12), "files that this state does not know stay")
}

// A sink that began behind the beginning of its stream goes back to there at most, unless
// it is asked to.
func TestRewindToWhereItBegan(t *testing.T) {
	w := newWorld(nil)
	w.fill(t, "a", 9, 15)
	for asked, want := range map[int64]int64{14: 12, 12: 12, 11: 9, 9: 9, 4: 4, 0: 0} {
		off, err := w.rewindable(t, asked)
		require.NoError(t, err)
		require.Equal(t, want, off, "asked for %d", asked)
	}
	require.NoError(t, w.rewind(t, 9, false))
	w.requireIDs(t, nil)
	w.fill(t, "a", 6, 12)
	for asked, want := range map[int64]int64{10: 9, 7: 6, 3: 3} {
		off, err := w.rewindable(t, asked)
		require.NoError(t, err)
		require.Equal(t, want, off, "asked for %d", asked)
	}
}

// The settings have changed, or this is another project's folder: files that this sink
// would not find, or that may be somebody else's, stay.
func TestRewindElsewhere(t *testing.T) {
	w := newWorld(nil)
	w.fill(t, "a", 0, 6)
	w.cfg.Dir = "other"
	w.fill(t, "a", 6, 12)
	_, err := w.rewindable(t, 6)
	require.NoError(t, err)
	_, err = w.rewindable(t, 3)
	require.ErrorIs(t, err, sink.ErrStays)
	require.ErrorContains(t, err, "files with rows from there on are in out, this sink now writes to other")

	// It was begun, and the settings change before it is done.
	w.fs.Inject(vfs.Rule{Ops: vfs.OpRemove, Pattern: "part-*"})
	require.ErrorIs(t, w.rewind(t, 6, false), vfs.ErrInjected)
	w.fs.Heal()
	w.cfg.Dir = "out"
	_, err = w.cfg.Open(t.Context(), w.env())
	require.ErrorContains(t, err, "they are in other, this sink now writes to out")
	require.Contains(t, fault.HintOf(err), "write to other again")
	w.cfg.Dir = "other"
	require.EqualValues(t, 6, w.at(t))
	names, err := w.fs.List("/p/other")
	require.NoError(t, err)
	require.Empty(t, names)

	// Its disk is not there.
	w.fill(t, "a", 6, 9)
	w.fs.Inject(vfs.Rule{Ops: vfs.OpRemove, Pattern: "part-*"})
	require.Error(t, w.rewind(t, 6, false))
	w.fs.Heal()
	require.NoError(t, w.fs.Rename("/p/other", "/p/elsewhere"))
	_, err = w.cfg.Open(t.Context(), w.env())
	require.Contains(t, fault.HintOf(err), "is its disk mounted?")
	require.NoError(t, w.fs.Rename("/p/elsewhere", "/p/other"))
	require.EqualValues(t, 6, w.at(t))

	// A copy of the project does not take the original's files away.
	w.cfg.Dir = "/p/other"
	w.fill(t, "a", 6, 9)
	env := w.env()
	env.Dir = "/copy"
	s, err := w.cfg.Open(t.Context(), env)
	require.NoError(t, err)
	_, err = s.(*Sink).Rewindable(t.Context(), to(6))
	require.ErrorIs(t, err, sink.ErrStays)
	require.ErrorContains(t, err, "does not go back as far")
	require.NoError(t, s.Close())
}
