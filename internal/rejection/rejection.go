// Package rejection keeps account of refused events: which are open, which were
// sent again, which nobody wants any more. A rejection is its position in the
// stream `rejected`; its states are records of the stream `rejected_states`,
// each in the same append as the event that it tells of. docs/rejected.md says it
// to users, docs/design/0017 why it is so.
package rejection

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/stream"
)

// State of a rejection.
type State string

// The states. Replayed and Discarded are final.
const (
	Open      State = "open"
	Replayed  State = "replayed"
	Discarded State = "discarded"
)

// Config bounds what replays cost.
type Config struct {
	// Page is how many bytes of refused events a replay takes in hand at once; it
	// appends them in one piece, or in smaller ones where the log asks for that.
	Page quantity.Bytes `yaml:"page"`
	// Memory that the index of closed rejections may take: one bit each.
	Memory quantity.Bytes `yaml:"memory"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Page: 4 * quantity.MiB, Memory: 64 * quantity.MiB} }

// Validate tells which value cannot work, by its key.
func (c Config) Validate() error {
	var errs []error
	if c.Page < quantity.KiB || c.Page > 64*quantity.MiB {
		errs = append(errs, errors.New("page: must be between 1KiB and 64MiB"))
	}
	if c.Memory < 64*quantity.KiB {
		errs = append(errs, errors.New("memory: must be at least 64KiB"))
	}
	return errors.Join(errs...)
}

// pageEvents is the most events of a page.
const pageEvents = 1024

// Filter chooses rejections; what is empty does not choose. JSON as over HTTP.
type Filter struct {
	ID     string `json:"id,omitempty"` // one, by its name
	Type   string `json:"type,omitempty"`
	Reason string `json:"reason,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Path   string `json:"path,omitempty"`
	Stream string `json:"stream,omitempty"` // that they were meant for
	Source string `json:"source,omitempty"`
	// Pipeline that refused them, by its name.
	Pipeline string    `json:"pipeline,omitempty"`
	Since    time.Time `json:"since,omitzero"` // first received then or later
	Until    time.Time `json:"until,omitzero"` // first received before then
}

// Empty tells whether f chooses all.
func (f Filter) Empty() bool { return f == Filter{} }

// Lane is one partition of the stream `rejected` in one life of the log.
type Lane struct {
	Incarnation event.Incarnation
	Partition   int32
	First, Last int64 // offsets of its rejections
	Count       int64
}

// Entry is a rejection of a lane.
type Entry struct {
	Offset int64
	Size   int64 // bytes of the event
}

// Door judges a refused event again and makes records of those that it accepts
// now: see native.Replay.
type Door interface {
	// Judge takes a record of the stream rejected, whose Origin is its place there. A nil
	// refusal: it is accepted, as the number-th event of its partition in Writes.
	Judge(rejected *event.Event) (refusal *event.Rejection, partition int32, number int, err error)
	// Writes are all accepted events, partition by partition, until Release.
	Writes() []stream.Write
	Release()
}

// Rejections changes the states of rejections. Safe for concurrent use.
type Rejections struct {
	cfg   Config
	deps  Deps
	mu    sync.Mutex // held while states are decided and appended: one page at a time
	known *closed    // nil: to be made from what the log and the table have

	counts Counts
}

// Counts are of this process, since it began.
type Counts struct{ Replayed, Refused, Discarded atomic.Int64 }

// Counts counts what was done, dry runs left out.
func (r *Rejections) Counts() *Counts { return &r.counts }

// Deps are what Rejections work with.
type Deps struct {
	Log   stream.Log
	Store Store
	// Door begins to judge events again that go to a stream; Pipeline those that the
	// pipeline of that name has refused: they go to that one alone.
	Door, Pipeline Opener
	Logger         *slog.Logger
	Now            func() time.Time // nil: time.Now
}

// New makes Rejections; it touches nothing yet.
func New(cfg Config, deps Deps) (*Rejections, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure rejected: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Rejections{cfg: cfg, deps: deps}, nil
}

// errName: it is not the name of a rejection.
var errName = errors.New("not the name of a rejection")

// ParseID reads the name of a rejection, its position as naru rejected ls shows
// it: LOG/PARTITION/OFFSET.
func ParseID(id string) (event.Position, error) {
	var p event.Position
	parts := strings.Split(id, "/")
	if len(parts) != 3 {
		return p, fmt.Errorf("%w: %q; one is LOG/PARTITION/OFFSET, as naru rejected ls shows it", errName, id)
	}
	inc, err := event.ParseIncarnation(parts[0])
	partition, perr := strconv.ParseInt(parts[1], 10, 32)
	offset, oerr := strconv.ParseInt(parts[2], 10, 64)
	p = event.Position{Incarnation: inc, Partition: int32(partition), Offset: offset}
	if err != nil || perr != nil || oerr != nil || partition < 0 || offset < 0 || p.String() != id { // one name for each
		return event.Position{}, fmt.Errorf("%w: %q; one is LOG/PARTITION/OFFSET, as naru rejected ls shows it", errName, id)
	}
	return p, nil
}
