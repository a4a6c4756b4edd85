package sink

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"naru/internal/event"
	"naru/internal/vfs"
)

// Kind is one kind of sink as it stands in `to:` of a pipeline:
//
//   - http: {url: "http://127.0.0.1:9000/hook"}
//
// The kinds are listed in internal/app.
type Kind struct {
	Name string // http
	// Settings returns the defaults, a pointer to a struct with yaml tags, which is
	// then filled strictly: an unknown key is a mistake that is told by line. A kind
	// that also takes a plain text (`table: human_edits`) has the tag `yaml:"..."` of
	// the field that it goes to in Short.
	Settings func() Settings
	Short    string
	// Tabular tells whether a sink with these settings needs to know columns and
	// their types, so that events that come without steps are made rows by SELECT *
	// first. nil: it does not.
	Tabular func(Settings) bool
	// Guarantee is what a user can rely on, one line: "exactly once", or "at least
	// once; the key is ...".
	Guarantee string
}

// Settings are those of one sink.
type Settings interface {
	// Validate tells what cannot work: an error begins with the key, as in
	// "url: must be ...".
	Validate() error
	// Open connects to the target. It is called again, with a pause, when it or the
	// sink has failed, so what is wrong for now is an error, not a panic.
	Open(ctx context.Context, env Env) (Sink, error)
}

// Seldom is optional for settings: whether a sink that commits once in so long can work.
// The error is one as of Validate.
type Seldom interface {
	CommitsEvery(interval time.Duration) error
}

// Env is what a sink gets of its pipeline.
type Env struct {
	Pipeline string
	Name     string // of the sink, unique in its pipeline
	Stream   string // that the pipeline reads
	// Reader names pipeline and sink for good, "pipeline/edits/http": a key for
	// positions that the target keeps.
	Reader string
	// Dir is the project's folder: relative paths begin there. State is a folder of
	// the sink's own below the data folder, which need not exist yet.
	Dir, State string
	FS         vfs.FS
	Getenv     func(string) string // for secrets: settings name a variable, never a secret
	Logger     *slog.Logger
}

// Refuser is an optional power: the target refuses single rows for good. Refused
// returns, once, those of the batches that the last Commit covers; the pipeline
// makes them rejections in the same step that moves the watermark. A sink that
// is not exact may return a row again when it is read again.
type Refuser interface {
	Refused() []Refusal
}

// Refusal is what has become of a row that is not in the target.
type Refusal struct {
	At     event.Position // of the event
	Row    int32
	Detail string // why, as the target says it
	// Dropped: the target has passed it over on purpose; it counts as filtered.
	Dropped bool
}

// Preparer is an optional power of a Refuser that is also a Resumer, and so exact.
// Prepare brings everything to the target but for the commit itself, so that what
// the target refuses is known; Refused then has it. The pipeline makes that durable
// before it calls Commit, and when the events are read again, after a crash between
// the two, these rows are left out: so no refusal is lost and none is told twice.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// ReplayLane: partitions from here on are none of a stream's. Under them stand the places
// of a pipeline's replays, among the positions of a sink; no stream has so many.
const ReplayLane = 1 << 20

// Rewinder is an optional power of a Resumer: its target goes back, so that the sink
// gets all from a place on again. The place is given as the first offsets that go, in
// each life of the log and partition of which something goes (0: all of it); what the
// target has of others stays.
type Rewinder interface {
	// Rewindable gives the place to which the target can be taken back so that it has
	// nothing from there on any more: the one that is asked for, or one before it. It
	// changes nothing, and the sink is closed next. ErrStays: it cannot, for a reason
	// that stays; the rows can only be sent again.
	Rewindable(ctx context.Context, from event.Positions) (event.Positions, error)
	// Rewind takes the target back to a place that Rewindable has given, durably, and
	// Resume says so from then on. With again its rows stay as they are, and come
	// again. It may be called again with the same place, after a crash too.
	Rewind(ctx context.Context, from event.Positions, again bool) error
}

// ErrStays: the target cannot give back rows that it has.
var ErrStays = errors.New("what the target has stays there")

// Lowered is what is left of positions when all from a place on goes, given as for a
// Rewinder.
func Lowered(have, from event.Positions) event.Positions {
	out := have.Clone()
	for inc, parts := range from {
		for partition, off := range parts {
			if had, ok := out.Get(inc, partition); ok {
				out[inc][partition] = min(had, off)
			}
		}
	}
	return out
}

// Shadower is an optional power of Settings: the target can be filled anew beside
// itself, and then replaced at once.
type Shadower interface {
	Settings
	// Target names what the settings write to, unique in its pipeline.
	Target() string
	// Shadow is another target beside the one of that name, or, when into is empty, one
	// that is to replace it. An error says why into is no name for it.
	Shadow(target, into string) (Shadow, error)
}

// Shadow is such a target: its Open gives a sink like any other. Every call may be made
// again, after a crash or an answer that was lost.
type Shadow interface {
	Settings
	// Exists tells whether there is something of that name already.
	Exists(ctx context.Context, env Env) (bool, error)
	// Make makes it, at a place, with the rows of the target whose events are kept: those
	// are not written again. It does nothing when it is there.
	Make(ctx context.Context, env Env, at event.Positions, keep func(at event.Position) bool) error
	// Swap puts it in the place of the target, durably: whoever reads sees the one or the
	// other. It does nothing when that is done. No sink of both may be open.
	Swap(ctx context.Context, env Env) error
	// Drop removes it, or what it has replaced, when nobody reads that any more.
	Drop(ctx context.Context, env Env) error
}
