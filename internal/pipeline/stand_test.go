package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/problem"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/sink"
	"naru/internal/stream"
	"naru/internal/stream/memory"
	"naru/internal/transform"
	"naru/internal/vfs"
)

// arithmetic is an engine whose steps are words: "drop N" leaves out events whose
// number is a multiple of N, "refuse N" refuses them, "twice N" makes two rows of
// them, and "as X" gives each row the mark X. A `where` is "of N", which lets multiples
// pass, or "breaks N", which cannot be computed on them and lets the others pass.
type arithmetic struct{ computed atomic.Int64 }

func (a *arithmetic) Check(_ context.Context, file string, steps []transform.Step, _ transform.Input) (wrong problem.List) {
	for _, s := range steps {
		if strings.HasPrefix(s.SQL, "wrong") {
			wrong = append(wrong, problem.Problem{File: file, Line: s.Line, Text: "this is wrong"})
		}
	}
	return wrong
}

func (a *arithmetic) Open(_ context.Context, steps []transform.Step, _ transform.Input) (transform.Transform, error) {
	return &sums{a, steps}, nil
}

type sums struct {
	*arithmetic
	steps []transform.Step
}

func (x *sums) Close() error { return nil }

func (x *sums) Apply(_ context.Context, in *event.Batch, take func(*event.Event) bool) (*transform.Applied, error) {
	out := *in
	out.Raw, out.Without, out.Rows = nil, nil, &event.Rows{}
	done := &transform.Applied{Batch: &out}
	var dec recordbatch.Decoder
	err := dec.EachIn(in, func(e *event.Event) error {
		if !take(e) {
			return nil
		}
		x.computed.Add(1)
		rows, mark, to, routes := 1, "", uint64(0), 0
		for i, s := range x.steps {
			expr, _ := strings.CutPrefix(strings.TrimSuffix(s.SQL, "\n)"), "SELECT * FROM input WHERE (")
			word, arg, _ := strings.Cut(expr, " ")
			n, _ := strconv.Atoi(arg)
			id, _ := strconv.Atoi(string(e.ID))
			hit := n > 0 && id%n == 0
			switch {
			case rows == 0 && s.To != "":
			case (word == "refuse" || word == "breaks") && hit:
				done.Refused = append(done.Refused, transform.Refused{Offset: e.Offset, Step: s.Label(i + 1), To: s.To, Detail: "a multiple"})
				return nil
			case word == "of" && hit, word == "breaks":
				to |= 1 << routes
			case word == "drop" && hit:
				rows = 0
			case word == "twice" && hit:
				rows *= 2
			case word == "as":
				mark = arg
			}
			if s.To != "" {
				routes++
			}
		}
		if rows == 0 {
			done.Filtered++
			return nil
		}
		done.Written++
		for i := range rows {
			row := clone(e)
			row.Row, row.To, row.ID = int32(i), to, fmt.Appendf(nil, "%s%s.%d", e.ID, mark, i)
			out.Rows.Add(row)
		}
		return nil
	})
	return done, err
}

// into is a kind of sink over stores of the test.
type into struct {
	Store string `yaml:"store"`

	stores map[string]*store
}

func (s *into) Validate() error { return nil }
func (s *into) Open(ctx context.Context, _ sink.Env) (sink.Sink, error) {
	puts.Lock()
	to := s.stores[s.Store]
	puts.Unlock()
	return to.open(ctx, "")
}

// mortal is a log that dies with its process.
type mortal struct {
	stream.Log
	dead atomic.Bool
	// die, if set, is asked before each Commit whether the process ends here.
	die atomic.Pointer[func(reader string) bool]
}

func (m *mortal) setDie(f func(reader string) bool) { m.die.Store(&f) }

// ends tells whether it is dead, or dies at this call.
func (m *mortal) ends(reader string) bool {
	if f := m.die.Load(); f != nil && (*f)(reader) {
		m.dead.Store(true)
	}
	return m.dead.Load()
}

// dyingFS renames nothing any more once the log's process is dead.
type dyingFS struct {
	vfs.FS
	of *mortal
}

func (d dyingFS) Rename(from, to string) error {
	if d.of.ends("rename") {
		return errDead
	}
	return d.FS.Rename(from, to)
}

var errDead = fmt.Errorf("%w: killed", stream.ErrClosed)

func (m *mortal) Commit(ctx context.Context, w []stream.Write, reader string, at stream.Progress) error {
	if m.ends(reader) {
		return errDead
	}
	return m.Log.Commit(ctx, w, reader, at)
}

func (m *mortal) Read(ctx context.Context, name string, from event.Position, most stream.Bytes) (*event.Batch, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.Log.Read(ctx, name, from, most)
}

func (m *mortal) Readers(ctx context.Context) (map[string]stream.Progress, error) {
	return m.Log.(stream.Readers).Readers(ctx)
}

