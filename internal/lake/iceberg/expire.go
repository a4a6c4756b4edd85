package iceberg

import (
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"errors"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// looseAge is how long snapshots stay that no branch or tag leads to, as after
// a roll-back: Iceberg's own default for old snapshots.
const looseAge = 5 * 24 * time.Hour

// expire returns the updates that drop old snapshots, and the schemas that only
// they had; none until there are ExpireEvery more than are to be kept. head is
// the snapshot that the same commit adds.
func expire(cfg Config, base table.Metadata, head *table.Snapshot) []table.Update {
	had := base.Snapshots()
	if len(had)+1 < cfg.KeepSnapshots+cfg.ExpireEvery || strings.EqualFold(base.Properties()["gc.enabled"], "false") {
		return nil
	}
	keep := map[int64]bool{head.SnapshotID: true}
	left := cfg.KeepSnapshots - 1
	onMain := map[int64]bool{}
	var parent *table.Snapshot
	if head.ParentSnapshotID != nil {
		parent = base.SnapshotByID(*head.ParentSnapshotID)
	}
	for s := range ancestry(base, parent) {
		onMain[s.SnapshotID] = true
		if left > 0 {
			keep[s.SnapshotID] = true
			left--
		}
	}
	for name, ref := range base.Refs() {
		if name == table.MainBranch {
			continue
		}
		// Other branches and tags are their makers' business: all that they lead
		// to is kept.
		keep[ref.SnapshotID] = true
		if ref.SnapshotRefType == table.BranchRef {
			for s := range ancestry(base, base.SnapshotByID(ref.SnapshotID)) {
				keep[s.SnapshotID] = true
			}
		}
	}
	var drop []int64
	used := map[int]bool{base.CurrentSchema().ID: true}
	if head.SchemaID != nil {
		used[*head.SchemaID] = true
	}
	for _, s := range had {
		loose := !onMain[s.SnapshotID] && head.TimestampMs-s.TimestampMs < looseAge.Milliseconds()
		if keep[s.SnapshotID] || loose {
			if s.SchemaID != nil {
				used[*s.SchemaID] = true
			}
			continue
		}
		drop = append(drop, s.SnapshotID)
	}
	if len(drop) == 0 {
		return nil
	}
	updates := []table.Update{table.NewRemoveSnapshotsUpdate(drop, false)}
	var schemas []int
	for _, s := range base.Schemas() {
		if !used[s.ID] {
			schemas = append(schemas, s.ID)
		}
	}
	if len(schemas) > 0 {
		updates = append(updates, table.NewRemoveSchemasUpdate(schemas))
	}
	return updates
}

// committed does what follows a commit. Nothing of it may fail the commit; what
// is left undone the next start's collection finds.
func (l *Lake) committed(before, now *head, w *snapshotWork) {
	if before == nil {
		return
	}
	if now.lists.haveList { // our own head, and not one that was loaded again
		before.lists.Lock()
		if before.lists.haveFiles && len(w.removed) == 0 {
			// Heads follow one another, so they may share the array: only the newest
			// ever appends to it.
			files := before.lists.files
			complete := true
			for _, e := range w.added {
				f, err := newDataFile(e)
				complete = complete && err == nil
				files = append(files, f)
			}
			now.lists.files, now.lists.haveFiles = files, complete
		}
		before.lists.Unlock()
	}
	l.dropOldMetadata(before, now)
	if err := l.dropExpired(before, now); err != nil {
		l.log.Warn("list files of expired snapshots", slog.String("table", now.meta.Location()), slog.Any("error", err))
	}
}

// dropOldMetadata removes metadata files that fell out of the table's log of
// them, when the table's properties ask for it.
func (l *Lake) dropOldMetadata(before, now *head) {
	if !now.meta.Properties().GetBool(table.MetadataDeleteAfterCommitEnabledKey, false) {
		return
	}
	listed := map[string]bool{now.location: true}
	for e := range now.meta.PreviousFiles() {
		listed[e.MetadataFile] = true
	}
	for e := range before.meta.PreviousFiles() {
		if !listed[e.MetadataFile] {
			l.removeBelow(now.meta.Location(), e.MetadataFile)
		}
	}
}

// dropExpired puts the files that only expired snapshots needed on the list of
// garbage.
func (l *Lake) dropExpired(before, now *head) error {
	var expired []table.Snapshot
	for _, s := range before.meta.Snapshots() {
		if now.meta.SnapshotByID(s.SnapshotID) == nil {
			expired = append(expired, s)
		}
	}
	if len(expired) == 0 {
		return nil
	}
	needed := map[string]bool{}
	for _, s := range now.meta.Snapshots() {
		needed[s.ManifestList] = true
		manifests, err := s.Manifests(l.io)
		if err != nil {
			return err
		}
		for _, m := range manifests {
			needed[m.FilePath()] = true
		}
	}
	// Only when all that is left is main's: then what main removed, nobody has. A
	// branch, a tag, or a snapshot that a roll-back left beside main may have it;
	// the next start's collection finds what none of them needs any more.
	straight := true
	for name := range now.meta.Refs() {
		straight = straight && name == table.MainBranch
	}
	left := 0
	for range ancestry(now.meta, now.snap) {
		left++
	}
	straight = straight && left == len(now.meta.Snapshots())
	onMain := map[int64]bool{}
	for s := range ancestry(before.meta, before.snap) {
		onMain[s.SnapshotID] = true
	}
	var drop []string
	seen := map[string]bool{}
	for _, s := range expired {
		manifests, err := s.Manifests(l.io)
		if err != nil {
			return err
		}
		drop = append(drop, s.ManifestList)
		for _, m := range manifests {
			if m.SnapshotID() == s.SnapshotID && m.DeletedDataFiles() > 0 && straight && onMain[s.SnapshotID] {
				files, err := l.deletedIn(m)
				if err != nil {
					return err
				}
				drop = append(drop, files...)
			}
			if p := m.FilePath(); !needed[p] && !seen[p] {
				seen[p] = true
				drop = append(drop, p)
			}
		}
	}
	l.garbage.add(l.now().Add(l.cfg.GCDelay.Std()), now.meta.Location(), drop)
	return nil
}

// deletedIn lists the data files that a manifest marks as removed.
func (l *Lake) deletedIn(m ice.ManifestFile) ([]string, error) {
	var out []string
	for e, err := range m.Entries(l.io, false) {
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
		}
		if e.Status() == ice.EntryStatusDELETED {
			out = append(out, e.DataFile().FilePath())
		}
	}
	return out, nil
}

