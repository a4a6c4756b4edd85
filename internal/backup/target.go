package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// PartialSuffix is behind the name of a folder that a backup is being made in. It
// gets its name when it is whole.
const PartialSuffix = ".partial"

// lockName is in the folder until then: one backup at a time.
const lockName = "backup.lock"

// target is the folder that is made.
type target struct {
	fs      vfs.FS
	to      string
	partial string
	replace bool // an empty folder of that name
	lock    io.Closer
}

// openTarget makes the folder under its temporary name.
func openTarget(fsys vfs.FS, folder, to string) (*target, error) {
	t := &target{fs: fsys, to: to, partial: to + PartialSuffix}
	if err := outside(fsys, folder, to); err != nil {
		return nil, err
	}
	names, err := fsys.List(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case len(names) > 0:
		return nil, fault.WithHint(fmt.Errorf("the folder %s is not empty", to), "name one that does not exist, as in backups/$(date +%%F); naru never writes over a backup")
	default:
		t.replace = true
	}
	if err := t.clear(); err != nil {
		return nil, err
	}
	if err := fsys.MkdirAll(t.partial); err != nil {
		return nil, err
	}
	if t.lock, err = fsys.Lock(filepath.Join(t.partial, lockName)); err != nil {
		return nil, busy(err, to)
	}
	// Durable before anything else is there: by it the folder is known.
	if err := fsys.SyncDir(t.partial); err != nil {
		return nil, errors.Join(err, t.abandon())
	}
	return t, nil
}

// clear removes what an earlier backup left that was killed, unless it is being
// made now.
func (t *target) clear() error {
	names, err := t.fs.List(t.partial)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(names) > 0 && !slices.Contains(names, lockName) {
		return fault.WithHint(fmt.Errorf("the folder %s is there, and is not from a backup", t.partial), "move it away, or name another folder for the backup")
	}
	lock, err := t.fs.Lock(filepath.Join(t.partial, lockName))
	if err != nil {
		return busy(err, t.to)
	}
	return errors.Join(vfs.RemoveAll(t.fs, t.partial), lock.Close())
}

func busy(err error, to string) error {
	if errors.Is(err, vfs.ErrLocked) {
		return fault.WithHint(fmt.Errorf("make %s: %w", to, err), "another backup to the same folder is running")
	}
	return err
}

// outside refuses a target in the folder itself, also by way of links.
func outside(fsys vfs.FS, folder, to string) error {
	from, err := fsys.Stat(folder)
	if err != nil {
		return err
	}
	for dir := to; ; dir = filepath.Dir(dir) {
		info, err := fsys.Stat(dir)
		if dir == folder || err == nil && os.SameFile(info, from) {
			return fault.WithHint(fmt.Errorf("%s lies in the folder that is to be copied", to), "name a folder elsewhere, best on another disk")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// publish gives the folder its name. All that is in it is durable.
func (t *target) publish() error {
	if t.replace {
		if err := t.fs.Remove(t.to); err != nil {
			return err
		}
	}
	if err := t.fs.Rename(t.partial, t.to); err != nil {
		return err
	}
	t.partial = t.to // which abandon would remove
	// The lock's file goes last: a folder without it and with the temporary name
	// could not be told from somebody's own.
	return errors.Join(t.fs.SyncDir(filepath.Dir(t.to)), t.fs.Remove(filepath.Join(t.to, lockName)), t.fs.SyncDir(t.to), t.lock.Close())
}

// abandon removes what was made so far.
func (t *target) abandon() error {
	err := vfs.RemoveAll(t.fs, t.partial)
	if err != nil {
		err = fmt.Errorf("remove %s: %w", t.partial, err)
	}
	if cerr := t.lock.Close(); cerr != nil && !errors.Is(cerr, fs.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}
