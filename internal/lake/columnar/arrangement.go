package columnar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"naru/internal/lake"
)

// Arrangement says which rows stand together in a file, and in which order.
// What rows there are does not depend on it.
type Arrangement struct {
	// Partition has the values that all rows of a file share; none: any rows
	// stand together.
	Partition []PartitionField
	// Sort is the order of rows within a row group, and within a file where
	// DataFile says so; none: the order in which they came.
	Sort []SortField
}

// PartitionField is one value that rows of a file share.
type PartitionField struct {
	Source    int // field id of the column
	Transform Transform
	Buckets   int // of Bucket
}

// SortField is one column of an order. Null comes before all values, and behind
// them when the order is descending: Iceberg's own choice.
type SortField struct {
	Source     int
	Descending bool
}

// DefaultPartition is that of a table of which no contract has asked for another:
// day(_time).
func DefaultPartition() []PartitionField {
	return []PartitionField{{Source: idTime, Transform: Day}}
}

// MaxPartitionFields and MaxSortFields bound an arrangement.
const (
	MaxPartitionFields = lake.MaxPartitionFields
	MaxSortFields      = lake.MaxSortFields
)

// Equal tells whether both are the same.
func (a Arrangement) Equal(b Arrangement) bool {
	return slices.Equal(a.Partition, b.Partition) && slices.Equal(a.Sort, b.Sort)
}

// isCopied tells whether the rows of a chunk are mostly copied to be put in their
// places.
func (a *Arrangement) isCopied() bool {
	return len(a.Sort) > 0 || len(a.Partition) > 0 && !slices.Equal(a.Partition, DefaultPartition())
}

// Uses tells whether the arrangement is by a column.
func (a Arrangement) Uses(fieldID int) bool {
	return slices.ContainsFunc(a.Partition, func(p PartitionField) bool { return p.Source == fieldID }) ||
		slices.ContainsFunc(a.Sort, func(s SortField) bool { return s.Source == fieldID })
}

// fitsPartition tells whether files of the schema can be partitioned so.
func (s *Schema) fitsPartition(by []PartitionField) bool {
	return !slices.ContainsFunc(by, func(p PartitionField) bool {
		f, ok := s.ByID(p.Source)
		return !ok || f.Dropped || !p.Transform.takes(f.Kind)
	})
}

// fitsSort tells whether rows of the schema can be sorted so.
func (s *Schema) fitsSort(by []SortField) bool {
	return !slices.ContainsFunc(by, func(o SortField) bool {
		f, ok := s.ByID(o.Source)
		return !ok || f.Dropped || !sortable(f.Kind)
	})
}

// Fit is the arrangement as far as the schema has its columns: else the default
// partition, and no order.
func (s *Schema) Fit(a Arrangement) Arrangement {
	if !s.fitsPartition(a.Partition) {
		a.Partition = DefaultPartition()
	}
	if !s.fitsSort(a.Sort) {
		a.Sort = nil
	}
	return a
}

// BindPartition finds the columns that a contract wants a table to be partitioned
// by. ok is false when one is not there or of a type that it cannot be.
func (s *Schema) BindPartition(asked []lake.ShapePartition) (by []PartitionField, ok bool) {
	by = []PartitionField{}
	for _, p := range asked {
		if p.Transform == lake.None {
			continue
		}
		t, known := parseTransform(p.Transform)
		f, found := s.agreedField(p.Path)
		if !known || !found {
			return nil, false
		}
		by = append(by, PartitionField{Source: f.ID, Transform: t, Buckets: p.N})
	}
	return by, s.fitsPartition(by)
}

// BindSort is BindPartition for the order.
func (s *Schema) BindSort(asked []lake.ShapeSort) (by []SortField, ok bool) {
	for _, o := range asked {
		if o.Path == lake.None {
			continue
		}
		f, found := s.agreedField(o.Path)
		if !found {
			return nil, false
		}
		by = append(by, SortField{Source: f.ID, Descending: o.Descending})
	}
	return by, s.fitsSort(by)
}

// agreedField finds a column by the name that a contract has for it: that of an
// envelope column, or a JSON path.
func (s *Schema) agreedField(path string) (Field, bool) {
	for _, f := range s.Fields {
		if f.ID <= idOffset && f.Name == path && f.Path == "" {
			return f, true
		}
	}
	return s.ByPath(path)
}

// PartitionName is the name of a partition field in a table's metadata, by the
// column's name: day(_time) is _time_day, as it has always been. No JSON path
// makes a column whose name begins with _by_.
func (p PartitionField) PartitionName(column string) string {
	switch {
	case p.Transform == Day && p.Source == idTime:
		return DayField
	case p.Transform == Identity:
		return column
	case p.Transform == Bucket:
		return reservedPrefix + "bucket" + strconv.Itoa(p.Buckets) + "_" + strings.TrimLeft(column, "_")
	}
	return reservedPrefix + p.Transform.String() + "_" + strings.TrimLeft(column, "_")
}

// folder is where files of a partition are put: name=value, one folder for each
// field; empty without a partition. Only people read it.
func folder(s *Schema, by []PartitionField, values []PartitionValue) string {
	var b strings.Builder
	for i, p := range by {
		f, _ := s.ByID(p.Source)
		if i > 0 {
			b.WriteByte('/')
		}
		fmt.Fprintf(&b, "%s=%s", plainName(p.PartitionName(f.Name)), plainName(p.text(f.Kind, values[i])))
	}
	return b.String()
}

// plainName keeps what is harmless in the name of a file, and not too much of it.
func plainName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			if (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
				b[i] = '_'
			}
		}
	}
	return string(b[:min(len(b), 60)])
}

// arrange takes over what the event's contract says of partition and order. Its
// columns must be there.
func (b *Builder) arrange() {
	s := b.shape
	if s == nil || s.bound && s.arranged == b.arranged || !s.of.Arranges() {
		return
	}
	if !s.bound {
		s.partition, s.partitionOK = b.schema.BindPartition(s.of.Partition)
		s.sort, s.sortOK = b.schema.BindSort(s.of.Sort)
		s.bound = true
	}
	next := *b.arranged
	if len(s.of.Partition) > 0 && s.partitionOK {
		next.Partition = s.partition
	}
	if len(s.of.Sort) > 0 && s.sortOK {
		next.Sort = s.sort
	}
	if !next.Equal(*b.arranged) {
		b.arranged = &next
		b.asked = appendArrangement(b.asked, next)
	}
	s.arranged = b.arranged
}

// appendArrangement adds one as the last of a list that has each once.
func appendArrangement(list []Arrangement, a Arrangement) []Arrangement {
	list = slices.DeleteFunc(list, a.Equal)
	return append(list, a)
}

// Asked are the arrangements that contracts have asked for since the last Finish
// or Reset, each once; the last one is that of the rows to come. Columns that
// they use keep their type, so the table is to know all of them: ask before Finish.
func (b *Builder) Asked() []Arrangement { return slices.Clone(b.asked) }

// pinned tells whether a column has to keep its field id, as files are arranged
// by it.
func (b *Builder) pinned(fieldID int) bool {
	return b.arranged.Uses(fieldID) || slices.ContainsFunc(b.asked, func(a Arrangement) bool { return a.Uses(fieldID) })
}
