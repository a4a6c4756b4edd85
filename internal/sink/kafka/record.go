package kafka

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/sink"
)

// encoder makes records of the rows of one batch.
type encoder struct {
	cfg     *Settings
	columns []event.Column
	key     *row.Reader // nil: the event's own key
}

func newEncoder(cfg *Settings, b *event.Batch) (*encoder, error) {
	enc := &encoder{cfg: cfg, columns: b.Columns}
	if cfg.Key != "" {
		columns, err := row.Pick(b.Columns, []string{cfg.Key})
		if err != nil {
			return nil, fmt.Errorf("take the key of a record: key: %w", err)
		}
		enc.key = row.NewReader(columns)
	}
	return enc, nil
}

// record makes the record of a row, whose topic the caller sets. Its bytes lie in
// the arena.
func (c *encoder) record(arena *[]byte, at event.Position, e *event.Event) *kgo.Record {
	// Records live until they are acknowledged, so an arena is left behind when it
	// is full, and goes when its last record does.
	if cap(*arena)-len(*arena) < 2*len(e.Data)+4<<10 {
		*arena = make([]byte, 0, max(64<<10, 2*len(e.Data)+4<<10))
	}
	buf := *arena
	keep := func(from int) []byte { return buf[from:len(buf):len(buf)] }
	r := &kgo.Record{}

	from := len(buf)
	switch {
	case c.key != nil:
		if v := c.key.Values(e, at.Partition)[0]; v != nil {
			buf = row.AppendText(buf, v)
			r.Key = keep(from)
		}
	case e.Key != nil:
		buf = append(buf, e.Key...)
		r.Key = keep(from)
	}
	from = len(buf)
	buf = sink.AppendKey(buf, e.Place(at), e.Row)
	key := kgo.RecordHeader{Key: HeaderKey, Value: keep(from)}

	from = len(buf)
	if c.cfg.Format == "json" {
		buf = row.AppendJSON(buf, c.columns, e, at.Partition)
		r.Value = keep(from)
		r.Headers = []kgo.RecordHeader{key}
		*arena = buf
		return r
	}
	buf = append(buf, e.Data...)
	r.Value = keep(from)
	header := func(name string, value []byte) {
		if value != nil {
			from := len(buf)
			buf = append(buf, value...)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: keep(from)})
		}
	}
	r.Headers = make([]kgo.RecordHeader, 0, 8+len(e.Extensions))
	header(recordbatch.HeaderSpecVersion, specVersion)
	header(recordbatch.HeaderID, e.ID)
	header(recordbatch.HeaderSource, e.Source)
	header(recordbatch.HeaderType, e.Type)
	if e.ContentType == nil {
		header(recordbatch.HeaderContentType, jsonType)
	} else {
		header(recordbatch.HeaderContentType, e.ContentType)
	}
	header(recordbatch.HeaderSubject, e.Subject)
	if !e.Time.IsZero() {
		header(recordbatch.HeaderTime, e.Time.AppendFormat(nil, time.RFC3339Nano))
	}
	for _, x := range e.Extensions {
		header("ce_"+string(x.Name), x.Value)
	}
	r.Headers = append(r.Headers, key)
	*arena = buf
	return r
}

var specVersion, jsonType = []byte("1.0"), []byte("application/json")
