package upload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"naru/internal/client"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// stateVersion is the version of the state file's format.
const stateVersion = 1

// Key says what a state belongs to: an input as it stood, and where it goes.
type Key struct {
	File     string    `json:"file"` // absolute
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	URL      string    `json:"url"`
	Folder   string    `json:"folder,omitempty"` // the id of the server's folder
	Stream   string    `json:"stream,omitempty"`
	Type     string    `json:"type,omitempty"`
	Source   string    `json:"source,omitempty"`
	Format   string    `json:"format,omitempty"`
	IDPrefix string    `json:"id_prefix,omitempty"`
}

// State is what was acknowledged of an input. The zero State is kept nowhere.
type State struct {
	Version  int       `json:"version"`
	Key      Key       `json:"key"`
	Records  int64     `json:"records"` // of the input
	Items    int64     `json:"items"`   // that the door found in them: the number of the next id
	Accepted int64     `json:"accepted"`
	Rejected int64     `json:"rejected"`
	Done     bool      `json:"done"`
	Updated  time.Time `json:"updated"`

	fs   vfs.FS
	path string
}

// OpenState reads the state at path, or begins a new one. A state that belongs
// to something else is an error, unless restart says to forget it.
func OpenState(fsys vfs.FS, path string, key Key, restart bool) (*State, error) {
	fresh := &State{Version: stateVersion, Key: key, fs: fsys, path: path}
	if restart {
		return fresh, nil
	}
	text, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	s := &State{}
	if err := json.Unmarshal(text, s); err != nil || s.Version != stateVersion || s.Records < 0 || s.Items < 0 {
		return nil, fault.WithHint(&fault.Corrupt{Path: path, Offset: -1, Reason: "not the state of an upload"},
			"--restart forgets it and sends the input from its beginning")
	}
	if !s.Key.equal(key) {
		return nil, fault.WithHint(fmt.Errorf("read state: %s belongs to another input, or another server", path),
			"name another file with --state; --restart forgets it and sends the input from its beginning")
	}
	s.fs, s.path = fsys, path
	return s, nil
}

func (k Key) equal(o Key) bool {
	same := k.Modified.Equal(o.Modified)
	k.Modified, o.Modified = time.Time{}, time.Time{}
	return same && k == o
}

// advance notes an acknowledged batch.
func (s *State) advance(records int64, a *client.Answer) error {
	s.Records += records
	s.Items += a.Items()
	s.Accepted += a.Accepted
	s.Rejected += a.Refusals()
	return s.save(false)
}

func (s *State) finish() error {
	s.Done = true
	return s.save(true)
}

// save replaces the file in one step. Only the end is synced: a state that
// lags behind after a power cut makes records be sent again with their old
// ids, which costs time and nothing else.
func (s *State) save(sync bool) (err error) {
	if s.path == "" {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write state: %w", err)
		}
	}()
	s.Updated = time.Now().UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	tmp := s.path + ".tmp"
	f, err := s.fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, s.path); err != nil {
		return err
	}
	if sync {
		return s.fs.SyncDir(dir)
	}
	return nil
}
