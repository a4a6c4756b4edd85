package iceberg

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"naru/internal/lake"
)

// List implements lake.Reader.
func (l *Lake) List(ctx context.Context) ([]lake.Ident, error) { return l.catalog.List(ctx) }

// View implements lake.Reader. The files stay until Release.
func (l *Lake) View(ctx context.Context, t lake.Ident) (*lake.View, error) {
	v, _, err := l.view(ctx, t)
	return v, err
}

// ViewState is View with the columns that rows behind it are built by. The state
// is nil where naru can read the table, and cannot write to it.
func (l *Lake) ViewState(ctx context.Context, t lake.Ident) (*lake.View, *State, error) {
	v, h, err := l.view(ctx, t)
	if err != nil || h.schemaErr != nil {
		return v, nil, err
	}
	return v, l.state(h), nil
}

func (l *Lake) view(ctx context.Context, t lake.Ident) (_ *lake.View, _ *head, err error) {
	// The lease comes first: what is seen after it cannot be removed.
	release := sync.OnceFunc(l.garbage.lease())
	defer func() {
		if err != nil {
			release()
		}
	}()
	h, err := l.current(ctx, t)
	if err != nil {
		return nil, nil, fmt.Errorf("view %s: %w", t, err)
	}
	files, err := l.dataFiles(h)
	if err != nil {
		return nil, nil, fmt.Errorf("view %s: %w", t, withCure(t, err))
	}
	v := &lake.View{Ident: t, Columns: columns(h.meta.CurrentSchema()), Positions: h.positions.Clone(),
		Files: make([]lake.File, len(files)), Release: release}
	if h.snap != nil {
		v.SnapshotID = h.snap.SnapshotID
	}
	for i, f := range files {
		v.Files[i] = f.File
		v.Rows += f.Rows
	}
	return v, h, nil
}

// Info implements lake.Reader.
func (l *Lake) Info(ctx context.Context, t lake.Ident) (*lake.Info, error) {
	h, err := l.current(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", t, err)
	}
	i := &lake.Info{Ident: t, Location: strings.TrimPrefix(h.meta.Location(), scheme), Columns: columns(h.meta.CurrentSchema()),
		Positions: h.positions.Clone(), Rescued: parseRescued(h.meta.Properties()[keyRescued])}
	i.Partition, i.Sort = describeArrangement(h.meta)
	if h.snap == nil {
		return i, nil
	}
	i.SnapshotID, i.LastCommit = h.snap.SnapshotID, time.UnixMilli(h.snap.TimestampMs).UTC()
	rows, bytes, files, ok := l.totals(h)
	if !ok { // another engine's snapshot without totals
		list, err := l.dataFiles(h)
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", t, err)
		}
		rows, bytes, files = 0, 0, int64(len(list))
		for _, f := range list {
			rows, bytes = rows+f.Rows, bytes+f.Bytes
		}
	}
	i.Rows, i.Bytes, i.Files = rows, bytes, int(files)
	return i, nil
}

// maxRescued is how many paths the property keeps.
const maxRescued = 20

// mergeRescued adds newly counted paths to the property's. Counts of paths that
// fell off the list begin anew, so they are lower bounds.
func mergeRescued(property string, more []lake.PathCount) string {
	sum := map[string]int64{}
	for _, list := range [][]lake.PathCount{parseRescued(property), more} {
		for _, p := range list {
			sum[p.Path] += p.Count
		}
	}
	list := make([]lake.PathCount, 0, len(sum))
	for p, n := range sum {
		list = append(list, lake.PathCount{Path: p, Count: n})
	}
	sortRescued(list)
	b, err := json.Marshal(list[:min(len(list), maxRescued)])
	if err != nil {
		return property // strings and numbers always marshal
	}
	return string(b)
}

// parseRescued reads the property; what cannot be read is as good as none.
func parseRescued(property string) []lake.PathCount {
	var list []lake.PathCount
	if property == "" || json.Unmarshal([]byte(property), &list) != nil {
		return nil
	}
	sortRescued(list)
	return list
}

func sortRescued(list []lake.PathCount) {
	slices.SortFunc(list, func(a, b lake.PathCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Path, b.Path))
	})
}
