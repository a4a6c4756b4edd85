package event

// Batch is what a reader gets at once: a run of record batches of one
// stream-partition in one incarnation, and the positions it covers.
type Batch struct {
	Stream      string
	Incarnation Incarnation
	Partition   int32

	// From is the offset asked for: records below it are in Raw only because
	// their record batch also holds later ones; skip them.
	From int64
	// Next is the first offset behind this batch: the reader's position once
	// it has dealt with all of it. Never derive counts from Next-From.
	Next int64

	// Raw holds whole Kafka RecordBatch v2 byte strings with their base offsets
	// set, in order. They belong to the batch and are not to be changed.
	Raw [][]byte

	// Rows, when it is not nil, is what steps have made of the events, in place of
	// Raw: each stands at the offset of the event that it was made of.
	// recordbatch.Decoder.EachIn gives them as it gives events.
	Rows *Rows
	// Columns are those of Rows, in the order in which the steps have them; nil with
	// Rows: there were no steps that name columns, and Rows are events as they came.
	Columns []Column
	// Without are offsets that readers pass over, although Raw has them, in order
	// and apart from each other: events that were judged to be duplicates. Whoever
	// decodes a batch by recordbatch.Decoder.EachIn does not meet them.
	Without []Run
}

// Run is the offsets [From, To).
type Run struct{ From, To int64 }

// CountRuns counts the offsets of runs at or behind from.
func CountRuns(runs []Run, from int64) (n int64) {
	for _, r := range runs {
		n += max(r.To-max(r.From, from), 0)
	}
	return n
}

// End is the reader's position behind the batch.
func (b *Batch) End() Position {
	return Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: b.Next}
}

// Size is the number of bytes in Raw, and about what Rows take.
func (b *Batch) Size() int {
	n := b.Rows.Size()
	for _, r := range b.Raw {
		n += len(r)
	}
	return n
}
