package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/recordbatch"
	"naru/internal/stream"
)

// State says in a word how a pipeline or a sink is.
type State string

// The states. A pipeline has the worst of its sinks.
const (
	Running State = "running"
	Paused  State = "paused"
	Failing State = "failing" // a sink that tries again after an error
	Broken  State = "broken"  // a pipeline that has not been in force since the start
)

// Report is what a configured pipeline shows of itself.
type Report struct {
	Name   string           `json:"name"`
	State  State            `json:"state"`
	Stream string           `json:"stream,omitempty"`
	Types  []string         `json:"types,omitempty"` // none: all
	Start  definition.Start `json:"start"`
	Paused bool             `json:"paused"`
	// Broken is why the file as it is now is not in force; what was goes on.
	Broken  string       `json:"broken,omitempty"`
	Version string       `json:"version,omitempty"` // of the newest steps
	Sinks   []SinkReport `json:"sinks"`
	// Backfills are those that go on.
	Backfills []BackfillReport `json:"backfills,omitempty"`

	// Steps and Versions are in the report of one pipeline alone.
	Steps    []StepReport    `json:"steps,omitempty"`
	Versions []VersionReport `json:"versions,omitempty"` // oldest first
}

// StepReport is one step.
type StepReport struct {
	Kind string `json:"kind"`
	SQL  string `json:"sql"` // what it computes
}

// VersionReport is a form of the steps that some sink has still to use.
type VersionReport struct {
	Version string `json:"version"`
	// From are the first places that it holds for; empty: from the beginning on.
	From event.Positions `json:"from"`
}

// SinkReport is what a sink shows of itself.
type SinkReport struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Guarantee string `json:"guarantee"`
	Where     string `json:"where,omitempty"` // which rows go to it; empty: all
	State     State  `json:"state"`
	// Counts of input events up to Positions, since the sink began, and Lag, those that
	// are still to come, add up to what was accepted for the stream.
	Counts    stream.Counts   `json:"counts"`
	Lag       int64           `json:"lag_events"`
	Positions event.Positions `json:"positions"`
	// Replays are those that the sink has not looked at yet; until then it has their
	// events among the rejections.
	Replays int64 `json:"replays_left,omitempty"`
	// LagSeconds is how long ago the oldest event was received that is not committed.
	LagSeconds float64   `json:"lag_seconds"`
	LastCommit time.Time `json:"last_commit,omitzero"`
	Commits    int64     `json:"commits"` // since the start, or since it was resumed
	Errors     int64     `json:"errors"`  // likewise
	LastError  string    `json:"last_error,omitempty"`
	Hint       string    `json:"hint,omitempty"`
}

// Reports shows all pipelines by name, also those that are broken. broken is why the
// folder cannot be read.
func (c *Configured) Reports(ctx context.Context) (all []Report, broken error) {
	c.mu.Lock()
	running, wrong := maps.Clone(c.mu.running), maps.Clone(c.mu.broken)
	c.mu.Unlock()
	names := maps.Clone(wrong)
	for name := range running {
		names[name] = nil
	}
	delete(names, "")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		all = append(all, c.report(ctx, name, running[name], wrong[name]))
	}
	return all, wrong[""]
}

// Report shows one pipeline, with steps and versions.
func (c *Configured) Report(ctx context.Context, name string) (Report, error) {
	c.mu.Lock()
	r, wrong := c.mu.running[name], c.mu.broken[name]
	c.mu.Unlock()
	if name == "" || r == nil && wrong == nil {
		_, err := c.find("")
		if name != "" {
			_, err = c.find(name)
		}
		return Report{}, err
	}
	out := c.report(ctx, name, r, wrong)
	if r == nil {
		return out, nil
	}
	for _, s := range r.def.Load().Steps {
		out.Steps = append(out.Steps, StepReport{Kind: s.Kind, SQL: s.SQL})
	}
	r.flow.mu.Lock()
	defer r.flow.mu.Unlock()
	for _, v := range r.flow.mu.state.Versions {
		out.Versions = append(out.Versions, VersionReport{Version: v.Hash, From: v.From.Clone()})
	}
	return out, nil
}

