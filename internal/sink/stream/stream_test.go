package stream

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

func TestRowsBecomeEvents(t *testing.T) {
	s, err := (&Settings{Stream: "enriched", Type: "edit"}).Open(t.Context(), sink.Env{Stream: "events"})
	require.NoError(t, err)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &event.Batch{Stream: "events", Incarnation: event.Incarnation{1}, From: 7, Next: 9, Rows: event.RowsOf(
		event.Event{ID: []byte("a"), Source: []byte("/s"), Type: []byte("raw"), Subject: []byte("x"), Time: at, Key: []byte("k"), Data: []byte(`{"n":1}`), Offset: 7,
			Sent: []byte("digest"), Contract: event.Contract{ID: []byte("c"), Hash: []byte("h")}, JSONStrings: []byte(`["p"]`)},
		event.Event{ID: []byte("a"), Source: []byte("/s"), Type: []byte("raw"), Data: []byte(`{"n":2}`), Offset: 7, Row: 1},
	)}
	require.NoError(t, s.Write(t.Context(), b))
	require.Positive(t, s.(*Sink).PendingBytes())
	done, err := s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{{1}: {0: 9}}, done)
	writes := s.(*Sink).Appends()
	require.Len(t, writes, 1)
	require.Equal(t, "enriched", writes[0].Stream)
	require.Empty(t, s.(*Sink).Appends(), "once")
	var dec recordbatch.Decoder
	var ids []string
	require.NoError(t, dec.Each(writes[0].Batch, func(e *event.Event) error {
		ids = append(ids, string(e.ID)+" "+string(e.Type)+" "+string(e.Data))
		require.True(t, e.GeneratedID, "never a duplicate")
		require.Nil(t, e.Sent)
		require.Nil(t, e.Contract.Hash)
		require.Nil(t, e.JSONStrings)
		if len(ids) == 1 {
			require.Equal(t, "x", string(e.Subject))
			require.Equal(t, at, e.Time)
			require.Equal(t, "k", string(e.Key))
		}
		return nil
	}))
	require.Equal(t, []string{`a edit {"n":1}`, `a-1 edit {"n":2}`}, ids)
	done, err = s.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, event.Positions{{1}: {0: 9}}, done)
	require.Empty(t, s.(*Sink).Appends())

	_, err = (&Settings{Stream: "events"}).Open(t.Context(), sink.Env{Stream: "events"})
	require.ErrorContains(t, err, "for ever")
	for _, bad := range []string{"", "_x", "rejected", "a.b"} {
		require.Error(t, (&Settings{Stream: bad}).Validate(), bad)
	}
}
