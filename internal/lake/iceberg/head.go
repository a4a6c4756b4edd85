package iceberg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	ice "github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// Keys of snapshot summaries and table properties.
const (
	keyPositions = "naru.positions" // event.Positions in JSON: in the summary, and as a property
	keyCommitID  = "naru.commit-id" // a UUID for each commit: in the summary, and as a property
	keyWriter    = "naru.writer"    // summary only: who wrote the files
	keyRows      = "naru.rows"      // lake.Tally: summary only, of a pipeline's table
	keyRescued   = "naru.rescued"   // property: the paths most often in _rescued
	keyStream    = "naru.stream"    // property: the stream of the positions, where it is not the namespace (a pipeline's table)
)

// head is a table as one metadata file describes it. It never changes; the
// lists are read when they are first needed.
type head struct {
	location string // of the metadata file
	meta     table.Metadata
	snap     *table.Snapshot // main's; nil when the table has none

	schema    *columnar.Schema
	schemaErr error           // the columns cannot be filled by naru; reading is possible
	positions event.Positions // whose word counts: see positionsOf
	property  event.Positions
	commitID  string
	rows      *lake.Tally // of all that naru has committed; nil: not known
	cut       cut         // guarded by lists until lookAhead is done

	lists struct {
		sync.Mutex
		looked    bool // for newer metadata files
		manifests []ice.ManifestFile
		haveList  bool
		files     []dataFile
		haveFiles bool
	}
}

// dataFile is a live data file of a head.
type dataFile struct {
	lake.File
	location string
}

// load reads the table's newest metadata file, or returns had when that is the
// one that it came from.
func (l *Lake) load(ctx context.Context, t lake.Ident, had *head) (*head, error) {
	for try := 0; ; try++ {
		loc, err := l.catalog.Location(ctx, t)
		if err != nil {
			return nil, err
		}
		if had != nil && had.location == loc {
			return had, nil
		}
		fsys := func(context.Context) (iceio.IO, error) { return l.io, nil }
		tbl, err := table.NewFromLocation(ctx, []string{t.Namespace, t.Name}, loc, fsys, nil)
		if errors.Is(err, fs.ErrNotExist) && try < 3 {
			continue // many commits went by between the two reads
		}
		var h *head
		if err == nil {
			h, err = newHead(loc, tbl.Metadata())
		}
		var io *fs.PathError
		if err != nil && (!errors.As(err, &io) || errors.Is(err, fs.ErrNotExist)) {
			var known *fault.Corrupt
			if !errors.As(err, &known) {
				err = &fault.Corrupt{Path: loc, Offset: -1, Reason: err.Error()}
			}
			err = unfit(err, "%s", cureOf(CheckedFile{Table: t, Kind: KindMetadata, Current: true}))
		}
		if err != nil {
			return nil, fmt.Errorf("load table %s: %w", t, err)
		}
		h.carry(had)
		return h, nil
	}
}

func newHead(location string, meta table.Metadata) (*head, error) {
	h := &head{location: location, meta: meta, snap: meta.SnapshotByName(table.MainBranch)}
	if err := h.readPositions(); err != nil {
		return nil, err
	}
	h.schema, h.schemaErr = readSchema(meta)
	return h, nil
}

// readPositions decides whose word counts (EXACTNESS 3): the newest naru
// summary in the ancestry of main; the property only when none is left there.
func (h *head) readPositions() error {
	var err error
	h.property = event.Positions{}
	if text := h.meta.Properties()[keyPositions]; text != "" {
		if h.property, err = event.ParsePositions(text); err != nil {
			return fmt.Errorf("property %s of %s: %w", keyPositions, h.location, err)
		}
	}
	for s := range ancestry(h.meta, h.snap) {
		if s.Summary == nil {
			continue
		}
		text, ok := s.Summary.Properties[keyPositions]
		if !ok {
			continue
		}
		if h.positions, err = event.ParsePositions(text); err != nil {
			return fmt.Errorf("summary of snapshot %d of %s: %w", s.SnapshotID, h.location, err)
		}
		h.commitID = s.Summary.Properties[keyCommitID]
		if text, ok := s.Summary.Properties[keyRows]; ok {
			rows, err := lake.ParseTally(text)
			if err != nil {
				return fmt.Errorf("summary of snapshot %d of %s: %w", s.SnapshotID, h.location, err)
			}
			h.rows = &rows
		}
		return nil
	}
	h.positions = h.property
	h.commitID = h.meta.Properties()[keyCommitID]
	return nil
}

