package iceberg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	ice "github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// Table is the handle of one table, which need not exist yet. Commits of one
// handle are made one after the other.
type Table struct {
	lake  *Lake
	ident lake.Ident

	commit sync.Mutex // held for a whole Commit
	mu     struct {
		sync.Mutex
		head     *head
		location string // of a table that does not exist yet
	}
}

// State is what a writer has to know of a table. It does not change.
type State struct {
	// Exists is false before the first commit.
	Exists bool
	// Location is the table's folder.
	Location string
	// Schema has the columns; nil when the table does not exist.
	Schema *columnar.Schema
	// Positions are the first offsets that the table does not cover.
	Positions event.Positions
	// RolledBack are the places up to which the table had got before somebody
	// rolled it back; nil when nobody did. Rows between Positions and these
	// have to be loaded again.
	RolledBack event.Positions
	// RolledBackFrom are the places of the first rows that were taken away, where
	// they are known; elsewhere they are Positions.
	RolledBackFrom event.Positions
	Rows           int64
	Bytes          int64
	// Arrangement is what the table's files are put together by; nil when the
	// table does not exist.
	Arrangement *columnar.Arrangement

	head *head
}

// MovedError: the table is not what the rows were built on. Nothing of them was
// committed; load the table's state and read again from its positions.
type MovedError struct {
	Table  lake.Ident
	Reason string
}

func (e *MovedError) Error() string { return fmt.Sprintf("commit %s: %s", e.Table, e.Reason) }

// Is makes it transient: reading again from the table's positions is the cure.
func (e *MovedError) Is(target error) bool { return target == fault.ErrTransient }

// Load reads the table's state.
func (t *Table) Load(ctx context.Context) (*State, error) {
	h, err := t.refresh(ctx)
	if errors.Is(err, lake.ErrNoTable) {
		loc, err := t.newLocation()
		if err != nil {
			return nil, err
		}
		return &State{Location: loc, Positions: event.Positions{}}, nil
	}
	if err != nil {
		return nil, err
	}
	if h.schemaErr != nil {
		return nil, fmt.Errorf("load table %s: %w", t.ident, h.schemaErr)
	}
	// What a commit will need is looked at now: a table that could take no commit
	// must not take rows.
	if _, err := t.lake.manifests(h); err != nil {
		return nil, t.damaged(fmt.Errorf("load table %s: %w", t.ident, err), KindList)
	}
	t.lake.lookAhead(ctx, t.ident, h)
	return t.lake.state(h), nil
}

// damaged gives an error over a file that is damaged or missing its class and
// cure; others stay as they are.
func (t *Table) damaged(err error, kind FileKind) error {
	var bad *fault.Corrupt
	if !errors.As(err, &bad) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return unfit(err, "%s", cureOf(CheckedFile{Table: t.ident, Kind: kind, Current: true}))
}

// withCure gives an error over a manifest that is damaged or missing its cure.
func withCure(t lake.Ident, err error) error {
	var bad *fault.Corrupt
	if !errors.As(err, &bad) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fault.WithHint(err, "%s", cureOf(CheckedFile{Table: t, Kind: KindManifest, Current: true}))
}

func (l *Lake) state(h *head) *State {
	s := &State{Exists: true, Location: strings.TrimPrefix(h.meta.Location(), scheme), Schema: h.schema.Clone(),
		Positions: h.positions.Clone(), head: h}
	arranged := arrangement(h.meta, h.schema)
	s.Arrangement = &arranged
	h.lists.Lock()
	s.RolledBack, s.RolledBackFrom = ahead(h.reached(), h.positions), h.cut.from.Clone()
	h.lists.Unlock()
	// Of what the property says, or the process knew, the first row is not known.
	for inc, parts := range s.RolledBackFrom {
		for p := range parts {
			if ahead(h.property, h.positions) != nil {
				delete(parts, p)
			}
		}
		if len(parts) == 0 {
			delete(s.RolledBackFrom, inc)
		}
	}
	s.Rows, s.Bytes, _, _ = l.totals(h)
	return s
}

// totals come from the snapshot's summary; ok is false when it lacks them.
func (l *Lake) totals(h *head) (rows, bytes, files int64, ok bool) {
	if h.snap == nil {
		return 0, 0, 0, true
	}
	if h.snap.Summary == nil {
		return 0, 0, 0, false
	}
	num := func(key string) (n int64) {
		n, err := strconv.ParseInt(h.snap.Summary.Properties[key], 10, 64)
		ok = ok && err == nil
		return n
	}
	ok = true
	return num("total-records"), num("total-files-size"), num("total-data-files"), ok
}

// refresh returns the newest head.
func (t *Table) refresh(ctx context.Context) (*head, error) {
	t.mu.Lock()
	had := t.mu.head
	t.mu.Unlock()
	h, err := t.lake.load(ctx, t.ident, had)
	if err == nil && h != had {
		t.mu.Lock()
		t.mu.head = h
		t.mu.Unlock()
	}
	return h, err
}

