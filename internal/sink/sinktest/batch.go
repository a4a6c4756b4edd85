package sinktest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
)

// Table makes a batch of rows of Lives[0] from their data, with the number of the row
// from base on as offset and id. Columns are written "name:type other:type".
func Table(base int64, columns string, data ...string) *event.Batch {
	b := &event.Batch{Stream: Stream, Incarnation: Lives[0], From: base, Next: base + int64(len(data)), Rows: &event.Rows{}}
	for def := range strings.FieldsSeq(columns) {
		name, kind, _ := strings.Cut(def, ":")
		b.Columns = append(b.Columns, event.Column{Name: name, Type: event.ColumnType(kind)})
	}
	for i, d := range data {
		e := Row(fmt.Sprint(base+int64(i)), base+int64(i), 0)
		e.Data = []byte(d)
		b.Rows.Add(e)
	}
	return b
}

// Put writes batches and commits them.
func Put(t *testing.T, s sink.Sink, batches ...*event.Batch) {
	t.Helper()
	for _, b := range batches {
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if _, err := s.Commit(t.Context()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// Stops gives the text and the hint of an error that stops a sink: err, with which it was
// opened, or that of a batch. It does not pass by itself, and no row is refused for it.
func Stops(t *testing.T, s sink.Sink, err error, b *event.Batch) (text, hint string) {
	t.Helper()
	if err == nil {
		if err = s.Write(t.Context(), b); err == nil {
			_, err = s.Commit(t.Context())
		}
		if refused := s.(sink.Refuser).Refused(); len(refused) > 0 {
			t.Fatalf("rows are refused: %+v", refused)
		}
		closeSink(t, s)
	}
	if err == nil || fault.IsTransient(err) {
		t.Fatalf("%v is no error that stops the sink", err)
	}
	return err.Error(), fault.HintOf(err)
}

// IDs are those of events, sorted.
func IDs(lists ...[]Spec) []string {
	out := ids(lists...)
	slices.Sort(out)
	return out
}
