package iceberg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"naru/internal/event"
	"naru/internal/lake"
)

// streamsFile lists the streams that this lake has loaded. A stream that is not
// in it is loaded from the first event that the log still has, whatever the
// pipeline's watermark says: the watermark was reached with another lake, which
// somebody has removed.
const streamsFile = "streams.json"

type streamLine struct {
	Stream string `json:"stream"`
	// Until is set while the stream is loaded again: events below may be missing
	// in its tables.
	Until event.Positions `json:"until,omitempty"`
	// Again asks for that from the next opening on.
	Again bool `json:"again,omitempty"`
	// Tables that were loaded anew (ReloadTable): they have all that the log had.
	Tables []string `json:"tables,omitempty"`
}

type streams struct{ sync.Mutex }

// Reload tells up to where the stream's events have to be read again from the
// start of the log, which ends at ends; nil when they need not.
func (l *Lake) Reload(ctx context.Context, stream string, ends event.Positions) (until event.Positions, err error) {
	err = l.withStream(stream, func(line *streamLine, known bool) (bool, error) {
		if !known {
			// Lakes of naru before it kept this file have all that is below the watermark.
			tables, err := l.catalog.List(ctx)
			if err != nil {
				return false, err
			}
			line.Again = !slices.ContainsFunc(tables, func(t lake.Ident) bool { return t.Namespace == stream })
		}
		if line.Again {
			line.Again, line.Until = false, ends.Clone()
		}
		until = line.Until.Clone()
		return true, nil
	})
	return until, err
}

// Loading is how far a stream of this lake is being read again from the start of
// the log.
type Loading struct {
	Again bool            // all of it, from the next opening on
	Until event.Positions // what lies below, now
	// Tables are those that were loaded anew, now or at any time before: they have
	// all that the log had then.
	Tables []string
}

// Covers tells whether the event at the place is still to be read again.
func (s Loading) Covers(at event.Position) bool { return s.Again || s.Until.Covers(at) }

// Loading lists the streams that are being loaded again, or of which tables were.
func (l *Lake) Loading() (map[string]Loading, error) {
	lines, err := readLines[streamLine](l, streamsFile)
	if err != nil {
		return nil, fmt.Errorf("read loaded streams: %w", err)
	}
	all := map[string]Loading{}
	for _, s := range lines {
		if s.Again || len(s.Until) > 0 || len(s.Tables) > 0 {
			all[s.Stream] = Loading{s.Again, s.Until, s.Tables}
		}
	}
	return all, nil
}

// Reloaded notes that the stream's tables have all of its events.
func (l *Lake) Reloaded(stream string) error {
	return l.withStream(stream, func(line *streamLine, _ bool) (bool, error) {
		line.Until = nil
		return true, nil
	})
}

// ReloadStream has all that the log holds of a stream read again at its next
// opening: each table skips what it has.
func (l *Lake) ReloadStream(stream string) error {
	return l.withStream(stream, func(line *streamLine, _ bool) (bool, error) {
		line.Again = true
		return true, nil
	})
}

func (l *Lake) withStream(stream string, change func(line *streamLine, known bool) (bool, error)) error {
	l.streams.Lock()
	defer l.streams.Unlock()
	lines, err := readLines[streamLine](l, streamsFile)
	if err != nil {
		return fmt.Errorf("read loaded streams: %w", err)
	}
	i := slices.IndexFunc(lines, func(s streamLine) bool { return s.Stream == stream })
	known := i >= 0
	if !known {
		lines = append(lines, streamLine{Stream: stream})
		i = len(lines) - 1
	}
	was := lines[i]
	if _, err := change(&lines[i], known); err != nil {
		return err
	}
	if known && was.Again == lines[i].Again && len(was.Tables) == len(lines[i].Tables) && was.Until.Equal(lines[i].Until) {
		return nil
	}
	if err := writeLines(l, streamsFile, lines); err != nil {
		return fmt.Errorf("write loaded streams: %w", err)
	}
	return nil
}

// ReloadTable drops a table and has it loaded anew from all that the log still
// has. Its old files stay where they are, with nothing that leads to them.
func (l *Lake) ReloadTable(ctx context.Context, t lake.Ident) error {
	// Whatever of this a crash leaves undone can be done again.
	err := l.withStream(t.Namespace, func(line *streamLine, _ bool) (bool, error) {
		line.Again = true
		if !slices.Contains(line.Tables, t.Name) {
			line.Tables = append(line.Tables, t.Name)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("reload %s: %w", t, err)
	}
	if err := l.keepClaim(ctx, t); err != nil {
		return fmt.Errorf("reload %s: %w", t, err)
	}
	if err := l.catalog.Drop(ctx, t); err != nil && !errors.Is(err, lake.ErrNoTable) {
		return fmt.Errorf("reload %s: %w", t, err)
	}
	if err := l.Refuse(t, nil); err != nil {
		return fmt.Errorf("reload %s: %w", t, err)
	}
	return nil
}

// ReloadDropped does the same for the tables of a stream that were ahead of the
// log and that somebody has dropped since, as their cure says.
func (l *Lake) ReloadDropped(ctx context.Context, stream string) error {
	l.refusals.Lock()
	refused, err := l.readRefusals()
	l.refusals.Unlock()
	if err != nil {
		return err
	}
	for _, t := range sortedIdents(refused) {
		if t.Namespace != stream {
			continue
		}
		_, err := l.catalog.Location(ctx, t)
		if errors.Is(err, lake.ErrNoTable) {
			err = l.ReloadTable(ctx, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
