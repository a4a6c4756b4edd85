package iceberg

import (
	"fmt"
	"slices"
	"strconv"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"naru/internal/lake/columnar"
)

// How rows are put together in files, in the table's metadata: partition specs and
// sort orders. A table gets a further one of each when a contract first asks for it,
// and makes it the default. Old files keep theirs: each file names its own.

// firstPartitionID is the field id of a table's first partition field.
const firstPartitionID = 1000

// arrangement is what a table's defaults say, as far as naru can write so: another
// engine may have chosen what it cannot.
func arrangement(meta table.Metadata, s *columnar.Schema) columnar.Arrangement {
	a := columnar.Arrangement{Partition: columnar.DefaultPartition()}
	if by, ok := partitionOf(meta.PartitionSpec()); ok {
		a.Partition = by
	}
	if by, ok := sortOf(meta.SortOrder()); ok {
		a.Sort = by
	}
	return s.Fit(a)
}

func partitionOf(spec ice.PartitionSpec) (by []columnar.PartitionField, ok bool) {
	by = []columnar.PartitionField{}
	for _, f := range spec.Fields() {
		if _, void := f.Transform.(ice.VoidTransform); void {
			continue
		}
		p := columnar.PartitionField{Source: f.SourceID()}
		switch t := f.Transform.(type) {
		case ice.IdentityTransform:
			p.Transform = columnar.Identity
		case ice.YearTransform:
			p.Transform = columnar.Year
		case ice.MonthTransform:
			p.Transform = columnar.Month
		case ice.DayTransform:
			p.Transform = columnar.Day
		case ice.HourTransform:
			p.Transform = columnar.Hour
		case ice.BucketTransform:
			p.Transform, p.Buckets = columnar.Bucket, t.NumBuckets
		default:
			return nil, false
		}
		if len(f.SourceIDs) != 1 {
			return nil, false
		}
		by = append(by, p)
	}
	return by, len(by) <= columnar.MaxPartitionFields
}

func transformOf(p columnar.PartitionField) ice.Transform {
	switch p.Transform {
	case columnar.Year:
		return ice.YearTransform{}
	case columnar.Month:
		return ice.MonthTransform{}
	case columnar.Day:
		return ice.DayTransform{}
	case columnar.Hour:
		return ice.HourTransform{}
	case columnar.Bucket:
		return ice.BucketTransform{NumBuckets: p.Buckets}
	}
	return ice.IdentityTransform{}
}

func sortOf(order table.SortOrder) (by []columnar.SortField, ok bool) {
	for _, f := range order.Fields() {
		_, plain := f.Transform.(ice.IdentityTransform)
		desc := f.Direction == table.SortDESC
		if !plain || len(f.SourceIDs) != 1 || desc != (f.NullOrder == table.NullsLast) {
			return nil, false
		}
		by = append(by, columnar.SortField{Source: f.SourceID(), Descending: desc})
	}
	return by, len(by) <= columnar.MaxSortFields
}

// sortFields is the way back. Null is less than every value.
func sortFields(by []columnar.SortField) []table.SortField {
	out := make([]table.SortField, len(by))
	for i, o := range by {
		out[i] = table.SortField{SourceIDs: []int{o.Source}, Transform: ice.IdentityTransform{}, Direction: table.SortASC, NullOrder: table.NullsFirst}
		if o.Descending {
			out[i].Direction, out[i].NullOrder = table.SortDESC, table.NullsLast
		}
	}
	return out
}

