package iceberg

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/lake"
)

// cut is how far a table had got, or may have, beyond what its head says: its
// row in the catalog was set back to an older metadata file, which takes the
// property back too, or a crash came between a metadata file and its row. Both
// leave newer metadata files behind.
type cut struct {
	until event.Positions
	// from is where the first row of what is missing lies, where that is known:
	// after a crash it is behind the watermark, and nothing has to be read again.
	from event.Positions
}

// lookAhead looks for metadata files that are newer than the head, once. What it
// finds, the next commit makes part of the property.
func (l *Lake) lookAhead(ctx context.Context, t lake.Ident, h *head) {
	h.lists.Lock()
	defer h.lists.Unlock()
	if h.lists.looked {
		return
	}
	h.lists.looked = true
	for _, newer := range l.newerMetadata(ctx, t, h) {
		n, err := newHead(h.location, newer)
		if err != nil {
			continue
		}
		beyond := ahead(n.property, h.property)
		if beyond == nil {
			continue
		}
		from := l.firstRows(h.meta, newer, beyond)
		for inc, parts := range beyond {
			for p, off := range parts {
				at := event.Position{Incarnation: inc, Partition: p, Offset: off}
				if _, had := h.cut.until.Get(inc, p); !had {
					if first, ok := from.Get(inc, p); ok {
						h.cut.from = with(h.cut.from, event.Position{Incarnation: inc, Partition: p, Offset: first})
					}
				} else if first, ok := from.Get(inc, p); !ok {
					delete(h.cut.from[inc], p)
				} else if was, ok := h.cut.from.Get(inc, p); ok {
					h.cut.from[inc][p] = min(was, first)
				}
				h.cut.until = with(h.cut.until, at)
			}
		}
	}
	if h.cut.until != nil {
		l.log.Info("table has metadata files that are newer than the catalog says, of a crash or because its row was set back",
			slog.String("table", t.String()), slog.String("metadata", h.location), slog.String("up_to", h.cut.until.String()))
	}
}

func with(p event.Positions, at event.Position) event.Positions {
	if p == nil {
		p = event.Positions{}
	}
	p.Advance(at)
	return p
}

// newerMetadata reads the metadata files of a table that are newer than its
// head, as far as they can be read.
func (l *Lake) newerMetadata(ctx context.Context, t lake.Ident, h *head) (found []table.Metadata) {
	folder, err := localPath(h.meta.Location())
	if err != nil {
		return nil
	}
	folder = filepath.Join(folder, "metadata")
	version := metadataVersion(h.location)
	for _, name := range l.list(folder) {
		if !strings.HasSuffix(name, ".metadata.json") || metadataVersion(name) <= version {
			continue
		}
		fsys := func(context.Context) (iceio.IO, error) { return l.io, nil }
		tbl, err := table.NewFromLocation(ctx, []string{t.Namespace, t.Name}, filepath.Join(folder, name), fsys, nil)
		if err == nil && tbl.Metadata().TableUUID() == h.meta.TableUUID() {
			found = append(found, tbl.Metadata())
		}
	}
	return found
}

// firstRows returns the lowest _offset of the rows that newer has and the head
// has not; nil when that cannot be known.
func (l *Lake) firstRows(meta, newer table.Metadata, beyond event.Positions) event.Positions {
	if len(beyond) != 1 {
		return nil // manifests do not tell which offset is of which life of the log
	}
	first := int64(-1)
	for _, s := range newer.Snapshots() {
		if meta.SnapshotByID(s.SnapshotID) != nil {
			continue
		}
		manifests, err := s.Manifests(l.io)
		if err != nil {
			return nil
		}
		for _, m := range manifests {
			if m.SnapshotID() != s.SnapshotID {
				continue
			}
			for e, err := range m.Entries(l.io, true) {
				if err != nil {
					return nil
				}
				if e.Status() != ice.EntryStatusADDED {
					continue
				}
				low, _ := offsetsOf(e.DataFile())
				if low < 0 {
					return nil
				}
				if first < 0 || low < first {
					first = low
				}
			}
		}
	}
	if first < 0 {
		return nil
	}
	from := event.Positions{}
	for inc, parts := range beyond {
		if len(parts) != 1 {
			return nil
		}
		for p := range parts {
			from.Advance(event.Position{Incarnation: inc, Partition: p, Offset: first})
		}
	}
	return from
}

// carry keeps what the process knew of a table whose row was set back: newer
// metadata files may be gone.
func (h *head) carry(had *head) {
	if had == nil || had.meta.TableUUID() != h.meta.TableUUID() || metadataVersion(h.location) > metadataVersion(had.location) {
		return // whoever goes forward says what holds
	}
	for _, known := range []event.Positions{had.property, had.cut.until} {
		for inc, parts := range ahead(known, h.property) {
			for p, off := range parts {
				h.cut.until = with(h.cut.until, event.Position{Incarnation: inc, Partition: p, Offset: off})
			}
		}
	}
}

// reached is the farthest place that the table ever had, by what is known of it.
func (h *head) reached() event.Positions {
	all := h.property.Clone()
	for inc, parts := range h.cut.until {
		for p, off := range parts {
			all = with(all, event.Position{Incarnation: inc, Partition: p, Offset: off})
		}
	}
	return all
}

// sortedIdents is for files that are read by people.
func sortedIdents[V any](m map[lake.Ident]V) []lake.Ident {
	out := make([]lake.Ident, 0, len(m))
	for t := range m {
		out = append(out, t)
	}
	slices.SortFunc(out, compareIdents)
	return out
}
