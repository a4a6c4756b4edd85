package redis

import (
	"fmt"
	"strconv"
	"time"

	"naru/internal/event"
	"naru/internal/row"
)

// encoder makes commands of the rows of one batch.
type encoder struct {
	cfg     *Settings
	columns []event.Column
	key     *row.Reader // the columns of the key
	values  *row.Reader // all columns; nil: rows are stored as JSON
	text    []byte
	args    [][]byte
	gone    [][]byte // fields whose column is null
}

func newEncoder(cfg *Settings, b *event.Batch) (*encoder, error) {
	enc := &encoder{cfg: cfg, columns: b.Columns}
	key, err := row.Pick(b.Columns, cfg.key.Columns())
	if err != nil {
		return nil, fmt.Errorf("take the key of a row: key: %w", err)
	}
	enc.key = row.NewReader(key)
	if cfg.fields() {
		if enc.columns == nil { // no steps: the envelope, and the data as it is
			enc.columns = event.Envelope
		}
		enc.values = row.NewReader(enc.columns)
	}
	return enc, nil
}

// row appends the commands of a row to data. why says what is wrong with the row.
func (c *encoder) row(data *[]byte, at event.Position, e *event.Event) (p pending, why string) {
	key, missing := c.cfg.key.Append(nil, c.key.Values(e, at.Partition))
	if missing != "" {
		return p, fmt.Sprintf("key %s: %s is null, or no time", c.cfg.Key, missing)
	}
	if len(key) == 0 {
		return p, fmt.Sprintf("key %s is empty", c.cfg.Key)
	}
	p = pending{at: at, row: e.Row, key: string(key)}
	out := *data
	command := func(args ...[]byte) { out, p.commands = appendCommand(out, args...), p.commands+1 }
	c.text, c.args, c.gone = c.text[:0], c.args[:0], c.gone[:0]

	switch c.cfg.Mode {
	case modeStream:
		c.args = append(c.args, []byte("XADD"), key)
		if c.cfg.MaxLen > 0 {
			c.args = append(c.args, []byte("MAXLEN"), []byte("~"), strconv.AppendInt(nil, c.cfg.MaxLen, 10))
		}
		c.args = append(c.args, []byte("*"))
		before := len(c.args)
		if c.values == nil {
			c.args = append(c.args, []byte("row"), row.AppendJSON(nil, c.columns, e, at.Partition))
		} else {
			c.fields(e, at.Partition)
		}
		if len(c.args) == before {
			return p, "all columns are null, and an entry of a stream has at least one field"
		}
		command(c.args...)
	case modeHash:
		c.args = append(c.args, []byte("HSET"), key)
		c.fields(e, at.Partition)
		if len(c.args) > 2 {
			command(c.args...)
		}
		if len(c.gone) > 0 {
			command(append([][]byte{[]byte("HDEL"), key}, c.gone...)...)
		}
		if c.cfg.TTL > 0 {
			command([]byte("PEXPIRE"), key, c.ttl())
		}
	case modeString:
		c.args = append(c.args, []byte("SET"), key, row.AppendJSON(nil, c.columns, e, at.Partition))
		if c.cfg.TTL > 0 {
			c.args = append(c.args, []byte("PX"), c.ttl())
		}
		command(c.args...)
	case modeList:
		command([]byte("RPUSH"), key, row.AppendJSON(nil, c.columns, e, at.Partition))
		if c.cfg.MaxLen > 0 {
			command([]byte("LTRIM"), key, strconv.AppendInt(nil, -c.cfg.MaxLen, 10), []byte("-1"))
		}
	}
	*data = out
	p.to = len(out)
	return p, ""
}

func (c *encoder) ttl() []byte {
	return strconv.AppendInt(nil, int64(c.cfg.TTL.Std()/time.Millisecond), 10)
}

// fields appends names and values of the columns to args; those that are null to gone.
func (c *encoder) fields(e *event.Event, partition int32) {
	for i, v := range c.values.Values(e, partition) {
		name := []byte(c.columns[i].Name)
		if v == nil {
			c.gone = append(c.gone, name)
			continue
		}
		from := len(c.text)
		c.text = row.AppendText(c.text, v)
		c.args = append(c.args, name, c.text[from:len(c.text):len(c.text)])
	}
	if len(e.Data) > 0 && &c.columns[0] == &event.Envelope[0] {
		c.args = append(c.args, []byte("data"), e.Data)
	}
}