// describeArrangement gives a table's defaults as a contract writes them.
func describeArrangement(meta table.Metadata) (partition, sort []string) {
	name := func(id int) string {
		n, _ := meta.CurrentSchema().FindColumnName(id)
		return n
	}
	spec := meta.PartitionSpec()
	for _, f := range spec.Fields() {
		switch t := f.Transform.(type) {
		case ice.VoidTransform:
		case ice.IdentityTransform:
			partition = append(partition, name(f.SourceID()))
		case ice.BucketTransform:
			partition = append(partition, fmt.Sprintf("bucket(%d, %s)", t.NumBuckets, name(f.SourceID())))
		default:
			partition = append(partition, fmt.Sprintf("%s(%s)", t, name(f.SourceID())))
		}
	}
	order := meta.SortOrder()
	for _, f := range order.Fields() {
		text := name(f.SourceID())
		if _, plain := f.Transform.(ice.IdentityTransform); !plain {
			text = fmt.Sprintf("%s(%s)", f.Transform, text)
		}
		if f.Direction == table.SortDESC {
			text += " desc"
		}
		sort = append(sort, text)
	}
	return partition, sort
}

// arrangesBy tells whether files of the table may be arranged by a column: by its
// id, so the column must keep that.
func arrangesBy(meta table.Metadata, fieldID int) bool {
	for _, s := range meta.PartitionSpecs() {
		for _, f := range s.Fields() {
			if slices.Contains(f.SourceIDs, fieldID) {
				return true
			}
		}
	}
	for _, o := range meta.SortOrders() {
		for _, f := range o.Fields() {
			if slices.Contains(f.SourceIDs, fieldID) {
				return true
			}
		}
	}
	return false
}

// arranger finds the specs and orders of a table, and adds those that it lacks.
type arranger struct {
	schema  *ice.Schema
	specs   []ice.PartitionSpec
	orders  []table.SortOrder
	last    int // partition field id
	updates []table.Update
}

// newArranger begins with what a table has; nil: with nothing, for a new one.
func newArranger(meta table.Metadata, schema *ice.Schema) *arranger {
	r := &arranger{schema: schema, last: firstPartitionID - 1}
	if meta == nil {
		return r
	}
	r.specs, r.orders = slices.Clone(meta.PartitionSpecs()), slices.Clone(meta.SortOrders())
	if id := meta.LastPartitionSpecID(); id != nil {
		r.last = max(r.last, *id)
	}
	for _, s := range r.specs {
		for _, f := range s.Fields() {
			r.last = max(r.last, f.FieldID)
		}
	}
	return r
}

