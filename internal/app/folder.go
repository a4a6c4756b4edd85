package app

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// Files inside the data folder.
const (
	rootFile = "root"
	lockFile = "lock"
)

// ErrElsewhere: the folder is not where its data was made.
var ErrElsewhere = errors.New("the folder was moved or copied")

// RootRecord is data/root: where the folder stands, and which one it is. Iceberg
// tables hold absolute paths, so a copy would read, and later delete, the files
// of the original.
type RootRecord struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Root    string `json:"root"`
}

// holding is a folder that this process alone writes to.
type holding struct {
	config.Folder
	ID   string
	lock io.Closer
}

// hold takes the folder for this process. It touches nothing in a folder that
// was moved or copied, or that another process holds.
func hold(fsys vfs.FS, f config.Folder) (*holding, error) {
	rec, err := Whereabouts(fsys, f)
	if err != nil {
		return nil, err
	}
	if err := fsys.MkdirAll(f.Data()); err != nil {
		return nil, fmt.Errorf("open folder %s: %w", f, err)
	}
	lock, err := Alone(fsys, f)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		// Asked again: another process may have come and gone before the lock.
		if rec, err = Whereabouts(fsys, f); err == nil && rec == nil {
			rec, err = record(fsys, f)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open folder %s: %w", f, err), lock.Close())
		}
	}
	// The folder is the way by which the tables were made, if this is another
	// way to the same place.
	return &holding{Folder: config.Folder(rec.Root), ID: rec.ID, lock: lock}, nil
}

// Alone takes the folder for work on it without a server, and fails when one
// runs. The folder must have data.
func Alone(fsys vfs.FS, f config.Folder) (io.Closer, error) {
	lock, err := fsys.Lock(filepath.Join(f.Data(), lockFile))
	if err == nil {
		return lock, nil
	}
	err = fmt.Errorf("open folder %s: %w", f, err)
	if errors.Is(err, vfs.ErrLocked) {
		err = fault.WithHint(err, "another naru works on this folder; stop it first")
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fault.WithHint(err, "run naru as the user that the folder belongs to; if another one has written in it: chown -R USER: %s", f)
	}
	return nil, err
}

// Close lets others have the folder.
func (h *holding) Close() error { return h.lock.Close() }

// Whereabouts reads where the folder's data was made, nil if there is none, and
// refuses a folder that is not there any more. It changes nothing.
func Whereabouts(fsys vfs.FS, f config.Folder) (*RootRecord, error) {
	rec, err := recorded(fsys, f)
	if rec == nil || err != nil {
		return nil, err
	}
	path := filepath.Join(f.Data(), rootFile)
	if rec.Root == string(f) || leadsTo(fsys, rec.Root, path) {
		return rec, nil
	}
	return nil, fault.WithHint(fmt.Errorf("open folder %s: %w: its data was made at %s", f, ErrElsewhere, rec.Root),
		"nothing was touched. Iceberg tables hold absolute paths: move the folder back to %s, or make that path lead here with a bind mount or a symbolic link. Or make a copy for another place: naru backup NEW %s --root NEW", rec.Root, f)
}

// recorded reads where the folder's data was made, nil if there is none.
func recorded(fsys vfs.FS, f config.Folder) (*RootRecord, error) {
	path := filepath.Join(f.Data(), rootFile)
	file, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", f, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", f, err)
	}
	rec := &RootRecord{}
	if err := json.Unmarshal(text, rec); err != nil || rec.Version != 1 || rec.ID == "" || rec.Root == "" {
		return nil, fault.WithHint(&fault.Corrupt{Path: path, Offset: -1, Reason: "not a record of naru's"},
			"restore it from a backup: it holds the folder's path and id. Without one, and only if the folder stands where it always did: remove the file, the next start writes it anew")
	}
	return rec, nil
}

// leadsTo tells whether the path root/data/root is the file at path: through a
// link or a mount the folder is still where it was.
func leadsTo(fsys vfs.FS, root, path string) bool {
	there, err := fsys.Stat(filepath.Join(config.Folder(root).Data(), rootFile))
	if err != nil {
		return false
	}
	here, err := fsys.Stat(path)
	return err == nil && os.SameFile(there, here)
}

// record writes data/root: whole or not at all.
func record(fsys vfs.FS, f config.Folder) (*RootRecord, error) {
	rec := newRecord(string(f))
	text, err := rec.text()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.Data(), rootFile)
	file, err := fsys.Create(path + ".tmp")
	if err != nil {
		return nil, err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if err := fsys.Rename(path+".tmp", path); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(f.Data()); err != nil {
		return nil, err
	}
	return rec, fsys.SyncDir(string(f))
}

// newRecord is the record of a folder that begins at root.
func newRecord(root string) *RootRecord {
	var id [16]byte
	rand.Read(id[:])
	return &RootRecord{Version: 1, ID: hex.EncodeToString(id[:]), Root: root}
}

// text is the record as it stands in its file.
func (r *RootRecord) text() ([]byte, error) {
	text, err := json.Marshal(r)
	return append(text, '\n'), err
}
