package iceberg

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"naru/internal/event"
	"naru/internal/lake"
)

// RefusedFile lists the tables that were found ahead of the log, and where the
// log ended then. It has to outlive the process: the log goes on, and once it
// has grown past the table nothing else tells that the events in between are
// not those that the table has.
const RefusedFile = "refused.json"

type refusal struct {
	Table lake.Ident      `json:"table"`
	Ends  event.Positions `json:"ends"`
}

// refusals guards the file. It is read anew each time, so that whoever has
// brought back the right log can remove it.
type refusals struct{ sync.Mutex }

// Refusal tells where the log ended when the table was found to be ahead of it;
// nil when it never was.
func (l *Lake) Refusal(t lake.Ident) (event.Positions, error) {
	l.refusals.Lock()
	defer l.refusals.Unlock()
	all, err := l.readRefusals()
	return all[t], err
}

// Refuse remembers, durably, that a table is ahead of the log, which ends at
// ends; nil takes it back.
func (l *Lake) Refuse(t lake.Ident, ends event.Positions) error {
	l.refusals.Lock()
	defer l.refusals.Unlock()
	// Read and written under the lock: two tables must not overwrite each other.
	all, err := l.readRefusals()
	if err != nil {
		return err
	}
	if had := all[t]; ends.Equal(had) {
		return nil
	}
	all[t] = ends
	if len(ends) == 0 {
		delete(all, t)
	}
	lines := make([]refusal, 0, len(all))
	for t, ends := range all {
		lines = append(lines, refusal{Table: t, Ends: ends})
	}
	if err := writeLines(l, RefusedFile, lines); err != nil {
		return fmt.Errorf("write refused tables: %w", err)
	}
	return nil
}

// renewRefusals gives an empty file of naru before it had checksums its first
// line: from then on an empty one is damage.
func (l *Lake) renewRefusals() error {
	b, err := l.io.ReadFile(filepath.Join(l.root, RefusedFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) > 0 {
		return nil
	}
	if err == nil {
		_, err = l.readRefusals()
	}
	if err != nil {
		return nil // it is said where it is needed
	}
	if err := writeLines[refusal](l, RefusedFile, nil); err != nil {
		return fmt.Errorf("write refused tables: %w", err)
	}
	return nil
}

func (l *Lake) readRefusals() (map[lake.Ident]event.Positions, error) {
	all := map[lake.Ident]event.Positions{}
	lines, err := readLines[refusal](l, RefusedFile)
	if err != nil {
		return nil, fmt.Errorf("read refused tables: %w", err)
	}
	for _, one := range lines {
		all[one.Table] = one.Ends
	}
	return all, nil
}