func (m *mortal) Forget(ctx context.Context, reader string) error {
	return m.Log.(stream.Forgetter).Forget(ctx, reader)
}

// soon is when a state must have come by itself, on a slow and busy machine too.
const soon = time.Minute

// pass lets the clock pass a time: what comes later has another one.
func pass(at time.Time) { time.Sleep(time.Until(at) + time.Nanosecond) }

// stand is a folder with pipelines, a log, and stores, which outlive processes.
type stand struct {
	t      *testing.T
	fs     *vfs.Memory
	log    stream.Log
	engine *arithmetic
	stores map[string]*store
	kinds  []sink.Kind // besides into

	read     quantity.Bytes    // at once; 0: a record batch
	interval quantity.Duration // of commits

	alive *mortal
	set   *Configured
	end   context.CancelFunc
	ended chan error
}

// puts guards the maps of stores against tests that add to them while pipelines run.
var puts sync.Mutex

// put gives a store a name, in place of the one that had it.
func (s *stand) put(name string, to *store) {
	puts.Lock()
	defer puts.Unlock()
	s.stores[name] = to
}

func newStand(t *testing.T, stores ...string) *stand {
	s := &stand{t: t, fs: vfs.NewMemory(), log: memory.New(), engine: &arithmetic{}, stores: map[string]*store{}}
	for _, name := range stores {
		s.stores[name] = newStore(true)
	}
	require.NoError(t, s.fs.MkdirAll("/p/pipelines"))
	t.Cleanup(s.stop)
	return s
}

func (s *stand) file(name, text string) {
	f, err := s.fs.Create("/p/pipelines/" + name)
	require.NoError(s.t, err)
	_, err = f.Write([]byte(text))
	require.NoError(s.t, err)
	require.NoError(s.t, f.Close())
}

func (s *stand) start() {
	cfg := testConfig()
	cfg.ReadBytes, cfg.CommitInterval = max(s.read, 1), max(s.interval, cfg.CommitInterval)
	s.alive = &mortal{Log: s.log}
	s.set = NewConfigured(cfg, Deps{FS: dyingFS{s.fs, s.alive}, Folder: "/p/pipelines", StateDir: "/p/data/pipelines", Log: s.alive, Engine: s.engine, Logger: quiet,
		Kinds: append([]sink.Kind{{Name: "into", Short: "store", Settings: func() sink.Settings { return &into{stores: s.stores} }}}, s.kinds...), Env: sink.Env{Logger: quiet}})
	s.set.every = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	s.end, s.ended = cancel, make(chan error, 1)
	set, ended := s.set, s.ended
	go func() { ended <- set.Run(ctx) }()
}

// kill ends the process without a last commit.
func (s *stand) kill() {
	s.alive.dead.Store(true)
	s.stop()
}

func (s *stand) stop() {
	if s.end == nil {
		return
	}
	s.end()
	if err := <-s.ended; err != nil && !errors.Is(err, stream.ErrClosed) {
		s.t.Error(err)
	}
	s.end = nil
}

func (s *stand) progress(reader string) stream.Progress {
	at, err := s.log.Progress(context.Background(), reader)
	require.NoError(s.t, err)
	return at
}

// caughtUp waits until readers have passed n events.
func (s *stand) caughtUp(n int64, readers ...string) {
	s.t.Helper()
	require.EventuallyWithT(s.t, func(c *assert.CollectT) {
		for _, r := range readers {
			at := s.progress(r)
			if at.Counts.Total() != n {
				c.Errorf("%s has passed %d of %d events: %+v", r, at.Counts.Total(), n, s.set.Status())
			}
		}
	}, soon, time.Millisecond)
}

// rejections lists the ids of what was refused, with the step.
func (s *stand) rejections() (at []string) {
	st, err := s.log.Stat(context.Background(), event.RejectedStream)
	if errors.Is(err, stream.ErrNoStream) {
		return nil
	}
	require.NoError(s.t, err)
	var dec recordbatch.Decoder
	pos := event.Position{}
	for pos.Offset < st.Ranges[0].End {
		b, err := s.log.Read(context.Background(), event.RejectedStream, pos, 1<<20)
		require.NoError(s.t, err)
		require.NoError(s.t, dec.EachIn(b, func(e *event.Event) error {
			at = append(at, e.Refusal.ID+" "+e.Refusal.Path)
			return nil
		}))
		pos = b.End()
	}
	return at
}

// inForce waits until the file with that text is.
func (s *stand) inForce(text string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		st, err := readState(s.fs, "/p/data/pipelines/p.json")
		return err == nil && st != nil && strings.Contains(st.Versions[len(st.Versions)-1].Text, text)
	}, soon, time.Millisecond)
}

// atRandom runs a test several times, each with a seed of its own, which is told.
func atRandom(t *testing.T, run func(*testing.T, *rand.Rand)) {
	rounds := 12
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		seed := rand.Uint64()
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			run(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}
