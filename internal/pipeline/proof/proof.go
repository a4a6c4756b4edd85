// Package proof runs a pipeline's steps without a server and without its sinks: on the
// events of its `tests:`, whose rows it compares with those wanted.
package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/problem"
	"naru/internal/recordbatch"
	"naru/internal/transform"
)

// Result is what has come of one test.
type Result struct {
	Pipeline    string       `json:"pipeline"`
	Test        string       `json:"test"` // its name, or its number from 1
	Place       string       `json:"place"`
	Passed      bool         `json:"passed"`
	Differences []Difference `json:"differences,omitempty"`
	Error       string       `json:"error,omitempty"` // why it could not be run
}

// Difference is one thing that is not as the test wants it.
type Difference struct {
	Where string `json:"where"` // "row 1 page", "row 2", "rejections"
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// Received is when events of tests were received that name no time.
var Received = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Run runs all tests of a pipeline, in order. file is how the pipeline is named in
// places, as in pipelines/edits.yaml.
func Run(ctx context.Context, engine transform.Engine, file string, def *definition.Definition) (all []Result) {
	for i := range def.Tests {
		t := &def.Tests[i]
		r := Result{Pipeline: def.Name, Test: t.Name, Place: fmt.Sprintf("%s:%d", file, t.Line)}
		if r.Test == "" {
			r.Test = strconv.Itoa(i + 1)
		}
		var err error
		if r.Differences, err = run(ctx, engine, file, def, t); err != nil {
			r.Error = err.Error()
		}
		r.Passed = err == nil && len(r.Differences) == 0
		all = append(all, r)
	}
	return all
}

// Check names what is wrong with the inputs of a pipeline's tests.
func Check(file string, def *definition.Definition) (wrong problem.List) {
	for i := range def.Tests {
		_, more := events(file, def, &def.Tests[i])
		wrong = append(wrong, more...)
	}
	return wrong
}

func run(ctx context.Context, engine transform.Engine, file string, def *definition.Definition, t *definition.Test) ([]Difference, error) {
	list, wrong := events(file, def, t)
	if len(wrong) > 0 {
		return nil, wrong
	}
	var b recordbatch.Builder
	b.Reset(Received)
	for i := range list {
		b.At(list[i].ReceivedAt)
		b.AppendEvent(&list[i])
	}
	raw := b.Finish(nil, recordbatch.None)
	recordbatch.SetBaseOffset(raw, 0)
	done, err := Apply(ctx, engine, def, &event.Batch{Stream: def.From.Stream, Incarnation: event.Incarnation{1}, Next: int64(len(list)), Raw: [][]byte{raw}}, nil)
	if err != nil {
		return nil, err
	}
	return compare(def, t, done)
}

// Apply computes the steps of a pipeline over the events of a batch that are of its
// types and that take, if it is not nil, lets pass. Rows say which of def.Routes let them
// pass.
func Apply(ctx context.Context, engine transform.Engine, def *definition.Definition, in *event.Batch, take func(*event.Event) bool) (done *transform.Applied, err error) {
	steps := def.Steps
	if len(steps) == 0 {
		steps = transform.Everything
	}
	steps = append(slices.Clone(steps), def.Routes()...)
	tr, err := engine.Open(ctx, steps, transform.Input{Stream: def.From.Stream, Types: def.From.Types})
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := tr.Close(); err == nil {
			err = cerr
		}
	}()
	types := def.From.Types
	return tr.Apply(ctx, in, func(e *event.Event) bool {
		return (len(types) == 0 || slices.Contains(types, string(e.Type))) && (take == nil || take(e))
	})
}

// envelope are the keys of an input that has the key data.
var envelope = []string{"type", "id", "time", "source", "subject", "data"}

// events reads the input of a test.
func events(file string, def *definition.Definition, t *definition.Test) (out []event.Event, wrong problem.List) {
	for i, v := range t.Input {
		fail := func(format string, args ...any) {
			wrong = append(wrong, problem.Problem{File: file, Line: v.Line, Key: fmt.Sprintf("tests.input[%d]", i), Text: fmt.Sprintf(format, args...)})
		}
		e := event.Event{ID: strconv.AppendInt(nil, int64(i+1), 10), Source: []byte("test"), Type: []byte(event.DefaultType), ReceivedAt: Received, Data: v.JSON}
		if len(def.From.Types) > 0 {
			e.Type = []byte(def.From.Types[0])
		}
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(v.JSON, &keys); err != nil {
			fail("cannot be read: %v", err)
			continue
		}
		if _, ok := keys["data"]; ok {
			attributes(&e, keys, fail)
		}
		out = append(out, e)
	}
	return out, wrong
}

func attributes(e *event.Event, keys map[string]json.RawMessage, fail func(string, ...any)) {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		var text string
		if err := json.Unmarshal(keys[key], &text); err != nil && key != "data" && slices.Contains(envelope, key) {
			fail("%s wants a text, not %s", key, keys[key])
			continue
		}
		switch key {
		case "data":
			e.Data = keys[key]
		case "type":
			e.Type = []byte(text)
		case "id":
			e.ID = []byte(text)
		case "source":
			e.Source = []byte(text)
		case "subject":
			e.Subject = []byte(text)
		case "time":
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				fail("time wants a time as in 2026-01-31T00:00:00Z, not %s", text)
				continue
			}
			e.Time, e.ReceivedAt = at, at
		default:
			fail("the key data makes this an event with the keys %s, and %s is none of them: if both are fields of the event, put them under data", strings.Join(envelope, ", "), key)
		}
	}
}

// decode reads JSON with its numbers as they are written.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}
