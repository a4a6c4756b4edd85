package dedupe

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/recordbatch"
)

func TestSentIsWhatWasSent(t *testing.T) {
	e := &event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Data: []byte(`{"mail":"a@b"}`), ContentType: []byte("application/json")}
	var d digester
	want := d.digest(e)
	e.Sent = fmt.Appendf(nil, "%016x", want)
	e.Data = []byte(`{}`)
	require.Equal(t, want, d.digest(e))
	var b recordbatch.Builder
	b.Reset(time.UnixMilli(1))
	b.AppendEvent(e)
	var dec recordbatch.Decoder
	require.NoError(t, dec.Each(b.Finish(nil, recordbatch.None), func(got *event.Event) error {
		require.Equal(t, want, d.digest(got))
		require.Equal(t, d.key(e), d.key(got))
		return nil
	}))
	// Whatever else an event says makes it another one.
	base := event.Event{ID: []byte("1"), Source: []byte("/s"), Type: []byte("t"), Data: []byte("1"), ContentType: []byte("x")}
	seen := map[uint64]bool{d.digest(&base): true}
	for _, change := range []func(*event.Event){
		func(e *event.Event) { e.Type = []byte("u") }, func(e *event.Event) { e.Data = []byte("2") },
		func(e *event.Event) { e.Subject = []byte("s") }, func(e *event.Event) { e.ContentType = []byte("y") },
		func(e *event.Event) { e.Time = time.Unix(1, 0) }, func(e *event.Event) { e.Extensions = []event.Attr{{Name: []byte("a"), Value: []byte("b")}} },
	} {
		other := base
		change(&other)
		require.False(t, seen[d.digest(&other)])
		seen[d.digest(&other)] = true
	}
	a, c := base, base
	a.Source, a.ID = []byte("ab"), []byte("c")
	c.Source, c.ID = []byte("a"), []byte("bc")
	require.NotEqual(t, d.key(&a), d.key(&c))
}

func FuzzVerdict(f *testing.F) {
	v := Verdict{From: 5, Next: 900, Duplicates: []event.Run{{From: 5, To: 7}, {From: 100, To: 900}}, Conflicts: []event.Run{{From: 8, To: 9}}}
	f.Add(v.appendTo(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseVerdict(b)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := parseVerdict(v.appendTo(nil))
		require.NoError(t, err)
		require.Equal(t, v, again)
		for _, runs := range [][]event.Run{v.Duplicates, v.Conflicts} {
			for i, r := range runs {
				require.Less(t, r.From, r.To)
				require.GreaterOrEqual(t, r.From, v.From)
				require.LessOrEqual(t, r.To, v.Next)
				if i > 0 {
					require.GreaterOrEqual(t, r.From, runs[i-1].To)
				}
			}
		}
	})
}