// hasCommit tells whether a commit of ours is part of the table as it is.
func (h *head) hasCommit(id string) bool {
	for s := range ancestry(h.meta, h.snap) {
		if s.Summary != nil && s.Summary.Properties[keyCommitID] == id {
			return true
		}
	}
	return h.commitID == id // all our snapshots are expired, and the property is left
}

// ancestry walks from a snapshot to its parents, as far as they are kept.
func ancestry(meta table.Metadata, s *table.Snapshot) func(func(*table.Snapshot) bool) {
	return func(yield func(*table.Snapshot) bool) {
		for n := 0; s != nil && n <= len(meta.Snapshots()); n++ {
			if !yield(s) || s.ParentSnapshotID == nil {
				return
			}
			s = meta.SnapshotByID(*s.ParentSnapshotID)
		}
	}
}

// ahead returns the places where a is beyond b; nil when there are none.
func ahead(a, b event.Positions) event.Positions {
	var out event.Positions
	for inc, parts := range a {
		for p, off := range parts {
			if have, ok := b.Get(inc, p); ok && have >= off {
				continue
			}
			if out == nil {
				out = event.Positions{}
			}
			out.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
		}
	}
	return out
}

// manifests returns the manifests of the current snapshot.
func (l *Lake) manifests(h *head) ([]ice.ManifestFile, error) {
	h.lists.Lock()
	defer h.lists.Unlock()
	return l.manifestsLocked(h)
}

func (l *Lake) manifestsLocked(h *head) ([]ice.ManifestFile, error) {
	if h.lists.haveList || h.snap == nil {
		return h.lists.manifests, nil
	}
	// Reading under the lock: whoever else asks needs the same answer.
	m, err := h.snap.Manifests(l.io)
	if err != nil {
		return nil, fmt.Errorf("read manifest list of %s: %w", h.meta.Location(), err)
	}
	h.lists.manifests, h.lists.haveList = m, true
	return m, nil
}

// ErrRowDeletes: another engine has deleted rows without rewriting their files.
var ErrRowDeletes = errors.New("table has row-level deletes, which naru does not read")

const rowDeletesCure = "let the other engine rewrite the data files (in Spark: CALL system.rewrite_data_files with delete-file-threshold 1), and use copy-on-write"

// dataFiles returns the live data files of the current snapshot.
func (l *Lake) dataFiles(h *head) ([]dataFile, error) {
	h.lists.Lock()
	defer h.lists.Unlock()
	if h.lists.haveFiles || h.snap == nil {
		return h.lists.files, nil
	}
	manifests, err := l.manifestsLocked(h)
	if err != nil {
		return nil, err
	}
	var files []dataFile
	for _, m := range manifests {
		if m.ManifestContent() != ice.ManifestContentData {
			return nil, unfit(fmt.Errorf("read files of %s: %w", h.meta.Location(), ErrRowDeletes),
				"%s", rowDeletesCure)
		}
		for e, err := range m.Entries(l.io, true) {
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", m.FilePath(), err)
			}
			f, err := newDataFile(e.DataFile())
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	h.lists.files, h.lists.haveFiles = files, true
	return files, nil
}

func newDataFile(d ice.DataFile) (dataFile, error) {
	p, err := localPath(d.FilePath())
	if err != nil {
		return dataFile{}, err
	}
	return dataFile{File: lake.File{Path: p, Rows: d.Count(), Bytes: d.FileSizeBytes(),
		Bounds: lake.PackBounds(d.LowerBoundValues(), d.UpperBoundValues())}, location: d.FilePath()}, nil
}
