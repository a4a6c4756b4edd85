package hottail

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	sink "naru/internal/sink/table"
	"naru/internal/stream"
)

// A file is finished when it has so many rows, or so many bytes of data came in:
// small enough to be written anew with each query until then, large enough that
// there are few.
const (
	sealRows  = 32_768
	sealBytes = 16 << 20
)

// readBytes is how much is read from the log at once.
const readBytes = stream.Bytes(1 << 20)

// table is the hot tail of one table: the rows of [from, upto), in files and in
// column buffers.
type table struct {
	tail *Tail
	id   lake.Ident
	sem  chan struct{} // a lock that a query can give up waiting for
	gone bool
	used time.Time

	base    *columnar.Schema // of the snapshot that the rows continue; nil: there is none
	builder *columnar.Builder
	promote func(int) bool
	route   *route
	dec     recordbatch.Decoder
	from    event.Positions
	upto    event.Positions
	sealed  []*file
	open    *file // the rows in the buffers, as last written
	shown   int64 // rows in open
	data    int64 // bytes of data in the buffers
	held    int64 // bytes of the buffers, as counted
}

func newTable(h *Tail, id lake.Ident) *table {
	return &table{tail: h, id: id, sem: make(chan struct{}, 1), route: newRoute(h, id)}
}

func (t *table) lock(ctx context.Context) error {
	select {
	case t.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *table) tryLock() bool {
	select {
	case t.sem <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *table) unlock() { <-t.sem }

// reset forgets all rows.
func (t *table) reset() {
	release(t.sealed)
	t.sealed, t.builder = nil, nil
	t.from, t.upto = event.Positions{}, event.Positions{}
	t.clear()
}

// clear forgets the rows in the buffers.
func (t *table) clear() {
	if t.open != nil {
		t.open.release()
		t.open = nil
	}
	t.shown, t.data = 0, 0
	if t.builder != nil {
		t.builder.Clear()
	}
	t.account()
}

// account tells the memory of the buffers.
func (t *table) account() {
	held := int64(0)
	if t.builder != nil {
		held = t.builder.Bytes()
	}
	t.tail.stages.Add(held - t.held)
	t.held = held
}

// maxPromotions bounds how often rows are read again since a column got another
// type.
const maxPromotions = 16

// bring makes the rows of the spans be there. full: the memory did not suffice.
func (t *table) bring(ctx context.Context, state *iceberg.State, spans []event.Span) (full bool, err error) {
	t.used = time.Now()
	changed, err := t.route.renew(ctx)
	if err != nil {
		return false, err
	}
	if t.builder == nil || changed || !t.continues(state.Schema) {
		t.begin(state, state.Schema)
	}
	for range maxPromotions {
		t.align(state, spans)
		t.trim(spans)
		if full, err = t.advance(ctx, spans); err != nil {
			return false, err // what is here is the next query's gain
		}
		now := t.builder.Schema()
		if !slices.ContainsFunc(t.sealed, func(f *file) bool { return !now.Continues(f.schema) }) {
			return full, t.dump()
		}
		// A column became another one: what is written has it under its old id.
		promoted := now.Clone()
		t.begin(state, promoted)
	}
	return false, fmt.Errorf("columns of %s change their types again and again", t.id)
}

// continues tells whether the rows here may go on behind a snapshot with that
// schema: it is the one they began with, or has got columns that they have, too.
func (t *table) continues(schema *columnar.Schema) bool {
	switch {
	case schema == nil || t.base == nil && !t.builder.Schema().Continues(schema):
		return schema == nil && t.base == nil
	case t.builder.Schema().Continues(schema):
		t.base = schema
		return true
	}
	return schema.Equal(t.base)
}

// begin begins anew behind a snapshot.
func (t *table) begin(state *iceberg.State, schema *columnar.Schema) {
	t.base = state.Schema
	if schema == nil {
		schema = sink.FirstSchema(t.id)
	}
	t.reset()
	handle := t.tail.lake.Table(t.id)
	t.promote = func(id int) bool { return handle.AllowPromotion(state, id) }
	t.builder = columnar.NewStage(schema, t.promote, t.tail.lake.Shape)
	t.account()
}

// shrink gives back buffers without rows: they keep the size that they once had.
func (t *table) shrink() bool {
	if t.builder.Rows() > 0 {
		return false
	}
	before := t.held
	t.builder = columnar.NewStage(t.builder.Schema(), t.promote, t.tail.lake.Shape)
	t.account()
	return t.held < before
}

// align moves to where the spans begin: ahead over what is committed by now, or
// back, all anew, for a query whose snapshot is older than that of the last one.
func (t *table) align(state *iceberg.State, spans []event.Span) {
	for _, s := range spans {
		if from, ok := t.from.Get(s.Incarnation, s.Partition); ok && from > s.From {
			t.begin(state, t.builder.Schema().Clone())
			break
		}
	}
	for _, s := range spans {
		if upto, ok := t.upto.Get(s.Incarnation, s.Partition); !ok || upto < s.From {
			at := event.Position{Incarnation: s.Incarnation, Partition: s.Partition, Offset: s.From}
			t.from.Advance(at)
			t.upto.Advance(at)
		}
	}
}

// trim lets go of files, and of rows in the buffers, that lie before the spans.
func (t *table) trim(spans []event.Span) {
	n := 0
	for n < len(t.sealed) && before(t.sealed[n].ends, spans) {
		t.pass(t.sealed[n].ends)
		n++
	}
	release(t.sealed[:n])
	t.sealed = t.sealed[n:]
	if len(t.sealed) == 0 && t.builder.Rows() > 0 && before(t.upto, spans) {
		t.pass(t.upto)
		t.clear()
	}
}

func (t *table) pass(ends event.Positions) {
	for inc, parts := range ends {
		for partition, off := range parts {
			t.from.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
}

// before tells whether all that lies below ends is before the spans.
func before(ends event.Positions, spans []event.Span) bool {
	for _, s := range spans {
		if end, ok := ends.Get(s.Incarnation, s.Partition); ok && end > s.From {
			return false
		}
	}
	return true
}

// advance reads the log up to the end of the spans.
func (t *table) advance(ctx context.Context, spans []event.Span) (full bool, err error) {
	defer t.account()
	for _, s := range spans {
		at := event.Position{Incarnation: s.Incarnation, Partition: s.Partition}
		for {
			at.Offset, _ = t.upto.Get(s.Incarnation, s.Partition)
			if at.Offset >= s.To {
				break
			}
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			if t.tail.crowded(t) && !(t.shrink() && !t.tail.crowded(t)) {
				return true, nil
			}
			b, err := t.tail.log.Read(ctx, t.id.Namespace, at, readBytes)
			if err != nil {
				return false, fmt.Errorf("read %s at %s: %w", t.id.Namespace, at, err)
			}
			if b.Incarnation != s.Incarnation { // that life of the log has no more
				at.Offset = s.To
				t.upto.Advance(at)
				break
			}
			if err := t.take(ctx, b); err != nil {
				t.reset() // of a batch that was read in part nobody knows what is here
				return false, err
			}
			t.upto.Advance(b.End())
			t.account()
		}
	}
	return false, nil
}

// take appends the rows of a batch.
func (t *table) take(ctx context.Context, b *event.Batch) error {
	rows := int64(0)
	err := t.dec.EachIn(b, func(e *event.Event) error {
		mine, err := t.route.has(ctx, e, b.Incarnation, b.Partition)
		if err != nil || !mine {
			return err
		}
		rows++
		t.data += int64(len(e.Data))
		if e.Refusal != nil {
			t.data += int64(len(e.Refusal.Original))
		}
		if err := t.builder.Append(e, b.Incarnation, b.Partition); err != nil {
			return err
		}
		if t.builder.Rows() < t.tail.rows && t.data < sealBytes {
			return nil
		}
		ends := t.upto.Clone()
		ends.Advance(event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset + 1})
		return t.seal(ends)
	})
	t.tail.counts.Rows.Add(rows)
	if err != nil {
		return fmt.Errorf("read hot tail of %s: %w", t.id, err)
	}
	return nil
}

// seal writes the rows in the buffers for good.
func (t *table) seal(ends event.Positions) error {
	data, err := t.write()
	if err != nil {
		return err
	}
	f := t.tail.folder.add(data, ends)
	f.schema = t.builder.Schema().Clone()
	t.sealed = append(t.sealed, f)
	t.clear()
	return nil
}

// dump writes the rows in the buffers, to be written again when there are more.
func (t *table) dump() error {
	if t.builder.Rows() == t.shown {
		return nil
	}
	data, err := t.write()
	if err != nil {
		return fmt.Errorf("write hot tail of %s: %w", t.id, err)
	}
	if t.open != nil {
		t.open.release()
	}
	t.open, t.shown = t.tail.folder.add(data, nil), t.builder.Rows()
	return nil
}

func (t *table) write() (columnar.DataFile, error) {
	t.tail.counts.Files.Add(1)
	return t.builder.Dump(t.tail.folder.create, t.tail.folder.path())
}

// read gives the spans as far as their rows are here.
func (t *table) read(spans []event.Span) ([]event.Span, error) {
	out := make([]event.Span, len(spans))
	for i, s := range spans {
		upto, ok := t.upto.Get(s.Incarnation, s.Partition)
		if !ok {
			return nil, errors.New("a span was not read")
		}
		s.To = min(s.To, upto)
		out[i] = s
	}
	return out, nil
}

// view is what a query sees of the spans: nil when there are no rows. The files
// are leased to it.
func (t *table) view(spans []event.Span) (*lake.Hot, []*file) {
	files := t.sealed[:len(t.sealed):len(t.sealed)]
	if t.open != nil {
		files = append(files, t.open)
	}
	if len(files) == 0 {
		return nil, nil
	}
	hot := &lake.Hot{Columns: t.builder.Schema().Columns(), Spans: spans}
	for _, f := range files {
		f.hold()
		hot.Files = append(hot.Files, f.view())
	}
	return hot, files
}

func release(files []*file) {
	for _, f := range files {
		f.release()
	}
}
