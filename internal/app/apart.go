package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/lake/iceberg"
)

// Apart tells of the columns that have another type than the contracts in force
// want, and of layouts that such columns cannot have: they were there before. A folder without tables has none.
func Apart(ctx context.Context, f config.Folder, cfg iceberg.Config, set *contract.Set) (notes contract.Problems, err error) {
	l, err := OpenTables(ctx, f, cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	list, err := l.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range set.Contracts {
		if !c.InForce() || c.Shape() == nil {
			continue
		}
		name := c.Table
		if name == "" {
			name = lake.TableName(c.Type)
		}
		for _, id := range list {
			if id.Name != name || id.Namespace == event.RejectedStream {
				continue
			}
			state, err := l.Table(id).Load(ctx)
			if err != nil {
				return notes, err
			}
			notes = append(notes, apart(c, id, state.Schema)...)
		}
	}
	return notes, nil
}

// apart compares one table.
func apart(c *contract.Contract, id lake.Ident, schema *columnar.Schema) (notes contract.Problems) {
	lines := map[string]int{}
	for i := range c.Fields {
		lines[c.Fields[i].Path] = c.Fields[i].Line
	}
	for _, want := range c.Shape().Columns {
		have, ok := schema.ByPath(want.Path)
		if !ok || have.Dropped || have.Kind.String() == want.Kind {
			continue
		}
		if have.Kind == columnar.Long && want.Kind == columnar.Double.String() {
			continue // it becomes one with its first fraction
		}
		notes = append(notes, contract.Problem{File: c.File, Line: lines[want.Path], Key: "schema[" + c.Type + "]." + want.Path,
			Text: fmt.Sprintf("the column %s of %s is %s and stays so, the contract wants %s: what does not fit goes to _rescued; set naru.table to another name for a new table with the contract's types, the old one stays for queries",
				have.Name, id, have.Kind, want.Kind)})
	}
	shape := c.Shape()
	note := func(key, path string) {
		if have, ok := schema.ByPath(path); ok {
			notes = append(notes, contract.Problem{File: c.File, Line: c.Line, Key: "schema[" + c.Type + "]." + key,
				Text: fmt.Sprintf("files of %s cannot be laid out so: its column %s is %s and stays so; set naru.table to another name for a new table, the old one stays for queries",
					id, have.Name, have.Kind)})
		}
	}
	for _, p := range shape.Partition {
		if _, ok := schema.BindPartition([]lake.ShapePartition{p}); !ok {
			note("naru.partition", p.Path)
		}
	}
	for _, s := range shape.Sort {
		if _, ok := schema.BindSort([]lake.ShapeSort{s}); !ok {
			note("naru.sort", s.Path)
		}
	}
	return notes
}