// newLocation is the folder of a table that does not exist. A folder that holds
// the metadata of another table, dropped without its files, is left alone.
func (t *Table) newLocation() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.location != "" {
		return t.mu.location, nil
	}
	for folder := t.lake.tableFolder(t.ident); ; folder = t.lake.tableFolder(t.ident) + "-" + newWriterID() {
		used, err := t.lake.hasMetadata(folder)
		if err != nil {
			return "", fmt.Errorf("make table %s: %w", t.ident, err)
		}
		if !used {
			t.mu.location = folder
			return folder, nil
		}
	}
}

func (l *Lake) hasMetadata(folder string) (bool, error) {
	names, err := l.fs.List(filepath.Join(folder, "metadata"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".metadata.json") {
			return true, nil
		}
	}
	return false, nil
}

// DataPath names a new data file of the table, in the folder of a partition; what
// Lake.CreateFile makes of it has a checksum in its name besides.
func (t *Table) DataPath(s *State, folder string) string { return t.lake.dataPath(s.Location, folder) }

// Commit is what a writer adds to a table in one atomic step.
type Commit struct {
	// Base is the state that the rows were built on.
	Base *State
	// Files hold the rows. Commit takes them over: what is surely not committed
	// is removed.
	Files []columnar.DataFile
	// Schema is the schema of all Files.
	Schema *columnar.Schema
	// Positions are the first offsets not covered afterwards; they must not lie
	// behind Base's.
	Positions event.Positions
	// Asked are the arrangements that contracts have asked for since Base, the last
	// one for what comes next. Files may have others.
	Asked []columnar.Arrangement
	// Rescued are paths newly found in _rescued.
	Rescued []lake.PathCount
	// Stream is the one that Positions are of; empty: that of the table's namespace.
	Stream string
	// Rows are those of Files by their places, so that the table knows which it should
	// have; nil: nobody counts them.
	Rows *lake.Tally
}

// maxAttempts bounds the retries against other writers' commits, maxUnclear
// those against a catalog that does not answer.
const maxAttempts, maxUnclear = 20, 3

