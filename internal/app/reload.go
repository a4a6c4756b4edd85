package app

import (
	"context"
	"errors"
	"io/fs"
	"sort"

	"naru/internal/config"
	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/stream/seglog"
	"naru/internal/verify"
	"naru/internal/vfs"
)

// ReloadCount is what loading a table anew from the log would do to its rows.
type ReloadCount struct {
	Table lake.Ident `json:"table"`
	Rows  int64      `json:"rows"` // of the table as it is
	// Returns are the events of the table that the log still has: they come back.
	Returns int64 `json:"returns"`
	// Lost are rows whose event the log no longer has, or never had.
	Lost int64 `json:"lost"`
	// Unknown are rows of files that cannot be read, as far as the log does not
	// have as many events of the table without a row that can.
	Unknown int64 `json:"unknown"`
	// Unread tells why the rows cannot be counted at all.
	Unread string `json:"unread,omitempty"`
}

// Harmless tells that every row comes back.
func (r ReloadCount) Harmless() bool { return r.Lost == 0 && r.Unknown == 0 && r.Unread == "" }

// CountReload holds the rows of a table against the log by the places that they
// name. It changes nothing; nobody else may be at work on the folder.
func CountReload(ctx context.Context, f config.Folder, l *iceberg.Lake, t lake.Ident) (ReloadCount, error) {
	r := ReloadCount{Table: t}
	claims, err := l.Claims()
	if err != nil {
		return r, err
	}
	refused, err := l.Refusal(t)
	if err != nil {
		return r, err
	}
	a, err := l.Audit(ctx, t)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err == nil {
		defer a.Release()
		err = a.Err
	}
	if err != nil {
		r.Unread = err.Error()
	}
	c := &reloadCount{tableOf: l.TableOf, table: t, start: claims[t], refused: refused, log: map[reloadLane]*spans{}}
	if a != nil {
		c.covered = a.Positions.Clone()
		for inc, parts := range a.RolledBack {
			for partition, off := range parts {
				c.covered.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	if err := c.readLog(ctx, vfs.OS(), f.Log()); err != nil {
		return r, err
	}
	if r.Unread != "" {
		r.Returns = c.events
		return r, nil
	}
	found, unreadable := int64(0), int64(0)
	for _, file := range a.Files {
		r.Rows += file.Rows
		in, rows, err := c.readFile(ctx, vfs.OS(), file.Path)
		switch {
		case ctx.Err() != nil:
			return r, ctx.Err()
		case err != nil || rows != file.Rows:
			unreadable += file.Rows
		default:
			found += in
			r.Lost += rows - in
		}
	}
	r.Returns = c.events
	if t.Name == lake.OtherTable {
		r.Returns = found // the log does not tell which types went there
	}
	r.Unknown = max(unreadable-max(r.Returns-found, 0), 0)
	return r, nil
}

type reloadLane struct {
	inc       event.Incarnation
	partition int32
}

// reloadCount is what CountReload knows of the log.
type reloadCount struct {
	tableOf func(typ, contract []byte) string
	table   lake.Ident
	start   event.Positions // events below belong into _other
	refused event.Positions // events at and behind are others than the rows
	covered event.Positions // by the table; nil: not known
	log     map[reloadLane]*spans
	events  int64 // of the table, that it covers
}

func (c *reloadCount) readLog(ctx context.Context, fsys vfs.FS, dir string) error {
	var dec recordbatch.Decoder
	judged, err := verify.Verdicts(ctx, fsys, dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no log: nothing comes back
	}
	if err != nil {
		return err
	}
	log, err := seglog.Walk(ctx, fsys, dir, seglog.SurveyOptions{}, func(b *seglog.Logged) error {
		if b.Stream != c.table.Namespace {
			return nil
		}
		k := reloadLane{b.Incarnation, b.Partition}
		if c.log[k] == nil {
			c.log[k] = &spans{}
		}
		return dec.EachIn(&b.Batch, func(e *event.Event) error {
			if end, ok := c.refused.Get(b.Incarnation, b.Partition); ok && e.Offset >= end {
				return nil
			}
			if judged.Has(b.Stream, b.Partition, e.Offset) {
				return nil // it had no row, and gets none
			}
			c.log[k].add(e.Offset)
			at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
			own := c.table.Namespace == event.RejectedStream || c.tableOf(e.Type, e.Contract.Hash) == c.table.Name
			if own && !c.start.Covers(at) && (c.covered == nil || c.covered.Covers(at)) {
				c.events++
			}
			return nil
		})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no log: nothing comes back
	}
	if err == nil {
		err = errors.Join(log.Damage...) // what can be read behind it is not known
	}
	return err
}

// readFile counts the rows of a file, and those whose event the log has.
func (c *reloadCount) readFile(ctx context.Context, fsys vfs.FS, path string) (in, rows int64, err error) {
	rows, err = columnar.ReadPlaces(ctx, fsys, path, columnar.PlacesOptions{}, func(b *columnar.Places) error {
		for i, offset := range b.Offset {
			inc, err := event.ParseIncarnation(string(b.Log[i]))
			if err != nil {
				continue // another writer's
			}
			if s := c.log[reloadLane{inc, b.Partition[i]}]; s != nil && s.has(offset) {
				in++
			}
		}
		return nil
	})
	return in, rows, err
}

// spans are offsets as sorted runs.
type spans struct{ from, to []int64 }

// add takes offsets in order.
func (s *spans) add(offset int64) {
	if n := len(s.to); n > 0 && s.to[n-1] == offset {
		s.to[n-1]++
		return
	}
	s.from, s.to = append(s.from, offset), append(s.to, offset+1)
}

func (s *spans) has(offset int64) bool {
	i := sort.Search(len(s.to), func(i int) bool { return s.to[i] > offset })
	return i < len(s.to) && s.from[i] <= offset
}
