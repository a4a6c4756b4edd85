package rejection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/query"
	"naru/internal/stream"
)

// The tables, as SQL calls them.
const (
	table       = event.RejectedStream + "." + event.RejectedStream
	statesTable = event.RejectedStates + "." + event.RejectedStates
)

// Tables implements Store by SQL over the tables: what is committed, and the hot
// tail.
type Tables struct {
	Engine query.Engine
	// Newest lists the tables, those of which only the log knows yet among them.
	Newest func(ctx context.Context) ([]lake.Ident, error)
	// Duplicate, if set, tells whether the event at a place of a stream is on record
	// as a duplicate.
	Duplicate func(ctx context.Context, stream string, at event.Position) (bool, error)
}

var _ Store = (*Tables)(nil)

// has tells whether there is a table of the stream.
func (t *Tables) has(ctx context.Context, stream string) (bool, error) {
	list, err := t.Newest(ctx)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.Contains(list, lake.Ident{Namespace: stream, Name: stream}), nil
}

// busyPauses are how long is waited for room for one more query.
var busyPauses = []time.Duration{100 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second}

// rows asks; fn gets each row, valid until it returns.
func (t *Tables) rows(ctx context.Context, sql string, fn func([]any) error) ([]query.Column, error) {
	rows, err := t.Engine.Query(ctx, query.Query{SQL: sql})
	for _, pause := range busyPauses {
		if !errors.Is(err, query.ErrTooMany) {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		rows, err = t.Engine.Query(ctx, query.Query{SQL: sql})
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Values()); err != nil {
			return nil, err
		}
	}
	return rows.Columns(), rows.Err()
}

// columns names the columns of a table; none: there is no such table.
func (t *Tables) columns(ctx context.Context, stream string) (map[string]bool, error) {
	ok, err := t.has(ctx, stream)
	if err != nil || !ok {
		return nil, err
	}
	cols, err := t.rows(ctx, "SELECT * FROM "+stream+"."+stream+" LIMIT 0", func([]any) error { return nil })
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, c := range cols {
		out[c.Name] = true
	}
	return out, nil
}

// where is the filter as a condition on the table's columns.
func where(f Filter, has map[string]bool) (string, error) {
	conds := []string{"true"}
	for _, c := range []struct{ column, value string }{
		{"event_type", f.Type}, {"reason", f.Reason}, {"stream", f.Stream}, {"_source", f.Source}, {"rule", f.Rule}, {"path", f.Path},
	} {
		switch {
		case c.value == "":
		case !has[c.column]:
			conds = append(conds, "false")
		default:
			conds = append(conds, c.column+" = "+quote(c.value))
		}
	}
	if f.Pipeline != "" {
		if !has["rule"] {
			conds = append(conds, "false")
		} else {
			conds = append(conds, "rule = "+quote(stream.PipelineReader+f.Pipeline))
		}
	}
	if f.ID != "" {
		at, err := ParseID(f.ID)
		if err != nil {
			return "", err
		}
		conds = append(conds, fmt.Sprintf("_log = '%s' AND _partition = %d AND _offset = %d", at.Incarnation, at.Partition, at.Offset))
	}
	if !f.Since.IsZero() {
		conds = append(conds, "_received_at >= "+moment(f.Since))
	}
	if !f.Until.IsZero() {
		conds = append(conds, "_received_at < "+moment(f.Until))
	}
	return strings.Join(conds, " AND "), nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func moment(t time.Time) string {
	return "TIMESTAMPTZ '" + t.UTC().Format("2006-01-02 15:04:05.999999") + "+00'"
}

// Lanes implements Store.
func (t *Tables) Lanes(ctx context.Context, f Filter) ([]Lane, error) {
	has, err := t.columns(ctx, event.RejectedStream)
	if err != nil || has == nil {
		return nil, err
	}
	cond, err := where(f, has)
	if err != nil {
		return nil, err
	}
	var out []Lane
	_, err = t.rows(ctx, "SELECT _log, _partition, min(_offset), max(_offset), count(*) FROM "+table+" WHERE "+cond+
		" GROUP BY _log, _partition ORDER BY min(_received_at), _log, _partition", func(v []any) error {
		l := Lane{Partition: int32(number(v[1])), First: number(v[2]), Last: number(v[3]), Count: number(v[4])}
		var err error
		l.Incarnation, err = event.ParseIncarnation(text(v[0]))
		out = append(out, l)
		return err
	})
	return out, err
}

// within is the condition of a lane's offsets in [from, to).
func within(l Lane, from, to int64) string {
	return fmt.Sprintf("_log = '%s' AND _partition = %d AND _offset >= %d AND _offset < %d", l.Incarnation, l.Partition, from, to)
}

// Entries implements Store.
func (t *Tables) Entries(ctx context.Context, f Filter, l Lane, from, to int64) ([]Entry, error) {
	has, err := t.columns(ctx, event.RejectedStream)
	if err != nil {
		return nil, err
	}
	cond, err := where(f, has)
	if err != nil {
		return nil, err
	}
	var out []Entry
	_, err = t.rows(ctx, "SELECT _offset, coalesce(octet_length(original), 0) FROM "+table+" WHERE "+within(l, from, to)+" AND "+cond+" ORDER BY _offset",
		func(v []any) error {
			out = append(out, Entry{Offset: number(v[0]), Size: number(v[1])})
			return nil
		})
	return out, err
}

// Fetch implements Store.
func (t *Tables) Fetch(ctx context.Context, l Lane, from, to int64, fn func(*event.Event) error) error {
	has, err := t.columns(ctx, event.RejectedStream)
	if err != nil {
		return err
	}
	_, err = t.rows(ctx, "SELECT _offset, _id, _source, _subject, _time, _received_at, stream, event_type, event_id, reason, original, content_type, "+
		column(has, "extensions")+", "+column(has, "sent")+", "+column(has, "event_time")+", "+column(has, "rule")+", "+column(has, "path")+", item_index FROM "+table+" WHERE "+within(l, from, to+1)+" ORDER BY _offset", func(v []any) error {
		e := event.Event{
			Offset: number(v[0]), ID: []byte(text(v[1])), Source: []byte(text(v[2])), ReceivedAt: instant(v[5]),
			ContentType: []byte(text(v[11])), GeneratedID: true,
			Refusal: &event.Rejection{Stream: text(v[6]), Type: text(v[7]), ID: text(v[8]), Reason: event.Reason(text(v[9])), Original: blob(v[10]),
				Rule: text(v[15]), Path: text(v[16]), Index: int(number(v[17]))},
		}
		if s := text(v[3]); s != "" {
			e.Subject = []byte(s)
		}
		if s := text(v[13]); s != "" {
			e.Sent = []byte(s)
			e.Refusal.Changed = true // a digest is kept of what a PII action has changed
		}
		if err := attributes(&e, text(v[12])); err != nil {
			return fmt.Errorf("row at %d of %s: %w", e.Offset, table, err)
		}
		if s := text(v[14]); s != "" { // _time does not say it exactly
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return fmt.Errorf("row at %d of %s: event_time: %w", e.Offset, table, err)
			}
			e.Time = at
		} else if at := instant(v[4]); !at.Equal(e.ReceivedAt) {
			e.Time = at
		}
		e.Data = e.Refusal.Original
		return fn(&e)
	})
	return err
}

