// Package status says what every stream and table has and lacks, and checks
// the one equation of EXACTNESS: acknowledged = written + rejections +
// duplicates + filtered + not yet written, and, where log.drop_unread allows it,
// + dropped unread, and + lost where a repair could not save everything.
package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/stream"
)

// Report is what /v1/status answers.
type Report struct {
	Version string    `json:"version"`
	Folder  Folder    `json:"folder"`
	Started time.Time `json:"started"`
	// Balanced says that the equation holds for every stream.
	Balanced bool     `json:"balanced"`
	Streams  []Stream `json:"streams"`
	Tables   []Table  `json:"tables"`
	// Contracts are those that events are judged by; nil where nothing is.
	Contracts *Contracts `json:"contracts,omitempty"`
	// Problems are what people should look at, with the cure.
	Problems []string `json:"problems"`
}

// Folder names the project. Its ID stays the same as long as its data does.
type Folder struct {
	ID   string `json:"id"`
	Root string `json:"root"`
	Free int64  `json:"free_bytes"` // on the disk that holds it
}

// Contracts says which contracts are in force.
type Contracts struct {
	InForce int       `json:"in_force"`
	Loaded  time.Time `json:"loaded"`
	// Tables are, by type, those that contracts in force name (naru.table).
	Tables map[string]string `json:"tables,omitempty"`
	// Error is why what is in the folder is not in force; empty: it is.
	Error string    `json:"error,omitempty"`
	Cure  string    `json:"cure,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Stream counts one stream's input events, as one pipeline sees them.
type Stream struct {
	Stream   string `json:"stream"`
	Pipeline string `json:"pipeline,omitempty"` // none has begun when empty

	Acknowledged  int64 `json:"acknowledged"`
	Written       int64 `json:"written"`
	Rejections    int64 `json:"rejections"` // at the door and by steps
	Duplicates    int64 `json:"duplicates"`
	Filtered      int64 `json:"filtered"`
	NotYetWritten int64 `json:"not_yet_written"`
	// DroppedUnread events went by retention before the pipeline had read them
	// (log.drop_unread).
	DroppedUnread int64 `json:"dropped_unread"`
	// Overtaken events went so as well, and the pipeline has not counted them
	// yet: they are part of NotYetWritten, and some may be in tables.
	Overtaken int64 `json:"overtaken,omitempty"`
	// Lost events could not be saved by a repair of the log, and the pipeline had
	// not counted them: a term of the equation.
	Lost int64 `json:"lost,omitempty"`
	// Cut events were written before a repair cut them off the log, which does not
	// count them as acknowledged any more. Their rows stay; no term has them.
	Cut      int64 `json:"cut,omitempty"`
	Balanced bool  `json:"balanced"`

	// Dedupe tells of the judge of its duplicates; nil when none works.
	Dedupe *Dedupe `json:"dedupe,omitempty"`

	// Of the stream rejected. Its events were acknowledged for the streams
	// they were sent to, and are counted there; so it has none of its own.
	// Neither has rejected_states, whose records are naru's own.
	Kept        int64 `json:"kept,omitempty"`          // events in it
	KeptInTable int64 `json:"kept_in_table,omitempty"` // of these in the table
	// Replayed rejections were sent again to their streams, and are counted there.
	Replayed int64 `json:"replayed,omitempty"`

	// Lag is the age of the oldest row that waits for its commit, in seconds.
	Lag         float64           `json:"lag_seconds"`
	Incarnation event.Incarnation `json:"log"`
	Bytes       int64             `json:"bytes"` // in the log, roughly
	LastCommit  time.Time         `json:"last_commit,omitzero"`
	Error       string            `json:"error,omitempty"`
	Hint        string            `json:"hint,omitempty"`
}

// Dedupe is what the judge of duplicates says of one stream.
type Dedupe struct {
	Stream string `json:"-"`
	// Found are the duplicates and Conflicts the events, kept, with an id that was
	// there before with other bytes: since judging began, whatever pipelines count.
	Found     int64 `json:"duplicates"`
	Conflicts int64 `json:"id_conflicts"`
	IDs       int64 `json:"ids"` // remembered now
	Disk      int64 `json:"disk_bytes"`
	Memory    int64 `json:"memory_bytes"`
	// Window is for how long back ids are known: dedupe.window, or less when the
	// index is full.
	Window float64 `json:"window_seconds"`
	// Configured is dedupe.window, in seconds.
	Configured  float64 `json:"configured_window_seconds"`
	Error, Hint string  `json:"-"`
}

// Table is one table of the lake.
type Table struct {
	Table      string    `json:"table"`
	Rows       int64     `json:"rows"`
	Pending    int64     `json:"pending_rows"` // not yet committed
	Lag        float64   `json:"lag_seconds"`  // age of the oldest of these
	Rescued    int64     `json:"rescued"`      // values in _rescued, at least
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
	LastCommit time.Time `json:"last_commit,omitzero"`
	Error      string    `json:"error,omitempty"`
	Hint       string    `json:"hint,omitempty"`
}

// Pending is what waits for its commit in one table.
type Pending struct {
	Table       lake.Ident
	Rows        int64
	Since       time.Time // of the oldest row
	Error, Hint string    // why the table takes no rows
}

// Pipeline is what a running pipeline says of itself.
type Pipeline struct {
	Name, Stream string
	Progress     stream.Progress
	LastCommit   time.Time
	Error, Hint  string
}

// Source is what a report is made of. Safe for concurrent use.
type Source struct {
	Version string
	Started time.Time
	Folder  func() Folder
	Log     stream.Log
	Lake    lake.Reader
	// Pipelines lists those that run; nil when none do.
	Pipelines func() []Pipeline
	// Pending lists what waits for its commit, table by table; nil when nothing
	// is loaded.
	Pending func() []Pending
	// Contracts tells what is in force; nil: nothing is judged.
	Contracts func() Contracts
	// Dedupe lists what judges of duplicates say; nil when none work.
	Dedupe func() []Dedupe
	// Unready tells why no events are taken; nil, or nil from it: they are.
	Unready func() error
	Now     func() time.Time // nil: time.Now
}

// lag is the age of a moment in seconds; 0 for none.
func (s *Source) lag(since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return max(now().Sub(since).Seconds(), 0)
}

// pending gives what waits, by table.
func (s *Source) pending() map[lake.Ident]Pending {
	out := map[lake.Ident]Pending{}
	if s.Pending != nil {
		for _, p := range s.Pending() {
			out[p.Table] = p
		}
	}
	return out
}

// Streams reports the streams alone.
func (s *Source) Streams(ctx context.Context) ([]Stream, error) {
	// Progress is read before the ends of the streams: what is read later can
	// only be further on, so nothing is ever less than nothing.
	pipelines, err := s.pipelines(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.Log.Streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	lags := map[string]float64{}
	for id, p := range s.pending() {
		lags[id.Namespace] = max(lags[id.Namespace], s.lag(p.Since))
	}
	out := []Stream{}
	found := map[string]Dedupe{}
	if s.Dedupe != nil {
		for _, d := range s.Dedupe() {
			found[d.Stream] = d
		}
	}
	for _, name := range names {
		if event.Internal(name) {
			continue
		}
		st, err := s.Log.Stat(ctx, name)
		if errors.Is(err, stream.ErrNoStream) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("stat %s: %w", name, err)
		}
		loaded := false
		for _, p := range pipelines {
			if p.Stream == name {
				out = append(out, count(st, p))
				loaded = true
			}
		}
		if !loaded {
			out = append(out, count(st, Pipeline{}))
		}
	}
	for i := range out {
		out[i].Lag = lags[out[i].Stream]
		if d, ok := found[out[i].Stream]; ok {
			out[i].Dedupe = &d
		}
	}
	return out, nil
}

// pipelines joins what runs with what the log remembers of those that do not.
func (s *Source) pipelines(ctx context.Context) ([]Pipeline, error) {
	var out []Pipeline
	seen := map[string]bool{}
	if s.Pipelines != nil {
		for _, p := range s.Pipelines() {
			out = append(out, p)
			seen[p.Name] = true
		}
	}
	log, ok := s.Log.(stream.Readers)
	if !ok {
		return out, nil
	}
	readers, err := log.Readers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list readers: %w", err)
	}
	for name, at := range readers {
		if !seen[name] && stream.Counting(name) {
			out = append(out, Pipeline{Name: name, Stream: at.Stream, Progress: at})
		}
	}
	slices.SortFunc(out, func(a, b Pipeline) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// count balances a stream's acknowledgements against a pipeline's counts. What
// is left over is not yet written. That holds together if it is not negative,
// and if nothing is left once the pipeline stands at the end of the stream.
func count(st stream.Stat, p Pipeline) Stream {
	c := p.Progress.Counts
	own := st.Stream == event.RejectedStream || st.Stream == event.RejectedStates
	replayed := int64(0)
	if own { // what was sent again stays in it
		replayed, st.Refused = st.Refused, 0
	}
	s := Stream{
		Stream: st.Stream, Pipeline: p.Name, Acknowledged: st.Acknowledged,
		Written: c.Written, Rejections: st.Refused + c.Rejections, Duplicates: c.Duplicates, Filtered: c.Filtered, DroppedUnread: c.Dropped,
		Incarnation: st.Incarnation, Bytes: st.Bytes, LastCommit: p.LastCommit, Error: p.Error, Hint: p.Hint,
	}
	repairs := stream.RepairsOf(st, p.Progress)
	s.Lost, s.Cut = repairs.Lost, repairs.Cut
	s.Written -= s.Cut // in a pipeline without steps every event that was counted was written
	s.NotYetWritten = stream.Left(st, p.Progress)
	if p.Name != "" {
		for _, g := range stream.Gaps(st, p.Progress) {
			s.Overtaken += g.Events
		}
	}
	s.Balanced = s.NotYetWritten >= 0 && (s.NotYetWritten == 0 || !atEnd(st, p.Progress.Positions))
	if own {
		s.Kept, s.KeptInTable, s.Replayed = s.Acknowledged, s.Written, replayed
		s.Acknowledged, s.Written = 0, 0
	}
	return s
}

// atEnd tells whether positions cover all that the stream holds.
func atEnd(st stream.Stat, at event.Positions) bool {
	covered := false
	for _, r := range st.Ranges {
		if r.End == r.Start {
			continue
		}
		next, ok := at.Get(r.Incarnation, r.Partition)
		if !ok || next < r.End {
			return false
		}
		covered = true
	}
	return covered
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

// Tables reports the tables alone. A table that cannot be read is in the list
// with its error.
func (s *Source) Tables(ctx context.Context) ([]Table, error) {
	idents, err := s.Lake.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	out := []Table{}
	waiting := s.pending()
	for _, id := range idents {
		info, err := s.Lake.Info(ctx, id)
		if errors.Is(err, lake.ErrNoTable) {
			continue // dropped since
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			out = append(out, Table{Table: id.String(), Error: err.Error()})
			continue
		}
		t := Table{Table: id.String(), Rows: info.Rows, Files: info.Files, Bytes: info.Bytes, LastCommit: info.LastCommit}
		for _, r := range info.Rescued {
			t.Rescued += r.Count
		}
		w := waiting[id]
		t.Pending, t.Lag, t.Error, t.Hint = w.Rows, s.lag(w.Since), w.Error, w.Hint
		out = append(out, t)
		delete(waiting, id)
	}
	for id, w := range waiting { // before its first commit
		out = append(out, Table{Table: id.String(), Pending: w.Rows, Lag: s.lag(w.Since), Error: w.Error, Hint: w.Hint})
	}
	slices.SortFunc(out, func(a, b Table) int { return strings.Compare(a.Table, b.Table) })
	return out, nil
}

// Report is everything.
func (s *Source) Report(ctx context.Context) (*Report, error) {
	r := &Report{Version: s.Version, Folder: s.Folder(), Started: s.Started, Balanced: true, Problems: []string{}}
	var err error
	if r.Streams, err = s.Streams(ctx); err != nil {
		return nil, err
	}
	if r.Tables, err = s.Tables(ctx); err != nil {
		return nil, err
	}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	if s.Unready != nil {
		if err := s.Unready(); err != nil {
			problem("no events are taken: %s", fault.Sentence(err))
		}
	}
	if s.Contracts != nil {
		c := s.Contracts()
		if r.Contracts = &c; c.Error != "" {
			problem("contracts/ is broken and those read before stay in force: %s%s", strings.ReplaceAll(c.Error, "\n", "; "), cure(c.Cure))
		}
	}
	if log, ok := s.Log.(stream.Retainer); ok {
		readers, reason := log.Waits()
		if pipelines := slices.DeleteFunc(slices.Clone(readers), func(r string) bool { return !stream.Counting(r) }); len(pipelines) > 0 {
			readers = pipelines // the judge reads for them
		}
		if len(readers) > 0 {
			problem("retention waits for %s: the log grows beyond log.retain_%s until what it has is read; log.drop_unread would drop it",
				strings.Join(readers, ", "), reason)
		}
	}
	judged := ""
	for _, st := range r.Streams {
		if d := st.Dedupe; d != nil && judged != st.Stream {
			judged = st.Stream
			if d.Error != "" {
				problem("duplicates of stream %s cannot be told, and its events wait: %s%s", st.Stream, d.Error, cure(d.Hint))
			}
			if d.Window < d.Configured {
				problem("the index of ids of stream %s is full: duplicates are known for %s back, not %s; raise dedupe.index, or shorten dedupe.window",
					st.Stream, seconds(d.Window), seconds(d.Configured))
			}
		}
		if st.DroppedUnread > 0 {
			problem("retention dropped %d events of stream %s before pipeline %s had read them (log.drop_unread): they are in no table",
				st.DroppedUnread, st.Stream, st.Pipeline)
		}
		if st.Lost > 0 {
			problem("a repair of the log could not save %d events of stream %s that pipeline %s had not read: they are in no table; losses.ndjson in the log's folder names them",
				st.Lost, st.Stream, st.Pipeline)
		}
		if st.Overtaken > 0 {
			problem("retention dropped up to %d events of stream %s that pipeline %s had not got past (log.drop_unread); it counts them when it goes on",
				st.Overtaken, st.Stream, st.Pipeline)
		}
		if !st.Balanced {
			r.Balanced = false
			problem("stream %s does not add up: %d acknowledged, %d left over behind pipeline %s; report this with the folder's log",
				st.Stream, st.Acknowledged, st.NotYetWritten, st.Pipeline)
		}
		if st.Error != "" {
			problem("pipeline %s: %s%s", st.Pipeline, st.Error, cure(st.Hint))
		}
	}
	for _, t := range r.Tables {
		if t.Error != "" {
			problem("table %s: %s%s", t.Table, t.Error, cure(t.Hint))
		}
	}
	return r, nil
}

func cure(hint string) string {
	if hint == "" {
		return ""
	}
	return "; " + hint
}