func (c *Configured) report(ctx context.Context, name string, r *running, wrong error) Report {
	out := Report{Name: name, State: Broken, Sinks: []SinkReport{}}
	if wrong != nil {
		out.Broken = wrong.Error()
	}
	if r == nil {
		return out
	}
	def := r.def.Load()
	out.State, out.Stream, out.Types, out.Start, out.Version = Running, def.From.Stream, def.From.Types, def.From.Start, def.Hash()
	if out.Paused = r.flow.paused(); out.Paused {
		out.State = Paused
	}
	r.mu.Lock()
	sinks := maps.Clone(r.mu.sinks)
	r.mu.Unlock()
	for _, s := range def.To {
		one := SinkReport{Name: s.Name, Kind: s.Kind.Name, Guarantee: s.Kind.Guarantee, Where: s.Where, State: Running}
		if run := sinks[s.Name]; run != nil {
			st := run.pipeline.Status()
			one.LastCommit, one.Commits, one.Errors, one.LastError, one.Hint = st.LastCommit, st.Commits, st.Errors, st.LastError, st.Hint
		}
		switch {
		case out.Paused:
			one.State = Paused
		case one.LastError != "":
			one.State, out.State = Failing, Failing
		}
		if err := c.lag(ctx, &one, name, def.From.Stream, sinkReader(name, s.Name)); err != nil {
			one.LastError = fmt.Sprintf("report how far it is: %v", err)
		}
		out.Sinks = append(out.Sinks, one)
	}
	for _, b := range r.flow.backfills() {
		x, err := r.report(ctx, b)
		if err != nil {
			x.LastError = fmt.Sprintf("report how far it is: %v", err)
		}
		out.Backfills = append(out.Backfills, x)
	}
	return out
}

// lag fills in what the log knows of a sink.
func (c *Configured) lag(ctx context.Context, out *SinkReport, pipeline, name, reader string) error {
	log := c.deps.Raw
	if log == nil {
		log = c.deps.Log
	}
	at, err := log.Progress(ctx, reader)
	if err != nil {
		return err
	}
	out.Counts, out.Positions = at.Counts, event.Positions{}
	for inc, parts := range at.Positions {
		for partition, off := range parts {
			if partition < replayLane {
				out.Positions.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	if out.Replays, err = replaysLeft(ctx, log, pipeline, at); err != nil {
		return err
	}
	st, err := log.Stat(ctx, name)
	if errors.Is(err, stream.ErrNoStream) {
		return nil // nothing has come yet
	}
	if err != nil {
		return err
	}
	if out.Lag = max(stream.Left(st, at), 0); out.Lag == 0 {
		return nil
	}
	oldest := time.Time{}
	for partition, from := range starts(st, at.Positions, nil) {
		from.Offset = max(from.Offset, beginOf(st, partition))
		if from.Offset >= endOf(st, partition).Offset {
			continue
		}
		when, err := c.received(ctx, log, name, from)
		if err != nil {
			return err
		}
		if oldest.IsZero() || when.Before(oldest) {
			oldest = when
		}
	}
	if !oldest.IsZero() {
		out.LagSeconds = max(time.Since(oldest).Seconds(), 0)
	}
	return nil
}

// replaysLeft is how many replays of a pipeline a sink has still to look at.
func replaysLeft(ctx context.Context, log stream.Log, pipeline string, at stream.Progress) (n int64, err error) {
	st, err := log.Stat(ctx, replayStream(pipeline))
	if errors.Is(err, stream.ErrNoStream) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for partition := range starts(st, nil, nil) {
		n += max(endOf(st, partition).Offset-max(stream.Reached(inReplayLane(st), at.Positions, partition+replayLane), beginOf(st, partition)), 0)
	}
	return n, nil
}

// maxTimes bounds the times of receipt in memory: sinks stand at few places, and stay
// there while they hang.
const maxTimes = 1024

// place is where an event stands.
type place struct {
	stream string
	event.Position
}

// received is when the first event at a place or behind was received.
func (c *Configured) received(ctx context.Context, log stream.Log, name string, at event.Position) (time.Time, error) {
	k := place{name, at}
	c.mu.Lock()
	when, known := c.mu.times[k]
	c.mu.Unlock()
	if known {
		return when, nil
	}
	b, err := log.Read(ctx, name, at, 1)
	if err != nil {
		return when, err
	}
	b.Without = nil
	var dec recordbatch.Decoder
	err = dec.EachIn(b, func(e *event.Event) error {
		when = e.ReceivedAt
		return recordbatch.ErrStop
	})
	if err != nil {
		return when, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.times) >= maxTimes {
		clear(c.mu.times)
	}
	c.mu.times[k] = when
	return when, nil
}
