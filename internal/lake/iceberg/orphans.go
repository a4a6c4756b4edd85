package iceberg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// gcInterval is how often garbage is looked at.
const gcInterval = time.Minute

// Run collects garbage until ctx ends; first of all what earlier lives have
// left behind.
func (l *Lake) Run(ctx context.Context) error {
	if l.readOnly {
		<-ctx.Done()
		return nil
	}
	if n, err := l.CollectOrphans(ctx); err != nil && ctx.Err() == nil {
		l.log.Warn("collect files of uncommitted rows", slog.Any("error", err))
	} else if n > 0 {
		l.log.Info("files of uncommitted rows found; they are removed later",
			slog.Int("files", n), slog.String("delay", l.cfg.GCDelay.String()))
	}
	tick := time.NewTicker(gcInterval)
	defer tick.Stop()
	for {
		l.CollectGarbage()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// CollectOrphans lists as garbage the files that an earlier life of naru wrote
// and no table needs: uncommitted rows of a crash, and garbage that it had not
// yet removed. It returns their number.
//
// Only files with naru's names and another writer than this one are looked at:
// no other writer can be alive, because the lake's lock is held. A folder with
// table metadata that the catalog does not know is left alone altogether, unless it is
// one that Discard took from it.
func (l *Lake) CollectOrphans(ctx context.Context) (int, error) {
	// First the files, then what is needed: nothing that is needed is missed.
	found := map[string][]string{} // by folder
	if err := l.walk(ctx, found); err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, nil
	}
	owned, err := l.neededFiles(ctx, found)
	if err != nil {
		return 0, err
	}
	dropped, err := l.droppedFolders(owned)
	if err != nil {
		return 0, err
	}
	n := 0
	for folder, files := range found {
		needed, known := owned[folder]
		if !known && !dropped[folder] {
			if used, err := l.hasMetadata(folder); err != nil || used {
				continue
			}
		}
		var drop []string
		for _, f := range files {
			if !needed[f] {
				drop = append(drop, f)
			}
		}
		l.garbage.add(l.now().Add(l.cfg.GCDelay.Std()), folder, drop)
		n += len(drop)
	}
	return n, nil
}

// walk finds files of earlier writers in all table folders.
func (l *Lake) walk(ctx context.Context, found map[string][]string) error {
	for _, ns := range l.list(l.root) {
		for _, name := range l.list(filepath.Join(l.root, ns)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			folder := filepath.Join(l.root, ns, name)
			l.walkFolder(filepath.Join(folder, "metadata"), 0, folder, found)
			l.walkFolder(filepath.Join(folder, "data"), partitionLevels, folder, found)
		}
	}
	return nil
}

// partitionLevels is how deep folders of partitions lie at most.
const partitionLevels = columnar.MaxPartitionFields

// walkFolder finds such files in a folder and so many levels below it.
func (l *Lake) walkFolder(dir string, levels int, table string, found map[string][]string) {
	for _, f := range l.list(dir) {
		switch w := writerOf(f); {
		case w != "" && w != l.writer:
			found[table] = append(found[table], filepath.Join(dir, f))
		case w == "" && levels > 0:
			l.walkFolder(filepath.Join(dir, f), levels-1, table, found)
		}
	}
}

// list returns what is in a folder; nothing when it is none.
func (l *Lake) list(dir string) []string {
	names, err := l.fs.List(dir)
	if err != nil {
		if info, serr := l.fs.Stat(dir); serr == nil && info.IsDir() {
			l.log.Warn("list folder", slog.String("folder", dir), slog.Any("error", err))
		}
		return nil
	}
	return names
}

// neededFiles returns, for each folder in found that a table of the catalog has
// as its location, all files that its snapshots need.
func (l *Lake) neededFiles(ctx context.Context, found map[string][]string) (map[string]map[string]bool, error) {
	idents, err := l.catalog.List(ctx)
	if err != nil {
		return nil, err
	}
	owned := map[string]map[string]bool{}
	for _, t := range idents {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := l.load(ctx, t, nil)
		if errors.Is(err, lake.ErrNoTable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		folder, err := localPath(h.meta.Location())
		if err != nil || found[filepath.Clean(folder)] == nil {
			continue
		}
		folder = filepath.Clean(folder)
		if owned[folder] == nil {
			owned[folder] = map[string]bool{}
		}
		if err := l.markNeeded(h, owned[folder]); err != nil {
			return nil, fmt.Errorf("find files of %s: %w", t, err)
		}
		// What is newer than the head tells that the table was set back, until it
		// has caught up: see lookAhead.
		for _, f := range found[folder] {
			if strings.HasSuffix(f, ".metadata.json") && metadataVersion(f) > metadataVersion(h.location) {
				owned[folder][f] = true
			}
		}
		for _, newer := range l.newerMetadata(ctx, t, h) {
			if n, err := newHead(h.location, newer); err == nil && ahead(n.property, h.property) != nil {
				if err := l.markNeeded(n, owned[folder]); err != nil {
					l.log.Warn("read newer metadata of a table that was set back", slog.String("table", t.String()), slog.Any("error", err))
				}
			}
		}
	}
	return owned, nil
}

func (l *Lake) markNeeded(h *head, needed map[string]bool) error {
	mark := func(location string) {
		if p, err := localPath(location); err == nil {
			needed[filepath.Clean(p)] = true
		}
	}
	mark(h.location)
	for e := range h.meta.PreviousFiles() {
		mark(e.MetadataFile)
	}
	read := map[string]bool{}
	for _, s := range h.meta.Snapshots() {
		mark(s.ManifestList)
		manifests, err := s.Manifests(l.io)
		if err != nil {
			return err
		}
		for _, m := range manifests {
			if read[m.FilePath()] {
				continue
			}
			read[m.FilePath()] = true
			mark(m.FilePath())
			// Entries of removed files do not count: a snapshot that has the file
			// has it in a manifest of its own list.
			for e, err := range m.Entries(l.io, true) {
				if err != nil {
					return err
				}
				mark(e.DataFile().FilePath())
			}
		}
	}
	return nil
}
