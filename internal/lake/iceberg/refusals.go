package iceberg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
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
	var b strings.Builder
	for t, ends := range all {
		line, err := json.Marshal(refusal{Table: t, Ends: ends})
		if err != nil {
			return fmt.Errorf("write refused tables: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if err := l.io.WriteFile(filepath.Join(l.root, RefusedFile), []byte(b.String())); err != nil {
		return fmt.Errorf("write refused tables: %w", err)
	}
	return nil
}

func (l *Lake) readRefusals() (map[lake.Ident]event.Positions, error) {
	all := map[lake.Ident]event.Positions{}
	b, err := l.io.ReadFile(filepath.Join(l.root, RefusedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read refused tables: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		var one refusal
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return nil, fmt.Errorf("read refused tables: %w", err)
		}
		all[one.Table] = one.Ends
	}
	return all, nil
}
