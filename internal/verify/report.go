package verify

import (
	"cmp"
	"slices"
	"time"

	"naru/internal/event"
)

// Report is what a run found.
type Report struct {
	Folder string `json:"folder,omitempty"`
	// Clean: nothing is missing and nothing is doubled; Differences is empty.
	Clean bool `json:"clean"`
	Deep  bool `json:"deep"`
	// Beside tells that a server was at work on the folder meanwhile.
	Beside  bool     `json:"beside_server"`
	Log     Log      `json:"log"`
	Streams []Stream `json:"streams"`
	// Pipelines are the tables that configured pipelines fill.
	Pipelines []Table `json:"pipelines"`
	// Differences are what should not be.
	Differences []Difference `json:"differences"`
	// Explained are rows and events whose absence or presence is accounted for:
	// cut by a repair, removed by another engine, dropped unread as configured.
	Explained []Difference  `json:"explained"`
	Seconds   float64       `json:"seconds"`
	Took      time.Duration `json:"-"`
}

// Log is what was read of the log.
type Log struct {
	Incarnation event.Incarnation `json:"incarnation"`
	Segments    int               `json:"segments"`
	Bytes       int64             `json:"bytes"`
	Events      int64             `json:"events"`
}

// Stream is the equation of one stream, in input events, each term counted from
// what is there:
//
//	acknowledged = written + rejections + duplicates + filtered + not yet written + explained
type Stream struct {
	Stream       string `json:"stream"`
	Acknowledged int64  `json:"acknowledged"` // as the log counts
	// Written events have a row in a table.
	Written    int64 `json:"written"`
	Rejections int64 `json:"rejections"` // they are in the stream rejected, and verified there
	Duplicates int64 `json:"duplicates"`
	Filtered   int64 `json:"filtered"`
	// NotYetWritten events are in the log, behind what their table covers.
	NotYetWritten int64 `json:"not_yet_written"`
	// Explained events have no row for a reason that Report.Explained names.
	Explained int64 `json:"explained"`
	// Unread events are in tables that cannot be read.
	Unread   int64 `json:"unread"`
	Balanced bool  `json:"balanced"`
	InLog    int64 `json:"in_log"` // events that the log still has
	// States of the rejections, of the stream rejected.
	States *States `json:"states,omitempty"`
	Tables []Table `json:"tables"`
}

// Table is what was read of one table.
type Table struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	Files int    `json:"files"`
	// Foreign rows name no place in the log: another writer made them.
	Foreign int64 `json:"foreign_rows"`
	// Note says why the table is not verified, or what is special about it.
	Note string `json:"note,omitempty"`
}

// Kind of a difference. One word, stable: scripts match on it.
type Kind string

// Differences.
const (
	Missing    Kind = "missing"     // an event that its table covers, or the watermark has passed, has no row
	Doubled    Kind = "doubled"     // an event has more than one row
	Judged     Kind = "duplicate"   // an event that was judged to be a duplicate has a row
	Misplaced  Kind = "misplaced"   // an event's row is in another table than its type's
	Unclaimed  Kind = "unclaimed"   // a row at or behind its table's own positions: it will be loaded again
	Skipped    Kind = "skipped"     // the watermark has passed an event that its table does not cover: it will not be loaded
	Ahead      Kind = "ahead"       // a row of an event that the log has not
	UnknownLog Kind = "unknown_log" // rows of a log that this folder does not know
	NoTable    Kind = "no_table"    // the watermark has passed events whose table does not exist
	Stopped    Kind = "stopped"     // a table that naru refuses, or that cannot be read
	BadFile    Kind = "file"        // a data file that cannot be read, or has another number of rows than its manifest says
	BadLog     Kind = "log"         // damage in the log
	BadCounts  Kind = "counts"      // counters that do not agree with what is there
	Content    Kind = "content"     // a row says something else than its event (deep)
	State      Kind = "state"       // a rejection's state and the event that was sent again do not agree
)

// Explained.
const (
	Cut           Kind = "cut"            // rows beyond the end of a closed incarnation: a repair cut their events off
	Removed       Kind = "removed"        // another engine has removed the rows
	Lost          Kind = "lost"           // a repair has given the events up
	DroppedUnread Kind = "dropped_unread" // retention dropped them before they were read (log.drop_unread)
	Remade        Kind = "remade"         // they went with a table of the same name that was dropped
)

// Difference names some events or rows of one stream-partition, or a place on
// disk.
type Difference struct {
	Kind      Kind               `json:"kind"`
	Stream    string             `json:"stream,omitempty"`
	Log       *event.Incarnation `json:"log,omitempty"`
	Partition int32              `json:"partition"`
	Table     string             `json:"table,omitempty"`
	Count     int64              `json:"count,omitempty"`
	// Offsets, first and last of each run; at most maxSpans, then OffsetsCut.
	Offsets    []Span   `json:"offsets,omitempty"`
	OffsetsCut bool     `json:"offsets_cut,omitempty"`
	Files      []string `json:"files,omitempty"`
	Detail     string   `json:"detail,omitempty"`
	Hint       string   `json:"hint,omitempty"`
}

// Span is a run of offsets, both ends included.
type Span struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// maxSpans bounds the runs of offsets in one difference, maxFiles its files;
// Count goes on counting.
const (
	maxSpans = 100
	maxFiles = 20
)

// findings collects differences: what is of one kind, place, table and detail
// is one.
type findings struct {
	list   []*Difference
	known  map[findingKey]*Difference
	chunks map[chunkAt]bool // where something was found
}

type findingKey struct {
	kind          Kind
	lane          *lane
	table, detail string
}

// add notes one event or row.
func (f *findings) add(kind Kind, l *lane, table string, offset int64, detail string, files ...string) *Difference {
	key := findingKey{kind, l, table, detail}
	d := f.known[key]
	if d == nil {
		d = &Difference{Kind: kind, Stream: l.stream, Log: &l.inc, Partition: l.partition, Table: table, Detail: detail}
		if f.known == nil {
			f.known = map[findingKey]*Difference{}
		}
		f.known[key] = d
		f.list = append(f.list, d)
	}
	if f.chunks == nil {
		f.chunks = map[chunkAt]bool{}
	}
	f.chunks[chunkAt{l, offset >> chunkBits}] = true
	d.Count++
	switch n := len(d.Offsets); {
	case n > 0 && d.Offsets[n-1].Last+1 == offset:
		d.Offsets[n-1].Last = offset
	case n > 0 && d.Offsets[n-1].First <= offset && offset <= d.Offsets[n-1].Last:
	case n < maxSpans:
		d.Offsets = append(d.Offsets, Span{offset, offset})
	default:
		d.OffsetsCut = true
	}
	for _, p := range files {
		if len(d.Files) < maxFiles && !slices.Contains(d.Files, p) {
			d.Files = append(d.Files, p)
		}
	}
	return d
}

// note adds what is no event or row.
func (f *findings) note(d Difference) { f.list = append(f.list, &d) }

// count sums the events and rows of a kind in a stream.
func (f *findings) count(stream string, kinds ...Kind) (n int64) {
	for _, d := range f.list {
		if d.Stream == stream && slices.Contains(kinds, d.Kind) {
			n += d.Count
		}
	}
	return n
}

func (f *findings) sorted() []Difference {
	out := make([]Difference, 0, len(f.list))
	for _, d := range f.list {
		out = append(out, *d)
	}
	slices.SortStableFunc(out, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Table, b.Table))
	})
	return out
}
