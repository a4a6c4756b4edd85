package rejection

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"naru/internal/event"
	"naru/internal/recordbatch"
)

// Change is one record of the stream rejected_states. Its JSON members are the
// columns of the table of that name (docs/format/records.md).
type Change struct {
	Incarnation event.Incarnation `json:"rejection_log"`
	Partition   int32             `json:"rejection_partition"`
	Offset      int64             `json:"rejection_offset"`
	State       State             `json:"state"`

	// Of a replayed one: where its event is.
	EventStream    string `json:"event_stream,omitempty"`
	EventLog       string `json:"event_log,omitempty"`
	EventPartition int32  `json:"event_partition,omitempty"`
	EventOffset    int64  `json:"event_offset,omitempty"`

	// Of one that was judged again and stays open: why.
	Reason string `json:"reason,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Path   string `json:"path,omitempty"`
	Detail string `json:"detail,omitempty"`

	// Where the event is among the writes of its append.
	write, number int
}

// Position of the rejection.
func (c *Change) Position() event.Position {
	return event.Position{Incarnation: c.Incarnation, Partition: c.Partition, Offset: c.Offset}
}

func parseChange(data []byte) (Change, error) {
	var c Change
	if err := json.Unmarshal(data, &c); err != nil {
		return c, err
	}
	switch c.State {
	case Open, Replayed, Discarded:
	default:
		return c, fmt.Errorf("state %q is not known", c.State)
	}
	return c, nil
}

// appendJSON is the record's value. It has the same length wherever the event
// comes to stand: a number has blanks before it.
func (c *Change) appendJSON(dst []byte, at event.Position) []byte {
	text := func(name, value string) {
		b, err := json.Marshal(value)
		if err != nil {
			b = []byte(`""`) // a string can always be written
		}
		dst = append(append(append(dst, `,"`...), name...), `":`...)
		dst = append(dst, b...)
	}
	dst = append(dst, `{"rejection_log":"`...)
	dst = append(dst, c.Incarnation.String()...)
	dst = append(dst, `","rejection_partition":`...)
	dst = strconv.AppendInt(dst, int64(c.Partition), 10)
	dst = append(dst, `,"rejection_offset":`...)
	dst = strconv.AppendInt(dst, c.Offset, 10)
	text("state", string(c.State))
	if c.State == Replayed {
		text("event_stream", c.EventStream)
		text("event_log", at.Incarnation.String())
		dst = append(dst, `,"event_partition":`...)
		dst = strconv.AppendInt(dst, int64(c.EventPartition), 10)
		dst = fmt.Appendf(dst, `,"event_offset":%20d`, at.Offset)
	}
	for _, m := range [...][2]string{{"reason", c.Reason}, {"rule", c.Rule}, {"path", c.Path}, {"detail", c.Detail}} {
		if m[1] != "" {
			text(m[0], m[1])
		}
	}
	return append(dst, '}')
}

// encode makes one record batch of changes, whose events stand at places[write];
// nil: they are not known yet. It is not compressed, so its size depends on
// nothing but the changes.
func encode(changes []Change, places []event.Position, now time.Time) []byte {
	var b recordbatch.Builder
	var shared, own recordbatch.Headers
	var data []byte
	shared.Add(recordbatch.HeaderSpecVersion, "1.0")
	shared.Add(recordbatch.HeaderSource, "naru")
	shared.Add(recordbatch.HeaderType, event.RejectedStates)
	shared.Add(recordbatch.HeaderContentType, "application/json")
	shared.Add(recordbatch.HeaderIDOrigin, "generated")
	b.Reset(now)
	for i := range changes {
		c := &changes[i]
		at := event.Position{}
		if c.State == Replayed && places != nil {
			at = places[c.write]
			at.Offset += int64(c.number)
		}
		id := c.Position().String() + "/" + string(c.State)
		if c.State == Open {
			id += "/" + strconv.FormatInt(now.UnixNano(), 10)
		}
		own.Reset()
		own.Add(recordbatch.HeaderID, id)
		data = c.appendJSON(data[:0], at)
		b.Append(nil, data, &shared, &own)
	}
	return b.Finish(nil, recordbatch.None)
}
