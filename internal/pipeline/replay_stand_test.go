package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/recordbatch"
	rejections "naru/internal/rejection"
	"naru/internal/sink"
	"naru/internal/stream"
)

// refusing is a target that refuses rows for good, as its test says. It tells so before
// its commit and keeps positions; or with it, and goes by the names of rows.
type refusing struct {
	*ledgerOf
	prepares bool
	refuses  func(id string) bool // nil: nothing
}

func (k *refusing) Validate() error { return nil }
func (k *refusing) Open(context.Context, sink.Env) (sink.Sink, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &refuser{keeper: &keeper{target: k.ledgerOf, floor: k.positions.Clone(), end: event.Positions{}}, of: k}
	if k.prepares {
		return preparer{s}, nil
	}
	s.floor = event.Positions{}
	return s, nil
}

type refuser struct {
	*keeper
	of   *refusing
	told []sink.Refusal
	all  []sink.Refusal
}

func (k *refuser) sift() {
	k.held = slices.DeleteFunc(k.held, func(p placed) bool {
		k.of.mu.Lock()
		no := k.of.refuses != nil && k.of.refuses(p.id)
		k.of.mu.Unlock()
		if no {
			k.told = append(k.told, sink.Refusal{At: p.at, Row: p.row, Detail: "the target does not want it"})
		}
		return no
	})
}

func (k *refuser) Commit(ctx context.Context) (event.Positions, error) {
	k.sift()
	for _, id := range k.target.ids() {
		k.held = slices.DeleteFunc(k.held, func(p placed) bool { return p.id == id })
	}
	at, err := k.keeper.Commit(ctx)
	k.all, k.told = k.told, nil
	return at, err
}

func (k *refuser) Refused() []sink.Refusal {
	out := k.all
	k.all = nil
	return out
}

type preparer struct{ *refuser }

func (k preparer) Prepare(context.Context) error {
	k.sift()
	k.all, k.told = k.told, nil
	return nil
}

func (k preparer) Commit(ctx context.Context) (event.Positions, error) { return k.keeper.Commit(ctx) }

// refuse adds the kind to a stand.
func (s *stand) refusing(name string, prepares bool) *refusing {
	t := &refusing{ledgerOf: &ledgerOf{positions: event.Positions{}}, prepares: prepares}
	s.kinds = append(s.kinds, sink.Kind{Name: name, Settings: func() sink.Settings { return t }})
	return t
}

// records finds rejections in the log.
type records struct{ log stream.Log }

func (s records) each(ctx context.Context, name string, fn func(at event.Position, e *event.Event) error) error {
	st, err := s.log.Stat(ctx, name)
	if err != nil {
		return nil // there is none
	}
	var dec recordbatch.Decoder
	for at, end := (event.Position{}), endOf(st, 0); at.Offset < end.Offset; {
		b, err := s.log.Read(ctx, name, at, 1<<20)
		if err != nil {
			return err
		}
		if err := dec.EachIn(b, func(e *event.Event) error {
			return fn(event.Position{Incarnation: b.Incarnation, Offset: e.Offset}, e)
		}); err != nil {
			return err
		}
		at = b.End()
	}
	return nil
}

func (s records) Lanes(ctx context.Context, f rejections.Filter) ([]rejections.Lane, error) {
	st, err := s.log.Stat(ctx, event.RejectedStream)
	if errors.Is(err, stream.ErrNoStream) {
		return nil, nil
	}
	end := endOf(st, 0)
	return []rejections.Lane{{Incarnation: end.Incarnation, Last: end.Offset, Count: end.Offset}}, err
}

func (s records) Entries(ctx context.Context, f rejections.Filter, _ rejections.Lane, from, to int64) (out []rejections.Entry, err error) {
	err = s.each(ctx, event.RejectedStream, func(at event.Position, e *event.Event) error {
		if at.Offset >= from && at.Offset < to && (f.ID == "" || f.ID == at.String()) {
			out = append(out, rejections.Entry{Offset: at.Offset, Size: int64(len(e.Data))})
		}
		return nil
	})
	return out, err
}

func (s records) Fetch(ctx context.Context, _ rejections.Lane, from, to int64, fn func(*event.Event) error) error {
	return s.each(ctx, event.RejectedStream, func(at event.Position, e *event.Event) error {
		if at.Offset < from || at.Offset > to {
			return nil
		}
		c := clone(e)
		refusal := *e.Refusal
		refusal.At = "" // the table has it in the id alone
		c.Refusal = &refusal
		return fn(&c)
	})
}

func (records) Closed(context.Context, func(event.Position) error) error {
	return errors.New("the log has all states")
}

// replays is what changes rejections, of the process that runs.
func (s *stand) replaying() *rejections.Rejections {
	set := s.set
	r, err := rejections.New(rejections.DefaultConfig(), rejections.Deps{Log: s.alive, Store: records{s.log}, Logger: quiet,
		Pipeline: func(ctx context.Context, name string) (rejections.Door, error) { return set.Replay(ctx, name) }})
	require.NoError(s.t, err)
	return r
}

func (s *stand) replay(f rejections.Filter) rejections.Result {
	s.t.Helper()
	res, err := s.replaying().Replay(s.t.Context(), f, false, nil)
	require.NoError(s.t, err)
	return res
}

// closed are the states of all rejections, in order: "open", "replayed", with the reason
// of the last attempt.
func (s *stand) states() (out []string) {
	require.NoError(s.t, records{s.log}.each(s.t.Context(), event.RejectedStream, func(event.Position, *event.Event) error {
		out = append(out, "open")
		return nil
	}))
	require.NoError(s.t, records{s.log}.each(s.t.Context(), event.RejectedStates, func(_ event.Position, e *event.Event) error {
		var c rejections.Change
		if err := json.Unmarshal(e.Data, &c); err != nil {
			return err
		}
		require.NotEqual(s.t, "replayed", out[c.Offset], "closed twice")
		out[c.Offset] = string(c.State)
		if c.Reason != "" {
			out[c.Offset] += " " + c.Reason
		}
		return nil
	}))
	return out
}

// has waits until targets have rows in any order, each once.
func (s *stand) has(want []string, targets ...func() []string) {
	s.t.Helper()
	want = slices.Sorted(slices.Values(want))
	for _, ids := range targets {
		require.Eventually(s.t, func() bool { return len(ids()) >= len(want) }, soon, time.Millisecond, "want %d, got %v", len(want), lazily(func() string { return fmt.Sprint(len(ids())) }))
		require.Equal(s.t, want, slices.Sorted(slices.Values(ids())))
	}
}

// counted waits until a reader has these counts.
func (s *stand) counted(reader string, want stream.Counts) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.progress(reader).Counts == want }, soon, time.Millisecond, "%s: want %+v, have %+v", reader, want, lazily(func() string { return fmt.Sprintf("%+v %+v", s.progress(reader), s.set.Status()) }))
}

// lazily is a text that is made when it is printed.
type lazily func() string

func (l lazily) String() string { return l() }

func (s *store) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ids)
}
