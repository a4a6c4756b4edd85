package columnar

// chunk is the column buffers of a run of rows, which become row groups.
type chunk struct {
	allPlain bool      // texts have no dictionaries, because nothing is encoded
	cols     []*column // by index of the schema's fields; nil for dropped and foreign ones
	rows     int
	size     int64 // bytes that the rows took when they were last measured
	since    int64 // bytes that rows took since then, estimated from above
	// schema is the one that the rows were read by, set when the chunk is full.
	schema   *Schema
	arranged *Arrangement // what the files of its rows are put together by, set then, too
}

// reset makes the chunk an empty one for a schema. plain holds, by field id,
// the text columns that have proved too varied for a dictionary.
func (c *chunk) reset(s *Schema, plain map[int]bool) {
	for len(c.cols) < len(s.Fields) {
		c.cols = append(c.cols, nil)
	}
	c.cols = c.cols[:len(s.Fields)]
	c.rows, c.size, c.since, c.schema, c.arranged = 0, 0, 0, nil, nil
	for i, f := range s.Fields {
		if f.Dropped || f.Kind == Foreign {
			c.cols[i] = nil
			continue
		}
		if c.cols[i] == nil {
			c.cols[i] = &column{}
		}
		c.cols[i].reset(f.Kind, f.Kind == String && !plain[f.ID] && !c.allPlain)
	}
}

// follow adds buffers for the columns that the schema has got since.
func (c *chunk) follow(s *Schema) {
	for i := len(c.cols); i < len(s.Fields); i++ {
		f := s.Fields[i]
		col := &column{}
		col.reset(f.Kind, f.Kind == String && !c.allPlain)
		c.cols = append(c.cols, col)
	}
}

// expect makes room for rows like those of a full chunk of the same schema.
func (c *chunk) expect(full *chunk) {
	for i, col := range c.cols {
		if col != nil && full.cols[i] != nil && col.kind == full.cols[i].kind {
			col.expect(full.cols[i])
		}
	}
}

// measureRows is how many rows may come in between two measurements.
const measureRows = 1024

// full tells whether the rows take limit bytes. They are measured now and
// then: after some rows, and after many bytes.
func (c *chunk) full(limit int64) bool {
	if c.rows%measureRows == 0 || c.since >= limit/16 {
		c.size, c.since = 0, 0
		for _, col := range c.cols {
			if col != nil {
				c.size += col.need(c.rows)
			}
		}
	}
	return c.size+c.since >= limit
}

// bytes is the memory held.
func (c *chunk) bytes() int64 {
	var n int64
	for _, col := range c.cols {
		if col != nil {
			n += col.bytes()
		}
	}
	return n
}

// close fills up all columns to the number of rows.
func (c *chunk) close() {
	for _, col := range c.cols {
		if col != nil {
			col.pad(c.rows)
		}
	}
}

// cut takes back what the data of the row now being read put into columns.
func (c *chunk) cut(s *Schema) {
	for i, col := range c.cols {
		if col != nil && s.Fields[i].Path != "" {
			col.truncate(c.rows)
		}
	}
}
