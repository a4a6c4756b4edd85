package elasticsearch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/row"
	"naru/internal/sink"
)

// encoder makes lines of a bulk request of the rows of one batch.
type encoder struct {
	cfg     *Settings
	columns []event.Column
	index   *row.Reader // the columns of the index's name
	id      *row.Reader // those of the id; nil: it is the row's key
	name    []byte
	scan    jsonscan.Scanner
}

func newEncoder(cfg *Settings, b *event.Batch) (*encoder, error) {
	c := &encoder{cfg: cfg, columns: b.Columns}
	if c.columns == nil {
		c.columns = event.Envelope
	}
	index, err := row.Pick(b.Columns, cfg.index.Columns())
	if err != nil {
		return nil, fmt.Errorf("take the index of a row: index: %w", err)
	}
	c.index = row.NewReader(index)
	if cfg.id != nil {
		id, err := row.Pick(b.Columns, cfg.id.Columns())
		if err != nil {
			return nil, fmt.Errorf("take the id of a row: id: %w", err)
		}
		c.id = row.NewReader(id)
	}
	return c, nil
}

// append appends the two lines of a row: what is to be done, and the document. why
// says what is wrong with the row; dst is then as it was.
func (c *encoder) append(dst []byte, at event.Position, e *event.Event) (out []byte, why string) {
	start := len(dst)
	var missing string
	if c.name, missing = c.cfg.index.Append(c.name[:0], c.index.Values(e, at.Partition)); missing != "" {
		return dst, fmt.Sprintf("index %s: %s is null, or no time", c.cfg.Index, missing)
	}
	if why := badIndex(c.name); why != "" {
		return dst, fmt.Sprintf("index %s: %q %s", c.cfg.Index, c.name, why)
	}
	if c.id == nil {
		// Created only: whoever has changed the document since keeps that, and data
		// streams take nothing else.
		dst = append(dst, `{"create":{"_index":`...)
	} else {
		dst = append(dst, `{"index":{"_index":`...)
	}
	dst = jsonscan.AppendQuoted(dst, c.name)
	dst = append(dst, `,"_id":`...)
	if c.id == nil {
		dst = append(sink.AppendKey(append(dst, '"'), at, e.Row), '"')
	} else {
		var id []byte
		if id, missing = c.cfg.id.Append(nil, c.id.Values(e, at.Partition)); missing != "" {
			return dst[:start], fmt.Sprintf("id %s: %s is null, or no time", c.cfg.ID, missing)
		}
		if len(id) == 0 || len(id) > 512 {
			return dst[:start], fmt.Sprintf("id %s: it has %d bytes; the target takes 1 to 512", c.cfg.ID, len(id))
		}
		dst = jsonscan.AppendQuoted(dst, id)
	}
	dst = append(dst, "}}\n"...)
	if dst, why = c.document(dst, at, e); why != "" {
		return dst[:start], why
	}
	return append(dst, '\n'), ""
}

// document appends the document: the members of the data, @timestamp, and the
// attributes in an object of their own, since the target keeps names like _id and
// _source for itself.
func (c *encoder) document(dst []byte, at event.Position, e *event.Event) (out []byte, why string) {
	dst = append(dst, '{')
	first := true
	comma := func() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
	}
	data := bytes.TrimRight(e.Data, " \t\r\n")
	from, to := jsonscan.Space(data, 0), len(data)
	timed := false
	switch {
	case from == to:
	case data[from] == '{' && c.scan.Valid(data):
		var m jsonscan.Members
		for m.Reset(data, from, to); ; {
			name, v, ok := m.Next(&c.scan)
			if !ok {
				break
			}
			switch string(jsonscan.Text(data, name)) {
			case "@timestamp":
				timed = true
			case c.cfg.Envelope:
				return dst, fmt.Sprintf("the row has a field %s, which is where the attributes of the event go: set envelope of the sink", c.cfg.Envelope)
			}
			if v.Kind == jsonscan.Null {
				continue
			}
			comma()
			dst = append(jsonscan.AppendQuoted(dst, jsonscan.Text(data, name)), ':')
			dst = appendLine(dst, data[v.Start:v.End])
		}
	default:
		comma()
		dst = append(dst, `"data":`...)
		if json.Valid(data) {
			dst = appendLine(dst, data)
		} else {
			dst = jsonscan.AppendQuoted(dst, data)
		}
	}
	if !timed {
		when := e.Time
		if when.IsZero() {
			when = e.ReceivedAt
		}
		comma()
		dst = appendTime(append(dst, `"@timestamp":`...), when)
	}
	if c.cfg.Envelope != "" {
		comma()
		dst = c.envelope(dst, at, e)
	}
	return append(dst, '}'), ""
}

// envelope appends the attributes that the steps have kept, without their first
// letter, and the row's key.
func (c *encoder) envelope(dst []byte, at event.Position, e *event.Event) []byte {
	dst = append(jsonscan.AppendQuoted(dst, c.cfg.Envelope), `:{"key":"`...)
	dst = append(sink.AppendKey(dst, at, e.Row), '"')
	text := func(name string, b []byte) {
		if b != nil {
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = jsonscan.AppendQuoted(dst, b)
		}
	}
	for _, col := range c.columns {
		switch col.Name {
		case "_id":
			text("id", e.ID)
		case "_type":
			text("type", e.Type)
		case "_source":
			text("source", e.Source)
		case "_subject":
			text("subject", e.Subject)
		case "_received_at":
			dst = appendTime(append(dst, `,"received_at":`...), e.ReceivedAt)
		case "_partition":
			dst = fmt.Appendf(dst, `,"partition":%d`, at.Partition)
		case "_offset":
			dst = fmt.Appendf(dst, `,"offset":%d`, at.Offset)
		}
	}
	return append(dst, '}')
}

func appendTime(dst []byte, at time.Time) []byte {
	return append(at.UTC().AppendFormat(append(dst, '"'), row.TimeLayout), '"')
}

// appendLine appends JSON without line breaks, which end a line of a bulk request.
// They stand only between values: a text has them escaped.
func appendLine(dst, text []byte) []byte {
	from := len(dst)
	dst = append(dst, text...)
	for i := from; i < len(dst); i++ {
		if dst[i] == '\n' || dst[i] == '\r' {
			dst[i] = ' '
		}
	}
	return dst
}
