package columnar

// Bytes is the memory that the builder holds: both chunks, whether filled or
// not. A chunk that is being encoded counts
// as it did when it was full.
func (b *Builder) Bytes() int64 {
	n := b.cur.bytes()
	if b.busy != nil {
		n += b.held
	} else {
		n += b.next.bytes()
	}
	return n
}