// Commit commits. A MovedError means that surely nothing was committed, because
// the table was changed in a way that the rows do not fit. Any other error
// leaves it unknown: load the state to learn what the table holds.
func (t *Table) Commit(ctx context.Context, c Commit) (*State, error) {
	if t.lake.readOnly {
		return nil, fmt.Errorf("commit %s: the lake is open read-only", t.ident)
	}
	t.commit.Lock()
	defer t.commit.Unlock()
	a := &attempt{t: t, c: c, id: newUUID().String(), head: c.Base.head}
	h, err := a.run(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.mu.head, t.mu.location = h, ""
	t.mu.Unlock()
	t.lake.claimKept(t.ident)
	return t.lake.state(h), nil
}

// attempt is one Commit with its retries.
type attempt struct {
	t    *Table
	c    Commit
	id   string // the commit's own, by which it is found again
	head *head  // what is built on now; nil: no table
	// uncertain: some swap has been neither accepted nor surely refused, so no
	// file that it names may be removed.
	uncertain bool
	attempts  int
}

func (a *attempt) run(ctx context.Context) (*head, error) {
	t, l := a.t, a.t.lake
	if moved := a.check(); moved != nil {
		return nil, a.refused(moved)
	}
	for unclear := 0; ; {
		h, w, err := a.build(ctx)
		if err != nil {
			a.discard(w)
			return nil, a.refused(err)
		}
		var from string
		if a.head != nil {
			from = a.head.location
		}
		err = l.catalog.Swap(ctx, t.ident, from, h.location)
		if err == nil {
			l.committed(a.head, h, w)
			return h, nil
		}
		sure := errors.Is(err, ErrConflict)
		a.uncertain = a.uncertain || !sure
		// Look for our own commit before anything else (EXACTNESS 3). The look-up
		// must not fail because the commit's time is up.
		now, lerr := l.load(context.WithoutCancel(ctx), t.ident, a.head)
		switch {
		case errors.Is(lerr, lake.ErrNoTable):
			now = nil
		case lerr != nil:
			return nil, fmt.Errorf("commit %s: %w; look for the commit: %w", t.ident, err, lerr)
		case now.hasCommit(a.id):
			l.committed(a.head, now, w)
			return now, nil
		}
		if sure {
			a.discard(w)
		} else {
			unclear++
			l.log.Warn("catalog gave no clear answer, and the commit is not there",
				slog.String("table", t.ident.String()), slog.Any("error", err))
		}
		a.attempts++
		if unclear == maxUnclear || a.attempts == maxAttempts || ctx.Err() != nil {
			return nil, a.refused(fault.Transient(fmt.Errorf("commit %s: %w", t.ident, err)))
		}
		a.head = now
		if moved := a.check(); moved != nil {
			return nil, a.refused(moved)
		}
	}
}

// check tells why the rows no longer fit the head, nil when they do. A zombie
// ends here: its positions are not the table's.
func (a *attempt) check() *MovedError {
	base := a.c.Base
	moved := func(format string, args ...any) *MovedError {
		return &MovedError{Table: a.t.ident, Reason: fmt.Sprintf(format, args...)}
	}
	switch h := a.head; {
	case h == nil && !base.Exists:
		return nil
	case h == nil:
		return moved("the table was dropped")
	case !base.Exists:
		return moved("somebody else has made the table")
	case h.meta.TableUUID() != base.head.meta.TableUUID():
		return moved("the table was replaced by another one")
	case !h.positions.Equal(base.Positions):
		return moved("its positions are %s, the rows continue %s", h.positions, base.Positions)
	case ahead(base.Positions, a.c.Positions) != nil:
		return moved("the positions %s would go back behind %s", a.c.Positions, base.Positions)
	case h.schemaErr != nil:
		return moved("its columns were changed: %v", h.schemaErr)
	case h != base.head && !a.c.Schema.Equal(base.Schema) && !h.schema.Equal(base.Schema):
		return moved("its columns were changed while the rows brought new ones")
	}
	return nil
}

// refused gives up the data files, unless some swap may name them: then the
// next start collects them if none does.
func (a *attempt) refused(err error) error {
	if a.uncertain {
		return err
	}
	for _, f := range a.c.Files {
		a.t.lake.removeQuietly(f.Path)
	}
	return err
}

// discard removes what an attempt wrote that was surely refused.
func (a *attempt) discard(w *snapshotWork) {
	for _, p := range w.written {
		a.t.lake.removeQuietly(strings.TrimPrefix(p, scheme))
	}
}

// build writes everything of the commit but the catalog's row. The work it
// returns, also with an error, knows what was written.
func (a *attempt) build(ctx context.Context) (*head, *snapshotWork, error) {
	l, c := a.t.lake, a.c
	version, from := 0, ""
	var base table.Metadata
	var err error
	w := &snapshotWork{lake: l, removed: map[string]bool{}}
	var had []ice.ManifestFile
	schema := c.Schema
	if a.head == nil {
		first := columnar.Arrangement{Partition: columnar.DefaultPartition()}
		if n := len(c.Asked); n > 0 {
			first = c.Asked[n-1]
		}
		base, err = newMetadata(scheme+c.Base.Location, c.Schema, first, tableProperties())
	} else {
		base, from, version = a.head.meta, a.head.location, metadataVersion(a.head.location)+1
		w.parent = a.head.snap
		if c.Schema.Equal(c.Base.Schema) {
			schema = a.head.schema // others may have renamed columns meanwhile
		}
		had, err = l.manifests(a.head)
	}
	if err != nil {
		return nil, w, err
	}
	w.id = newSnapshotID(base)
	var updates []table.Update
	current := base.CurrentSchema()
	if a.head != nil && !schema.Equal(a.head.schema) {
		next, err := nextSchema(base.CurrentSchema(), a.head.schema, schema)
		if err != nil {
			return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
		}
		updates = append(updates, table.NewAddSchemaUpdate(next), table.NewSetCurrentSchemaUpdate(-1))
		current = next
	}
	arranger, entries, err := a.arrange(base, current, schema)
	if err != nil {
		return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
	}
	updates = append(updates, arranger.updates...)
	if w.base, err = reshape(base, updates, from, arranger); err != nil {
		return nil, w, fmt.Errorf("commit %s: change columns: %w", a.t.ident, err)
	}
	if a.head != nil {
		if promoted := a.head.schema.Diff(schema).Promoted; len(promoted) > 0 {
			if w.added, err = a.promote(ctx, w, promoted, schema); err != nil {
				return nil, w, err
			}
		}
	}
	w.added = append(w.added, entries...)
	summary := ice.Properties{keyPositions: c.Positions.String(), keyCommitID: a.id, keyWriter: l.writer}
	if rows := a.rows(); rows != nil {
		summary[keyRows] = rows.String()
	}
	snap, err := w.write(ctx, had, summary)
	if err != nil {
		return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
	}
	props, err := a.properties(schema)
	if err != nil {
		return nil, w, err
	}
	updates = append(updates, table.NewSetPropertiesUpdate(props), table.NewAddSnapshotUpdate(snap), mainRef(base, snap.SnapshotID))
	updates = append(updates, expire(l.cfg, base, snap)...)
	meta, err := table.UpdateTableMetadata(base, updates, from)
	if err != nil {
		return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
	}
	loc := l.metadataPath(base.Location(), version, text)
	if err := w.file(loc, text); err != nil {
		return nil, w, fmt.Errorf("commit %s: %w", a.t.ident, err)
	}
	h, err := newHead(loc, meta)
	if err != nil {
		return nil, w, err
	}
	h.lists.manifests, h.lists.haveList = w.manifests, true
	return h, w, nil
}