// attributes takes the extension attributes from the column extensions, and the
// key from where it comes from (DOOR): partitionkey, else the subject.
func attributes(e *event.Event, text string) error {
	e.Key = e.Subject
	if text == "" {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("extensions: %w", err)
	}
	for dec.More() {
		name, err := dec.Token()
		var value string
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			return fmt.Errorf("extensions: %w", err)
		}
		e.Extensions = append(e.Extensions, event.Attr{Name: fmt.Append(nil, name), Value: []byte(value)})
		if name == "partitionkey" && value != "" {
			e.Key = []byte(value)
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("extensions: %w", err)
	}
	return nil
}

// Closed implements Store.
func (t *Tables) Closed(ctx context.Context, fn func(event.Position) error) error {
	ok, err := t.has(ctx, event.RejectedStates)
	if err != nil {
		return err
	}
	if !ok {
		return fault.WithHint(errors.New("the table rejected_states is gone, and the log does not have all of it any more"),
			"bring the table back from a backup: without it what was replayed would be replayed again")
	}
	var lanes []Lane
	if _, err := t.rows(ctx, "SELECT _log, _partition, min(_offset), max(_offset) FROM "+statesTable+" GROUP BY _log, _partition", func(v []any) error {
		l := Lane{Partition: int32(number(v[1])), First: number(v[2]), Last: number(v[3])}
		var err error
		l.Incarnation, err = event.ParseIncarnation(text(v[0]))
		lanes = append(lanes, l)
		return err
	}); err != nil {
		return err
	}
	for _, l := range lanes {
		for from := l.First; from <= l.Last; from += window {
			if _, err := t.rows(ctx, "SELECT rejection_log, rejection_partition, rejection_offset FROM "+statesTable+
				" WHERE "+within(l, from, from+window)+" AND state IN ('replayed', 'discarded')", func(v []any) error {
				inc, err := event.ParseIncarnation(text(v[0]))
				if err != nil {
					return err
				}
				return fn(event.Position{Incarnation: inc, Partition: int32(number(v[1])), Offset: number(v[2])})
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// number, text, instant and blob read values of a row; what is null is zero.
func number(v any) int64 {
	n, _ := v.(int64)
	return n
}

func text(v any) string {
	s, _ := v.(string)
	return strings.Clone(s)
}

func instant(v any) time.Time {
	t, _ := v.(time.Time)
	return t
}

func blob(v any) []byte {
	b, _ := v.([]byte)
	return bytes.Clone(b)
}
