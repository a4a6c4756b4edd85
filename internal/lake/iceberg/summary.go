package iceberg

import (
	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// rows are all that naru has committed, with those of this commit; nil when that is
// not known: the table has some from before they were counted.
func (a *attempt) rows() *lake.Tally {
	had, more := &lake.Tally{}, a.c.Rows
	if a.head != nil {
		had = a.head.rows
	}
	switch {
	case had == nil || more == nil && (a.head == nil || len(a.c.Files) > 0):
		return nil
	case more == nil:
		return had
	}
	all := had.Plus(*more)
	return &all
}

// properties of the commit: naru's own, as they will be.
func (a *attempt) properties(schema *columnar.Schema) (ice.Properties, error) {
	// The property never goes back: as long as it is ahead of the ancestry, rows
	// that somebody rolled back are still to be loaded.
	positions := a.c.Positions.Clone()
	var had ice.Properties
	if a.head != nil {
		for inc, parts := range a.head.reached() {
			for p, off := range parts {
				positions.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
			}
		}
		had = a.head.meta.Properties()
	}
	props := ice.Properties{keyPositions: positions.String(), keyCommitID: a.id}
	if text := schema.MarshalProperty(); had[columnar.Property] != text {
		props[columnar.Property] = text
	}
	if a.c.Stream != "" && had[keyStream] != a.c.Stream {
		props[keyStream] = a.c.Stream
	}
	if len(a.c.Rescued) > 0 {
		props[keyRescued] = mergeRescued(had[keyRescued], a.c.Rescued)
	}
	return props, nil
}

// mainRef moves main to the snapshot and keeps the ref's retention settings.
func mainRef(base table.Metadata, id int64) table.Update {
	var maxRef, maxAge int64
	var minKeep int
	for name, ref := range base.Refs() {
		if name != table.MainBranch {
			continue
		}
		if ref.MaxRefAgeMs != nil {
			maxRef = *ref.MaxRefAgeMs
		}
		if ref.MaxSnapshotAgeMs != nil {
			maxAge = *ref.MaxSnapshotAgeMs
		}
		if ref.MinSnapshotsToKeep != nil {
			minKeep = *ref.MinSnapshotsToKeep
		}
	}
	return table.NewSetSnapshotRefUpdate(table.MainBranch, id, table.BranchRef, maxRef, maxAge, minKeep)
}
