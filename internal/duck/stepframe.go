package duck

import (
	"bytes"
	"errors"
	"time"
	"unsafe"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"naru/internal/event"
	"naru/internal/lake/columnar"
	"naru/internal/query"
)

// sources are the events that steps are computed on, without what only the stage needs
// of them. Texts stand in one piece of memory, and one that is repeated stands there once,
// so that there is nothing to follow for the collector, however many there are.
type sources struct {
	list   []source
	text   []byte
	frames int // that rows have of them
}

type source struct {
	id, source, typ, subject, key span
	time, received                stamp
	offset                        int64
	generated                     bool
}

// span is a part of sources.text; from < 0: nil.
type span struct{ from, to int32 }

// stamp is a time; nano < 0: none.
type stamp struct {
	second int64
	nano   int32
	east   int32 // seconds that it was written with: +02:00 has 7200
}

func (s *sources) len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// add copies an event, and returns how many bytes that took.
func (s *sources) add(e *event.Event) int {
	var last source
	before := len(s.text)
	if n := len(s.list); n > 0 {
		last = s.list[n-1]
	}
	s.list = append(s.list, source{
		id: s.keep(e.ID, span{}), source: s.keep(e.Source, last.source), typ: s.keep(e.Type, last.typ), subject: s.keep(e.Subject, last.subject), key: s.keep(e.Key, last.key),
		time: stampOf(e.Time), received: stampOf(e.ReceivedAt), offset: e.Offset, generated: e.GeneratedID,
	})
	return len(s.text) - before
}

// keep copies a text, unless it is that at last.
func (s *sources) keep(b []byte, last span) span {
	if b == nil {
		return span{-1, -1}
	}
	if last.from >= 0 && last.to > last.from && bytes.Equal(b, s.text[last.from:last.to]) {
		return last
	}
	from := len(s.text)
	s.text = append(s.text, b...)
	return span{int32(from), int32(len(s.text))}
}

func (s *sources) at(p span) []byte {
	if p.from < 0 {
		return nil
	}
	return s.text[p.from:p.to:p.to]
}

func stampOf(t time.Time) stamp {
	if t.IsZero() {
		return stamp{nano: -1}
	}
	_, east := t.Zone()
	return stamp{t.Unix(), int32(t.Nanosecond()), int32(east)}
}

func (s stamp) time() time.Time {
	if s.nano < 0 {
		return time.Time{}
	}
	t := time.Unix(s.second, int64(s.nano))
	if s.east != 0 {
		return t.In(time.FixedZone("", int(s.east)))
	}
	return t.UTC()
}

// size is the number of bytes that they take.
func (s *sources) size() int { return cap(s.list)*int(unsafe.Sizeof(source{})) + cap(s.text) }

// event sets e to a source.
func (s *sources) event(i int, e *event.Event) {
	x := &s.list[i]
	// Field by field where the rest is as it should be: whoever reads rows has one event
	// for all of them.
	if e.Extensions != nil || e.ContentType != nil || e.Contract.ID != nil || e.Contract.Version != nil || e.Contract.Hash != nil || e.Sent != nil ||
		e.Violations != nil || e.JSONStrings != nil || e.Refusal != nil || e.Origin != nil {
		*e = event.Event{}
	}
	e.ID, e.Source, e.Type, e.Subject, e.Key = s.at(x.id), s.at(x.source), s.at(x.typ), s.at(x.subject), s.at(x.key)
	e.Time, e.ReceivedAt, e.GeneratedID = x.time.time(), x.received.time(), x.generated
}

// frame is the rows of one chunk of a result.
type frame struct {
	cells   columnar.Frame
	of      *sources
	source  []int32 // by row: its place in of
	instead []int32 // by row: 1 and its place in own; 0: none. nil: none has one
	own     sources // what stands in for sources whose attributes steps have replaced
}

var _ columnar.Framed = (*frame)(nil)

// Event implements event.Frame.
func (f *frame) Event(at int, e *event.Event) {
	if f.instead != nil && f.instead[at] > 0 {
		f.own.event(int(f.instead[at]-1), e)
		return
	}
	f.of.event(int(f.source[at]), e)
}

// AppendData implements event.Frame.
func (f *frame) AppendData(dst []byte, at int) []byte { return f.cells.AppendData(dst, at) }

// Cells implements columnar.Framed.
func (f *frame) Cells() *columnar.Frame { return &f.cells }

// Size implements event.Frame. Frames that share sources have equal parts in them.
func (f *frame) Size() int {
	return f.cells.Size() + 4*(len(f.source)+len(f.instead)) + f.of.size()/max(f.of.frames, 1) + f.own.size()
}

// replaced is what stands in for the source of a row.
func (f *frame) replaced(row int) *source {
	if f.instead == nil {
		f.instead = make([]int32, len(f.source))
	}
	if f.instead[row] == 0 {
		var e event.Event
		f.of.event(int(f.source[row]), &e)
		f.own.add(&e)
		f.instead[row] = int32(len(f.own.list))
	}
	return &f.own.list[f.instead[row]-1]
}

// override gives a row an attribute that a step has computed. times are what the steps
// have read as _time, by source.
func (f *frame) override(c *outColumn, row int, times []int64) error {
	if c.Name == "_time" {
		micros, err := c.col.micros(row)
		if err == nil && micros != times[f.source[row]] {
			f.replaced(row).time = stampOf(time.UnixMicro(micros).UTC())
		}
		return err
	}
	var size int64
	var text []byte
	if c.col.kind == duckdb.TypeVarchar {
		text = c.col.bytes(row)
	} else {
		text = []byte(query.Text(c.col.value(row, &size)))
	}
	of := func(x *source) *span {
		switch c.Name {
		case "_id":
			return &x.id
		case "_type":
			return &x.typ
		case "_source":
			return &x.source
		}
		return &x.subject
	}
	if bytes.Equal(f.of.at(*of(&f.of.list[f.source[row]])), text) {
		return nil
	}
	if len(text) == 0 && c.Name != "_subject" {
		return errors.New("is empty; NULL keeps that of the event")
	}
	x := f.replaced(row)
	if c.Name == "_id" {
		x.generated = false
	}
	*of(x) = f.own.keep(text, span{})
	return nil
}
