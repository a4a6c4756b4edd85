package bench

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"time"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// scratchName is what scratch folders are called, and nothing else is.
var scratchName = regexp.MustCompile(`^naru-bench-[0-9a-f]{16}$`)

// scratchLock is held in a scratch folder while it is in use.
const scratchLock = "lock"

// scratch is a folder on the disk that is measured, removed at the end.
type scratch struct {
	fs   vfs.FS
	dir  string
	lock io.Closer
}

// place is where the scratch folder goes: where the folder's data is, which may
// be a disk of its own, else into the folder.
func place(fsys vfs.FS, f config.Folder) (string, error) {
	for _, dir := range []string{f.Data(), string(f)} {
		info, err := fsys.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is not a folder", dir)
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", fault.WithHint(fmt.Errorf("there is no folder %s", f), "name a folder on the disk to measure")
}

// newScratch makes one in dir, and removes those whose bench was killed.
func newScratch(fsys vfs.FS, dir string) (*scratch, error) {
	if err := sweep(fsys, dir); err != nil {
		return nil, err
	}
	var id [8]byte
	rand.Read(id[:])
	s := &scratch{fs: fsys, dir: filepath.Join(dir, "naru-bench-"+hex.EncodeToString(id[:]))}
	if err := fsys.MkdirAll(s.dir); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(s.dir, scratchLock))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make folder: %w", err), vfs.RemoveAll(fsys, s.dir))
	}
	s.lock = lock
	return s, nil
}

// sweep removes scratch folders that nobody holds. One without a lock's file has
// just been made, or is not one.
func sweep(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if !scratchName.MatchString(name) {
			continue
		}
		if _, err := fsys.Stat(filepath.Join(path, scratchLock)); err != nil {
			continue
		}
		lock, err := fsys.Lock(filepath.Join(path, scratchLock))
		if err != nil {
			continue // in use
		}
		if err := errors.Join(vfs.RemoveAll(fsys, path), lock.Close()); err != nil {
			return fmt.Errorf("remove what an earlier bench has left: %w", err)
		}
	}
	return nil
}

// sub makes a folder in it, with a naru.yaml.
func (s *scratch) sub(name string, c config.Config) (string, error) {
	dir := filepath.Join(s.dir, name)
	if err := s.fs.MkdirAll(dir); err != nil {
		return "", err
	}
	return dir, s.settings(dir, c)
}

// settings writes the naru.yaml of a folder.
func (s *scratch) settings(dir string, c config.Config) error {
	text, err := c.Text()
	if err != nil {
		return err
	}
	f, err := s.fs.Create(config.Folder(dir).Settings())
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// remove removes it.
func (s *scratch) remove() error {
	err := errors.Join(vfs.RemoveAll(s.fs, s.dir), s.lock.Close())
	if err != nil {
		return fault.WithHint(fmt.Errorf("remove %s: %w", s.dir, err), "it holds nothing of yours: remove it by hand")
	}
	return nil
}

// What a bench may leave on the disk at most.
const (
	atOnce       = 256 * quantity.MiB // the file of the probe
	perSecond    = 48 * quantity.MiB  // rows, and events that wait to be loaded
	logPerSecond = 200 * quantity.MiB // while the log grows to the size that it stays at
)

// room is how much free space a bench needs, the reserve that servers keep free
// included.
func room(c config.Config, within time.Duration) quantity.Bytes {
	during := func(rate quantity.Bytes) quantity.Bytes { return quantity.Bytes(float64(rate) * within.Seconds()) }
	log := min(8*c.Log.Segment+c.Log.Recycle, 3*c.Log.Segment+during(logPerSecond))
	return c.Log.Reserve + log + atOnce + during(perSecond)
}

// checkRoom refuses a disk that is too full.
func checkRoom(free int64, c config.Config, dir string, within time.Duration) error {
	need := room(c, within)
	if quantity.Bytes(free) >= need {
		return nil
	}
	return fault.WithHint(fmt.Errorf("%s has %s free, and measuring for %s may need %s (log.reserve, %s, stays free)", dir, quantity.Bytes(free), within, need, c.Log.Reserve),
		"make room, name a folder on another disk, or measure for less time with --duration")
}

// sizeOf adds up the files of a folder; 0 when it is not there.
func sizeOf(fsys vfs.FS, dir string) int64 {
	names, err := fsys.List(dir)
	if err != nil {
		return 0
	}
	var sum int64
	for _, name := range names {
		if info, err := fsys.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			sum += info.Size()
		}
	}
	return sum
}