// garbage are files that no snapshot needs any more, waiting for the last
// reader that may have seen them.
type garbage struct {
	sync.Mutex
	clock  int64              // counts leases and lists of garbage
	leases map[int64]struct{} // by the clock at their beginning
	items  []garbageItem
}

type garbageItem struct {
	location string // of the table
	file     string
	due      time.Time
	clock    int64
}

// lease keeps everything that is now readable until release is called.
func (g *garbage) lease() (release func()) {
	g.Lock()
	defer g.Unlock()
	g.clock++
	at := g.clock
	if g.leases == nil {
		g.leases = map[int64]struct{}{}
	}
	g.leases[at] = struct{}{}
	return func() {
		g.Lock()
		defer g.Unlock()
		delete(g.leases, at)
	}
}

func (g *garbage) add(due time.Time, location string, files []string) {
	g.Lock()
	defer g.Unlock()
	g.clock++
	for _, f := range files {
		g.items = append(g.items, garbageItem{location: location, file: f, due: due, clock: g.clock})
	}
}

// take removes and returns what may go now.
func (g *garbage) take(now time.Time) []garbageItem {
	g.Lock()
	defer g.Unlock()
	oldest := g.clock + 1
	for at := range g.leases {
		oldest = min(oldest, at)
	}
	var out []garbageItem
	g.items = slices.DeleteFunc(g.items, func(i garbageItem) bool {
		ready := i.clock < oldest && !i.due.After(now)
		if ready {
			out = append(out, i)
		}
		return ready
	})
	return out
}

// CollectGarbage removes the files whose time has come and on which no lease is
// left. It returns how many it removed.
func (l *Lake) CollectGarbage() int {
	items := l.garbage.take(l.now())
	for _, i := range items {
		l.removeBelow(i.location, i.file)
	}
	return len(items)
}

// removeBelow removes a file if it lies in the table's folder and in our own
// warehouse. No other file is ever removed.
func (l *Lake) removeBelow(location, file string) {
	folder, err := localPath(location)
	if err != nil {
		return
	}
	p, err := localPath(file)
	if err != nil {
		return
	}
	p = filepath.Clean(p)
	if !strings.HasPrefix(p, filepath.Clean(folder)+"/") || !strings.HasPrefix(p, l.root+"/") {
		l.log.Warn("file outside the warehouse is left alone", slog.String("file", file))
		return
	}
	l.removeQuietly(p)
}

// removeQuietly removes a file that nothing needs; what stays is collected at
// the next start.
func (l *Lake) removeQuietly(path string) {
	if err := l.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("remove file", slog.String("file", path), slog.Any("error", err))
	}
}
