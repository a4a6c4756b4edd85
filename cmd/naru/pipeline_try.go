package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/config"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/pipeline/proof"
	"naru/internal/query"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// maxTried bounds the events of one try: they are all in memory.
const maxTried = 10_000

func (c *cli) pipelineTry() *cobra.Command {
	var asJSON bool
	dir, last := ".", 20
	cmd := &cobra.Command{
		Use:   "try NAME",
		Short: "See what a pipeline makes of the latest events, and write nothing",
		Long: `Computes the steps of a pipeline, as its file is now, over the latest events of its
stream and types in the folder's log, and shows the rows and what is refused. Nothing
is written: neither sinks nor positions are touched. It works beside a running server
and without one; tables that steps join are as they were committed last.

Events that were sent twice are shown twice here; the running pipeline leaves
duplicates out.`,
		Example: `  naru pipeline try edits
  naru pipeline try edits -n 1000 --json | jq '.rejections[].detail'`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if last < 1 || last > maxTried {
				return asUsage(cmd, fmt.Errorf("-n is 1 to %d", maxTried))
			}
			ctx, _, stop := interrupts(cmd.Context())
			defer stop()
			if err := c.try(ctx, dir, args[0], last, asJSON); err != nil {
				return fmt.Errorf("try pipeline %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "the project's folder")
	cmd.Flags().IntVarP(&last, "lines", "n", last, "so many events")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// refusedEvent is an event that a step has refused.
type refusedEvent struct {
	Event  string `json:"event"` // LOG/PARTITION/OFFSET
	Step   string `json:"step"`  // "2 filter", or "where of SINK"
	Detail string `json:"detail"`
	Data   string `json:"data"`

	by string
}

// tried is what has come of a try.
type tried struct {
	Events   int64          `json:"events"`
	Written  int64          `json:"written"`
	Filtered int64          `json:"filtered"`
	Columns  []event.Column `json:"columns"`
	Rows     []rowText      `json:"rows"`
	// To is, where sinks have a where, to which of all sinks each row goes.
	To         [][]string     `json:"to,omitempty"`
	Rejections []refusedEvent `json:"rejections"`

	values [][]any
}

// rowText is a row as a JSON object.
type rowText = json.RawMessage

func (c *cli) try(ctx context.Context, dir, name string, last int, asJSON bool) (err error) {
	w, err := openWorkshop(ctx, dir, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.check(ctx, name)
	def, err := w.named(name)
	if err != nil {
		return err
	}
	found, err := latest(ctx, w.folder, def, last)
	if err != nil {
		return err
	}
	out := &tried{Columns: []event.Column{}, Rows: []rowText{}, Rejections: []refusedEvent{}}
	for _, one := range found {
		if err := out.add(ctx, w, def, one); err != nil {
			return err
		}
	}
	if asJSON {
		return c.printJSON(out)
	}
	return c.showTried(out)
}

// chosen is a record batch, and the events of it that are meant.
type chosen struct {
	batch   *event.Batch
	offsets []int64
}

// latest finds the last events of a pipeline's types, oldest first. Segments are read
// from the newest back, for as long as there are too few.
func latest(ctx context.Context, f config.Folder, def *definition.Definition, last int) ([]chosen, error) {
	var all, segment []chosen
	have := func(list []chosen) (n int) {
		for _, one := range list {
			n += len(one.offsets)
		}
		return n
	}
	trim := func(list []chosen, most int) []chosen {
		for n := have(list) - most; n > 0; n = have(list) - most {
			if n < len(list[0].offsets) {
				list[0].offsets = list[0].offsets[n:]
				break
			}
			list = list[1:]
		}
		return list
	}
	merge := func() bool {
		all, segment = append(trim(segment, last-have(all)), all...), nil
		return have(all) < last && ctx.Err() == nil
	}
	var dec recordbatch.Decoder
	err := seglog.Backward(vfs.OS(), f.Log(), def.From.Stream, merge, func(b *event.Batch) error {
		one := chosen{}
		err := dec.EachIn(b, func(e *event.Event) error {
			if len(def.From.Types) == 0 || slices.Contains(def.From.Types, string(e.Type)) {
				one.offsets = append(one.offsets, e.Offset)
			}
			return nil
		})
		if err != nil || len(one.offsets) == 0 {
			return errors.Join(err, ctx.Err())
		}
		own := *b
		own.Raw = [][]byte{bytes.Clone(b.Raw[0])} // the log's buffer is used again
		one.batch = &own
		segment = trim(append(segment, one), last)
		return ctx.Err()
	})
	merge()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, stream.ErrNoStream), errors.Is(err, fs.ErrNotExist):
		return nil, fault.WithHint(fmt.Errorf("the log of %s has no events of stream %s", f, def.From.Stream), "naru log ls %s lists what it has; tests: in the file need none", f)
	}
	return all, err
}

// add computes the steps over events of one record batch.
func (t *tried) add(ctx context.Context, w *workshop, def *definition.Definition, one chosen) error {
	data := map[int64]string{}
	done, err := proof.Apply(ctx, w.engine, def, one.batch, func(e *event.Event) bool {
		_, ok := slices.BinarySearch(one.offsets, e.Offset)
		return ok
	})
	if err != nil {
		return err
	}
	t.Events += int64(len(one.offsets))
	t.Written, t.Filtered = t.Written+done.Written, t.Filtered+done.Filtered
	read := t.join(done.Batch.Columns)
	for _, e := range done.Batch.Rows.Whole() {
		t.Rows = append(t.Rows, row.AppendJSON(nil, done.Batch.Columns, &e, done.Batch.Partition))
		t.values = append(t.values, read(&e, done.Batch.Partition))
	}
	if len(def.Routes()) > 0 {
		t.To = append(t.To, targets(def, done.Batch.Rows)...)
	}
	if len(done.Refused) == 0 {
		return nil
	}
	var dec recordbatch.Decoder
	if err := dec.EachIn(one.batch, func(e *event.Event) error {
		data[e.Offset] = string(e.Data)
		return nil
	}); err != nil {
		return err
	}
	for _, r := range done.Refused {
		at := event.Position{Incarnation: one.batch.Incarnation, Partition: one.batch.Partition, Offset: r.Offset}
		t.Rejections = append(t.Rejections, refusedEvent{at.String(), r.Step, r.Detail, data[r.Offset], r.By()})
	}
	return nil
}

// targets are the sinks that each row goes to.
func targets(def *definition.Definition, rows *event.Rows) [][]string {
	out := make([][]string, rows.Len())
	for i := range rows.List {
		out[i] = []string{}
		for _, s := range def.To {
			if proof.For(def, s.Name, &event.Rows{List: rows.List[i : i+1]}).Len() > 0 {
				out[i] = append(out[i], s.Name)
			}
		}
	}
	return out
}

// join adds columns that came with a batch, and gives what reads its rows by all.
func (t *tried) join(columns []event.Column) func(*event.Event, int32) []any {
	places := make([]int, len(columns))
	for i, c := range columns {
		j := slices.IndexFunc(t.Columns, func(o event.Column) bool { return o.Name == c.Name })
		if j < 0 {
			j = len(t.Columns)
			t.Columns = append(t.Columns, c)
		}
		places[i] = j
	}
	r := row.NewReader(columns)
	return func(e *event.Event, partition int32) []any {
		values := make([]any, len(t.Columns))
		for i, v := range r.Values(e, partition) {
			if text, ok := v.(json.RawMessage); ok {
				v = string(text)
			}
			values[places[i]] = v
		}
		return values
	}
}

// tried as what formats of answers are made of.
type triedRows struct {
	*tried
	at int
}

func (r *triedRows) Columns() (out []query.Column) {
	for _, c := range r.tried.Columns {
		out = append(out, query.Column{Name: c.Name, Type: string(c.Type)})
	}
	if r.To != nil {
		out = append(out, query.Column{Name: "goes to", Type: string(event.StringColumn)})
	}
	return out
}
func (r *triedRows) Next() bool { r.at++; return r.at <= len(r.values) }
func (r *triedRows) Values() []any {
	values := make([]any, len(r.tried.Columns)) // columns may have come behind it
	copy(values, r.values[r.at-1])
	if r.To != nil {
		values = append(values, strings.Join(r.To[r.at-1], ", "))
	}
	return values
}
func (r *triedRows) Err() error   { return nil }
func (r *triedRows) Close() error { return nil }

func (c *cli) showTried(t *tried) error {
	if len(t.Rows) > 0 {
		if err := query.Copy(query.NewWriter(query.Table, c.out), &triedRows{tried: t}); err != nil {
			return err
		}
		fmt.Fprintln(c.out)
	}
	for _, r := range t.Rejections {
		fmt.Fprintf(c.out, "refused by %s: %s\n  %s\n  %s\n", r.by, oneLine(r.Detail), r.Event, oneLine(r.Data))
	}
	fmt.Fprintf(c.out, "%s: %d written as %s, %d filtered, %d refused; nothing was stored\n", plural(int(t.Events), "event"), t.Written, plural(len(t.Rows), "row"),
		t.Filtered, len(t.Rejections))
	return nil
}
