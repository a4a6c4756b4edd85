package columnar

// chunk is the column buffers of a run of rows, which become row groups.
type chunk struct {
	cols  []*column // by index of the schema's fields; nil for dropped and foreign ones
	rows  int
	fixed int64 // bytes that each row costs at least
	loose int64 // bytes of texts and lists, estimated from above
	// schema is the one that the rows were read by, set when the chunk is full.
	schema *Schema
}

// reset makes the chunk an empty one for a schema. plain holds, by field id,
// the text columns that have proved too varied for a dictionary.
func (c *chunk) reset(s *Schema, plain map[int]bool) {
	for len(c.cols) < len(s.Fields) {
		c.cols = append(c.cols, nil)
	}
	c.cols = c.cols[:len(s.Fields)]
	c.rows, c.fixed, c.loose, c.schema = 0, 0, 0, nil
	for i, f := range s.Fields {
		if f.Dropped || f.Kind == Foreign {
			c.cols[i] = nil
			continue
		}
		if c.cols[i] == nil {
			c.cols[i] = &column{}
		}
		c.cols[i].reset(f.Kind, f.Kind == String && !plain[f.ID])
		c.fixed += width(f.Kind)
	}
}

// follow adds buffers for the columns that the schema has got since.
func (c *chunk) follow(s *Schema) {
	for i := len(c.cols); i < len(s.Fields); i++ {
		f := s.Fields[i]
		col := &column{}
		col.reset(f.Kind, f.Kind == String)
		c.cols = append(c.cols, col)
		c.fixed += width(f.Kind)
	}
}

// need is the memory that the rows need, estimated from above.
func (c *chunk) need() int64 { return c.fixed*int64(c.rows) + c.loose }

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
