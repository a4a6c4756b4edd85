package sink

import (
	"context"
	"log/slog"

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
