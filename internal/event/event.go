// Package event holds naru's words: an event, where it stands in the log
// (Position), how far a reader has got (Positions), what is read at once
// (Batch), and an event that was refused (Rejection).
package event

import (
	"strings"
	"time"
)

// DefaultStream is where events go when the client names none.
const DefaultStream = "events"

// RejectedStream keeps refused events with their reason and original bytes.
const RejectedStream = "rejected"

// RejectedStates is the stream of what has become of rejections: records of
// naru's own, one for each change of state and each attempt that failed again.
// Its events have the type of the same name, so its table has it, too.
const RejectedStates = "rejected_states"

// internalPrefix begins the names of streams that naru keeps for itself.
const internalPrefix = "_"

// Internal tells whether a stream is one that naru keeps for itself: it has no
// pipeline, no table and no place in reports.
func Internal(stream string) bool { return strings.HasPrefix(stream, internalPrefix) }

// DefaultType is the type of an event that gives none (EXACTNESS 5).
const DefaultType = "event"

// Event is one fact: a CloudEvent. Byte slices alias the buffer they were
// decoded from and are valid only as long as that buffer is.
type Event struct {
	ID          []byte
	Source      []byte
	Type        []byte
	Subject     []byte    // nil when absent
	Time        time.Time // zero when the client gave none (or none that parses)
	ContentType []byte    // media type of Data; nil means application/json
	Data        []byte    // byte for byte as sent
	Extensions  []Attr    // CloudEvents extension attributes, dataschema included
	Key         []byte    // partition key: ordering holds per key

	// GeneratedID says that naru made the ID; such an event is never a duplicate.
	GeneratedID bool

	// Row numbers the rows that steps have made of one event, from 0. Partition,
	// offset and row name a row for good: read again, it is the same.
	Row int32
	// To says of a row for which sinks the `where` is true: bit n is the sink of the
	// n-th step that has one (transform.Step.To).
	To uint64

	// Sent is the digest of the bytes as they were sent, where what is stored is
	// not the same (a contract's PII action); nil: it is.
	Sent []byte

	// Set by the log.
	Offset     int64
	ReceivedAt time.Time

	// Origin is where the event stands that a row was made of, if that is not its place
	// in the batch: a replay; or where a rejection stands that is read from its table.
	Origin *Position

	// Contract is the one that the event was held against at the door; zero: none.
	Contract Contract
	// Violations is what a contract that only observes found wrong: a JSON array
	// of {"rule", "path", "detail"}. nil: nothing.
	Violations []byte

	// JSONStrings are the paths of strings that hold JSON, which becomes columns: a
	// JSON array of texts, keys joined with '.'. nil: none.
	JSONStrings []byte

	// Refusal is set on records of the stream `rejected`.
	Refusal *Rejection
}

// Place is where the event stands that e was made of; at is its place in the batch.
func (e *Event) Place(at Position) Position {
	if e.Origin != nil {
		return *e.Origin
	}
	return at
}

// Contract names the contract that an event was held against.
type Contract struct{ ID, Version, Hash []byte }

// Attr is a CloudEvents extension attribute.
type Attr struct{ Name, Value []byte }

// Reason says why an event was refused. One word, stable: scripts match on it.
type Reason string

// The reasons of the native door.
const (
	NotJSON      Reason = "not_json"      // the line or item is not valid JSON
	NotObject    Reason = "not_object"    // valid JSON, but not an object
	TooLarge     Reason = "too_large"     // larger than limits.event
	BadAttribute Reason = "bad_attribute" // a CloudEvents attribute is missing or malformed
	BadContract  Reason = "contract"      // the contract of its type is broken; Rule and Path say how
)

// The reasons of pipelines. Rule is then "pipeline/" and its name; Path is the
// step, as in "2 filter" or "where of SINK", or the name of the sink.
const (
	StepFailed  Reason = "step" // a step could not be computed on the event
	SinkRefused Reason = "sink" // the target of a sink has refused the row for good
)

// The reasons for which what a pipeline has refused stays refused when it is replayed,
// besides those for which it is refused again.
const (
	NoPipeline Reason = "no_pipeline" // the pipeline or the sink is not there, or reads another stream
	EventGone  Reason = "event_gone"  // the log has the event no more
	Recomputed Reason = "recomputed"  // the pipeline was rewound over it since: what came of it then holds
)

// Rejection is an event that was refused: data, never a Go error, never dropped.
type Rejection struct {
	Index   int    // place of the item in its request, from 0
	ID      string // the event's id when it could be read
	Type    string // the type it would have had, when known
	Stream  string // the stream it was meant for
	Reason  Reason
	Detail  string // what and where, and the cure
	Rule    string // of the contract, the first that is broken; or the pipeline
	Path    string // JSONPath of what breaks it; or the step or sink
	Changed bool   // a contract's PII action has changed Original
	// At is where the event stands that a pipeline has refused: the key of its row, as
	// sink.AppendKey has it, number 0 where no row is to blame. Empty: the door's.
	At       string
	Original []byte // the bytes as sent
}
