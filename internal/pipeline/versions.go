package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"naru/internal/event"
	"naru/internal/vfs"
)

// version is a form of a pipeline's file that was in force from a place on: an
// event is always treated by the version of its place, also when a sink that lags
// gets to it later, or the process has crashed in between.
type version struct {
	// From is the first place that it holds for; a partition or a life of the log that
	// is not in it belongs to it from its beginning, if no older version names it.
	From event.Positions `json:"from"`
	Hash string          `json:"hash"` // definition.Definition.Hash
	Text string          `json:"text"` // of the file
}

// state is what a pipeline keeps beside its positions, in data/pipelines/NAME.json
// (docs/format/pipelines.md).
type state struct {
	Format   int       `json:"format"` // 1
	Paused   bool      `json:"paused,omitempty"`
	Versions []version `json:"versions"` // oldest first, at least one
	// Rewind is one that was begun: whatever a crash has left undone is done at the
	// next start. Again is what it leaves.
	Rewind *rewinding `json:"rewind,omitempty"`
	Again  *again     `json:"again,omitempty"`
	// Backfills are those that go on, at most one of a sink.
	Backfills []backfill `json:"backfills,omitempty"`
}

const stateFormat = 1

// at gives the version of a place, and the first offset that is not its any more; -1
// for none.
func (s *state) at(inc event.Incarnation, partition int32, offset int64) (v int, end int64) {
	end = -1
	for i := len(s.Versions) - 1; i > 0; i-- {
		from, ok := s.Versions[i].From.Get(inc, partition)
		if !ok || offset >= from {
			return i, end
		}
		end = from
	}
	return 0, end
}

// prune forgets versions that lie below what all sinks have passed.
func (s *state) prune(passed func(lane) int64) bool {
	n := 0
	for n+1 < len(s.Versions) {
		for inc, parts := range s.Versions[n+1].From {
			for partition, off := range parts {
				if passed(lane{inc, partition}) < off {
					s.Versions = s.Versions[n:]
					return n > 0
				}
			}
		}
		n++
	}
	s.Versions = s.Versions[n:]
	return n > 0
}

// maxState bounds the file, in bytes.
const maxState = 64 << 20

// readState reads the file; nil: there is none.
func readState(fsys vfs.FS, name string) (*state, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	s := &state{}
	if err := json.Unmarshal(text, s); err != nil || s.Format != stateFormat || len(s.Versions) == 0 {
		return nil, fmt.Errorf("read %s: not the state of a pipeline (format %d): %v", name, s.Format, err)
	}
	return s, nil
}

// write replaces the file: after a crash the old one is there, or the new one.
func (s *state) write(fsys vfs.FS, name string) (err error) {
	s.Format = stateFormat
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := fsys.MkdirAll(dir); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	fresh := name + ".new"
	f, err := fsys.Create(fresh)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(fresh, name)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
