package iceberg

import (
	"errors"
	"fmt"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// ErrUnfit is the class of errors that concern one table alone and that stay
// until somebody cures them; the cure is in the hint.
var ErrUnfit = errors.New("table cannot take rows")

// ErrNotOurs: a table of that name was made by someone else.
var ErrNotOurs = errors.New("table was not made by naru")

type unfitError struct{ err error }

func (e *unfitError) Error() string        { return e.err.Error() }
func (e *unfitError) Unwrap() error        { return e.err }
func (e *unfitError) Is(target error) bool { return target == ErrUnfit }

func unfit(err error, cure string, args ...any) error {
	return fault.WithHint(&unfitError{err}, cure, args...)
}

// readSchema reads naru's own map of paths to columns and takes over what
// others did to the table's columns since.
func readSchema(meta table.Metadata) (*columnar.Schema, error) {
	text, ok := meta.Properties()[columnar.Property]
	if !ok {
		return nil, unfit(ErrNotOurs, "drop or rename the table at %s; naru makes its own at the next event", meta.Location())
	}
	s, err := columnar.ParseSchema(text)
	if err != nil {
		return nil, unfit(err, "set the table property %s back to what it was, or drop the table at %s", columnar.Property, meta.Location())
	}
	if err := s.Adopt(columns(meta.CurrentSchema()), meta.LastColumnID()); err != nil {
		return nil, unfit(err, "undo that change of the table's columns at %s", meta.Location())
	}
	return s, nil
}

// columns lists the top-level columns of an Iceberg schema.
func columns(s *ice.Schema) []lake.Column {
	cols := make([]lake.Column, 0, s.NumFields())
	for _, f := range s.Fields() {
		c := lake.Column{FieldID: f.ID, Name: f.Name, Type: f.Type.String()}
		if l, ok := f.Type.(*ice.ListType); ok {
			c.ElementID, c.Type = l.ElementID, "list<"+l.Element.String()+">"
		}
		cols = append(cols, c)
	}
	return cols
}

// nextSchema is the table's schema with what a builder added or promoted.
// Everything else, also what others did, stays as it is.
func nextSchema(current *ice.Schema, from, to *columnar.Schema) (*ice.Schema, error) {
	change := from.Diff(to)
	replaced := map[int]columnar.Field{}
	for _, p := range change.Promoted {
		replaced[p.From.ID] = p.To
	}
	fields := make([]ice.NestedField, 0, current.NumFields()+len(change.Added))
	for _, f := range current.Fields() {
		if to, ok := replaced[f.ID]; ok {
			n, err := icebergField(to)
			if err != nil {
				return nil, err
			}
			n.Doc = f.Doc
			f = n
		}
		fields = append(fields, f)
	}
	for _, add := range change.Added {
		if add.Dropped || add.Kind == columnar.Foreign {
			continue
		}
		f, err := icebergField(add)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return ice.NewSchema(current.ID+1, fields...), nil
}

// newSchema is the schema of a new table.
func newSchema(s *columnar.Schema) (*ice.Schema, error) {
	return nextSchema(ice.NewSchema(-1), &columnar.Schema{}, s)
}

func icebergField(f columnar.Field) (ice.NestedField, error) {
	t, err := icebergType(f.Kind)
	if err != nil {
		return ice.NestedField{}, fmt.Errorf("column %s: %w", f.Name, err)
	}
	if f.Kind.IsList() {
		t = &ice.ListType{ElementID: f.ElementID, Element: t}
	}
	return ice.NestedField{ID: f.ID, Name: f.Name, Type: t}, nil
}

func icebergType(k columnar.Kind) (ice.Type, error) {
	if k.IsList() {
		k = k.Element()
	}
	switch k {
	case columnar.Bool:
		return ice.PrimitiveTypes.Bool, nil
	case columnar.Long:
		return ice.PrimitiveTypes.Int64, nil
	case columnar.Int:
		return ice.PrimitiveTypes.Int32, nil
	case columnar.Double:
		return ice.PrimitiveTypes.Float64, nil
	case columnar.String, columnar.JSON:
		return ice.PrimitiveTypes.String, nil
	case columnar.Binary:
		return ice.PrimitiveTypes.Binary, nil
	case columnar.Timestamp:
		return ice.PrimitiveTypes.TimestampTz, nil
	case columnar.Date:
		return ice.PrimitiveTypes.Date, nil
	default:
		return nil, fmt.Errorf("no Iceberg type for %s", k)
	}
}

// reshape gives base the columns and partition specs that the updates leave it. A
// builder does them and builds nothing: that would stamp the result with the clock,
// and fail as long as the clock is behind the table's last commit.
func reshape(base table.Metadata, updates []table.Update, from string, r *arranger) (table.Metadata, error) {
	if len(updates) == 0 {
		return base, nil
	}
	b, err := table.MetadataBuilderFromBase(base, from)
	if err != nil {
		return nil, err
	}
	for _, u := range updates {
		if err := u.Apply(b); err != nil {
			return nil, err
		}
	}
	return changed{base, b.CurrentSchema(), r}, nil
}

// changed is metadata with another current schema, and with more partition specs.
type changed struct {
	table.Metadata
	schema *ice.Schema
	specs  *arranger
}

func (c changed) CurrentSchema() *ice.Schema                  { return c.schema }
func (c changed) PartitionSpecByID(id int) *ice.PartitionSpec { return c.specs.byID(id) }

// newMetadata is the metadata of a new table, without a snapshot. The builder
// is used and not table.NewMetadata, which would give out field ids anew.
func newMetadata(location string, s *columnar.Schema, a columnar.Arrangement, props ice.Properties) (table.Metadata, error) {
	schema, err := newSchema(s)
	if err != nil {
		return nil, err
	}
	b, err := table.NewMetadataBuilder(2)
	if err != nil {
		return nil, err
	}
	r := newArranger(nil, schema)
	spec, err := r.spec(a.Partition)
	if err != nil {
		return nil, fmt.Errorf("make table at %s: %w", location, err)
	}
	if _, err := r.order(a.Sort); err != nil {
		return nil, fmt.Errorf("make table at %s: %w", location, err)
	}
	for _, step := range []func() error{
		func() error { return b.SetUUID(newUUID()) },
		func() error { return b.AddSchema(schema) },
		func() error { return b.SetCurrentSchemaID(-1) },
		func() error { return b.AddSortOrder(&r.orders[0]) },
		func() error { return b.SetDefaultSortOrderID(-1) },
		func() error { return b.AddPartitionSpec(spec, true) },
		func() error { return b.SetDefaultSpecID(-1) },
		func() error { return b.SetLoc(location) },
		func() error { return b.SetProperties(props) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("make table at %s: %w", location, err)
		}
	}
	return b.Build()
}

// tableProperties are set on every new table: they keep commits flat and files
// fit for readers, also when other engines write to the table.
func tableProperties() ice.Properties {
	return ice.Properties{
		table.ManifestMergeEnabledKey:             "true",
		table.ManifestMinMergeCountKey:            "50",
		table.MetadataDeleteAfterCommitEnabledKey: "true",
		table.MetadataPreviousVersionsMaxKey:      "20",
		table.CommitNumRetriesKey:                 "10",
		table.ParquetRowGroupLimitKey:             "122880",
		table.ParquetCompressionKey:               "zstd",
	}
}
