package pipeline

import (
	"context"
	"errors"
	"testing"

	"naru/internal/event"
	"naru/internal/stream"
	"naru/internal/stream/memory"
)

// oneForget is a log that forgets one reader, and then ends.
type oneForget struct {
	stream.Log
	forgot []string
}

var errEnded = errors.New("the process has ended")

func (l *oneForget) Readers(ctx context.Context) (map[string]stream.Progress, error) {
	return l.Log.(stream.Readers).Readers(ctx)
}

func (l *oneForget) Forget(ctx context.Context, reader string) error {
	if len(l.forgot) > 0 {
		return errEnded
	}
	l.forgot = append(l.forgot, reader)
	return l.Log.(stream.Forgetter).Forget(ctx, reader)
}

// A judge that was turned off is forgotten beginning with the note that it had begun:
// turned on again after a crash in between it must not go on where it was.
func TestJudgeIsForgottenFromItsBeginning(t *testing.T) {
	for range 20 { // the order of maps
		l := &oneForget{Log: memory.New()}
		appendEvents(t, l, "events", 0, 1)
		for _, reader := range []string{stream.JudgeReader, stream.JudgeReader + "events", stream.JudgeReader + "ids/events", stream.DefaultReader + "events"} {
			if err := l.Commit(t.Context(), nil, reader, stream.Progress{Stream: "events", Positions: event.Positions{}}); err != nil {
				t.Fatal(err)
			}
		}
		err := NewSet(testConfig(), l, nil, quiet).Run(t.Context())
		if !errors.Is(err, errEnded) || len(l.forgot) != 1 || l.forgot[0] != stream.JudgeReader {
			t.Fatalf("forgotten first: %q, %v", l.forgot, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
