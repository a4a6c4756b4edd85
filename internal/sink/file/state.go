package file

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/rowfile"
	"naru/internal/sink"
	"naru/internal/vfs"
)

// state is what the sink holds durably: which rows are in files that have appeared,
// and which files are to appear with them. docs/format/files.md has the bytes.
type state struct {
	fs      vfs.FS
	path    string
	history record
	stateText
}

type stateText struct {
	ID     string `json:"id"` // of the sink, in names of files that are being written
	Stream string `json:"stream"`
	// Project is the folder that it belongs to; Dir and Path are the sink's, Path being
	// the template.
	Project string `json:"project"`
	Dir     string `json:"dir"`
	Path    string `json:"path"`
	// Seq counts publications. A file that is being written has the number of the one
	// that it will be part of.
	Seq       int64           `json:"seq"`
	Positions event.Positions `json:"positions"`
	Publish   []Published     `json:"publish"`
	// Rewinds counts those of the sink; names of files have it. Back is the first
	// publication whose files are to go, 0: none is.
	Rewinds int64 `json:"rewinds,omitempty"`
	Back    int64 `json:"back,omitempty"`
}

const (
	stateName    = "files.json"
	stateVersion = 1
	tempSuffix   = ".tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed is a state as it stands on disk.
type sealed struct {
	Version int             `json:"version"`
	CRC     string          `json:"crc32c"` // of the bytes of State
	State   json.RawMessage `json:"state"`
}

// openState loads the state or begins one, finishes the publication that it tells of
// and removes what was being written.
func openState(ctx context.Context, env sink.Env, to Target, path *rowfile.Path, most int64) (*state, error) {
	s := &state{fs: env.FS, path: filepath.Join(env.State, stateName)}
	s.history = record{fs: env.FS, path: filepath.Join(env.State, historyName), limit: most}
	err := s.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A list that is left is of another state: its publications have the same numbers.
		if err := s.history.forget(); err != nil {
			return nil, err
		}
		if s.ID, err = newID(); err != nil {
			return nil, err
		}
		s.Stream = env.Stream
	case err != nil:
		return nil, err
	case s.Stream != env.Stream:
		return nil, fault.WithHint(fmt.Errorf("read state %s: it is of the stream %s, the pipeline reads %s", s.path, s.Stream, env.Stream),
			"give the sink another name (name:), so that it begins anew")
	default:
		if err := s.finish(ctx, env.Dir, to); err != nil {
			return nil, err
		}
		if err := s.takeBack(ctx, to); err != nil {
			return nil, err
		}
		if s.Project != env.Dir { // what has appeared may be the original's
			if err := s.history.forget(); err != nil {
				return nil, err
			}
		}
	}
	if err := s.fs.MkdirAll(to.Dir); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	next := s.stateText
	next.Project, next.Dir, next.Path = env.Dir, to.Dir, path.String() // where clean looks next time
	if next.Positions == nil {
		next.Positions = event.Positions{}
	}
	if next.Project == s.Project && next.Dir == s.Dir && next.Path == s.Path && s.Positions != nil {
		return s, nil
	}
	return s, s.save(next)
}

// finish does what the state before has left: it publishes what is to appear and
// removes what was being written.
func (s *state) finish(ctx context.Context, project string, to Target) error {
	if len(s.Publish) > 0 {
		// It is written again before anything is done by it: what was read may be in
		// memory alone, when a sync has failed.
		if err := s.save(s.stateText); err != nil {
			return err
		}
	}
	if s.Project != project {
		// Of a copy, or of a project that was moved. What stands in the old folder may be
		// the original's, which may be at work.
		if err := s.publish(ctx, to); err != nil {
			return err
		}
		id, err := newID()
		s.ID = id
		return err
	}
	from := to
	from.Dir = s.Dir // as it was
	if err := s.publish(ctx, from); err != nil {
		return err
	}
	old, err := rowfile.ParsePath(s.Path)
	if err != nil {
		return s.corrupt("its path: " + err.Error())
	}
	return s.clean(s.Dir, old, 0)
}

func newID() (string, error) {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("make id: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

func (s *state) corrupt(reason string) error {
	return fault.WithHint(&fault.Corrupt{Path: s.path, Offset: -1, Reason: reason},
		"restore it from a backup; or remove it: the sink then goes on from the pipeline's watermark, and rows that came into files behind it come again")
}

func (s *state) load() error {
	f, err := s.fs.Open(s.path)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	var on sealed
	if err := json.Unmarshal(text, &on); err != nil {
		return s.corrupt("not JSON: " + err.Error())
	}
	if on.Version != stateVersion {
		return fault.WithHint(fmt.Errorf("read state %s: version %d, this naru knows %d", s.path, on.Version, stateVersion), "start the naru that has written it")
	}
	if sum := checksum(on.State); sum != on.CRC {
		return s.corrupt(fmt.Sprintf("checksum %s, its bytes have %s", on.CRC, sum))
	}
	if err := json.Unmarshal(on.State, &s.stateText); err != nil {
		return s.corrupt(err.Error())
	}
	return nil
}

func checksum(b []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)) }

// save replaces the state in one step: afterwards next is what a start finds, also
// after a power cut. After an error it may be either.
func (s *state) save(next stateText) error {
	inner, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	text, err := json.Marshal(sealed{Version: stateVersion, CRC: checksum(inner), State: inner})
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := replace(s.fs, s.path, append(text, '\n')); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	s.stateText = next
	return nil
}

// replace puts a text in the place of a file, in one step.
func replace(fsys vfs.FS, name string, text []byte) error {
	dir := filepath.Dir(name)
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	f, err := fsys.Create(name + tempSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// publish makes the files appear that the state tells of, and notes that they have.
// One that is not there under its temporary name has appeared: it was durable before
// the state was.
func (s *state) publish(ctx context.Context, to Target) error {
	if len(s.Publish) == 0 {
		return nil
	}
	if _, err := s.fs.Stat(to.Dir); err != nil {
		return fault.WithHint(fmt.Errorf("publish files: %w", err), "files of the last commit may be waiting in %s: is its disk mounted?", to.Dir)
	}
	folders := map[string]bool{}
	for _, p := range s.Publish {
		temp := to.temp(p)
		if err := to.Place.Put(ctx, temp, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("publish file: %w", err)
		}
		folders[filepath.Dir(temp)] = true
	}
	for dir := range folders {
		// A folder that somebody has removed with all its files needs no sync.
		if err := s.fs.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("publish files: %w", err)
		}
	}
	next := s.stateText
	next.Publish = nil // what becomes of them now is not the sink's business
	return s.save(next)
}

// temp is the name of the n-th file that is written for the next publication.
func (s *state) temp(n int) string { return fmt.Sprintf(".%s-%d-%d%s", s.ID, s.Seq+1, n, tempSuffix) }

// clean removes what was being written, below a folder that is depth folders deep.
func (s *state) clean(dir string, path *rowfile.Path, depth int) error {
	names, err := s.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for unfinished files: %w", err)
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		switch {
		case depth < path.Depth():
			if info, err := s.fs.Stat(at); path.Fits(depth, name) && err == nil && info.IsDir() {
				if err := s.clean(at, path, depth+1); err != nil {
					return err
				}
			}
		case strings.HasPrefix(name, "."+s.ID+"-") && strings.HasSuffix(name, tempSuffix):
			if err := s.fs.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove unfinished file: %w", err)
			}
		}
	}
	return nil
}