// spec gives the partition spec; it is added where the table has none that is the
// same in all fields.
func (r *arranger) spec(by []columnar.PartitionField) (*ice.PartitionSpec, error) {
	id := 0
	for i := range r.specs {
		have, ok := partitionOf(r.specs[i])
		if ok && len(have) == r.specs[i].NumFields() && slices.Equal(have, by) {
			return &r.specs[i], nil
		}
		id = max(id, r.specs[i].ID()+1)
	}
	var fields []ice.PartitionField
	for _, p := range by {
		f, err := r.field(p, fields)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	spec := ice.NewPartitionSpecID(id, fields...)
	r.specs = append(r.specs, spec)
	r.updates = append(r.updates, table.NewAddPartitionSpecUpdate(&spec, false))
	return &r.specs[len(r.specs)-1], nil
}

// field is a partition field under the id that it had in any spec before, as all
// engines do it, or under a new one.
func (r *arranger) field(p columnar.PartitionField, beside []ice.PartitionField) (ice.PartitionField, error) {
	column, ok := r.schema.FindFieldByID(p.Source)
	if !ok {
		return ice.PartitionField{}, fmt.Errorf("partition by column %d: the table has none", p.Source)
	}
	taken := map[string]bool{}
	for _, s := range r.specs {
		for _, f := range s.Fields() {
			if f.SourceID() == p.Source && len(f.SourceIDs) == 1 && f.Transform.Equals(transformOf(p)) {
				return f, nil
			}
			taken[f.Name] = true
		}
	}
	for _, f := range beside {
		taken[f.Name] = true
	}
	name := p.PartitionName(column.Name)
	for n := 2; ; n++ {
		of, isColumn := r.schema.FindFieldByName(name)
		if !taken[name] && (!isColumn || p.Transform == columnar.Identity && of.ID == p.Source) {
			break
		}
		name = p.PartitionName(column.Name) + "_" + strconv.Itoa(n)
	}
	r.last++
	return ice.PartitionField{SourceIDs: []int{p.Source}, FieldID: r.last, Name: name, Transform: transformOf(p)}, nil
}

// order gives the id of the sort order, which is added like spec.
func (r *arranger) order(by []columnar.SortField) (int, error) {
	if len(by) == 0 {
		if !slices.ContainsFunc(r.orders, table.SortOrder.IsUnsorted) {
			unsorted := table.UnsortedSortOrder
			r.orders = append(r.orders, unsorted)
			r.updates = append(r.updates, table.NewAddSortOrderUpdate(&unsorted))
		}
		return table.UnsortedSortOrderID, nil
	}
	id := table.InitialSortOrderID
	for _, o := range r.orders {
		if have, ok := sortOf(o); ok && slices.Equal(have, by) {
			return o.OrderID(), nil
		}
		id = max(id, o.OrderID()+1)
	}
	order, err := table.NewSortOrder(id, sortFields(by))
	if err != nil {
		return 0, fmt.Errorf("sort: %w", err)
	}
	r.orders = append(r.orders, order)
	r.updates = append(r.updates, table.NewAddSortOrderUpdate(&order))
	return id, nil
}

// prefer makes an arrangement the table's default.
func (r *arranger) prefer(a columnar.Arrangement) error {
	spec, err := r.spec(a.Partition)
	if err != nil {
		return err
	}
	order, err := r.order(a.Sort)
	if err != nil {
		return err
	}
	r.updates = append(r.updates, table.NewSetDefaultSpecUpdate(spec.ID()), table.NewSetDefaultSortOrderUpdate(order))
	return nil
}

// byID finds a spec, those that are being added included.
func (r *arranger) byID(id int) *ice.PartitionSpec {
	for i := range r.specs {
		if r.specs[i].ID() == id {
			return &r.specs[i]
		}
	}
	return nil
}

// entry describes a file as a manifest has it.
func (r *arranger) entry(f columnar.DataFile, s *columnar.Schema) (ice.DataFile, error) {
	spec, err := r.spec(f.Arrangement.Partition)
	if err != nil {
		return nil, err
	}
	var order *int
	if f.Sorted {
		id, err := r.order(f.Arrangement.Sort)
		if err != nil {
			return nil, err
		}
		order = &id
	}
	partition := map[int]any{}
	for i, p := range f.Arrangement.Partition {
		column, _ := s.ByID(p.Source)
		partition[spec.Field(i).FieldID] = partitionValue(p, column.Kind, f.Partition[i])
	}
	return manifestEntry(*spec, partition, order, f)
}

// arrange describes the files as manifests have them, and adds to the table what it
// lacks for that.
func (a *attempt) arrange(base table.Metadata, current *ice.Schema, schema *columnar.Schema) (*arranger, []ice.DataFile, error) {
	r := newArranger(base, current)
	for i, asked := range a.c.Asked {
		// Also those of which no file is left are kept: the columns keep their type.
		if _, err := r.spec(asked.Partition); err != nil {
			return nil, nil, err
		}
		if _, err := r.order(asked.Sort); err != nil {
			return nil, nil, err
		}
		if i == len(a.c.Asked)-1 {
			if err := r.prefer(asked); err != nil {
				return nil, nil, err
			}
		}
	}
	entries := make([]ice.DataFile, 0, len(a.c.Files))
	for _, f := range a.c.Files {
		e, err := r.entry(f, schema)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	return r, entries, nil
}

// partitionValue is a partition's value in the type that Iceberg gives it.
func partitionValue(p columnar.PartitionField, k columnar.Kind, v columnar.PartitionValue) any {
	switch {
	case v.Null:
		return nil
	case p.Transform == columnar.Day, p.Transform == columnar.Identity && k == columnar.Date:
		return ice.Date(v.Long)
	case p.Transform != columnar.Identity, k == columnar.Int:
		return int32(v.Long)
	case k == columnar.String:
		return v.Text
	case k == columnar.Bool:
		return v.Long != 0
	}
	return v.Long
}
