package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// watchEvery is how often the server looks whether its folder is where it was.
// Nothing is written by path in between without looking.
const watchEvery = time.Second

// guarded refuses to touch anything by its path once the path of the folder no
// longer leads to the folder that this process holds: what is there then belongs
// to somebody else. What is open stays usable: it is in the
// folder, wherever that has gone.
type guarded struct {
	vfs.FS
	folder config.Folder
	lock   string
	held   fs.FileInfo // of the lock file; nil where files have no identity
}

func guard(fsys vfs.FS, h *holding) (*guarded, error) {
	g := &guarded{FS: fsys, folder: h.Folder, lock: filepath.Join(h.Data(), lockFile)}
	held, err := fsys.Stat(g.lock)
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", h.Folder, err)
	}
	if os.SameFile(held, held) {
		g.held = held
	}
	return g, nil
}

// check tells whether the folder is still the one that is held.
func (g *guarded) check() error {
	if g.held == nil {
		return nil
	}
	now, err := g.FS.Stat(g.lock)
	switch {
	case err == nil && os.SameFile(now, g.held):
		return nil
	case err == nil:
		err = fmt.Errorf("%w while the server was running: another folder stands at %s", ErrElsewhere, g.folder)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w, or removed, while the server was running: %s is not there", ErrElsewhere, g.lock)
	}
	return fault.WithHint(fmt.Errorf("look at folder %s: %w", g.folder, err),
		"Iceberg tables hold absolute paths: move the folder back to %s and start the server again. What was acknowledged is in its log", g.folder)
}

// watch returns an error as soon as the folder has gone.
func (g *guarded) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := g.check(); errors.Is(err, ErrElsewhere) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// explain adds to an error of a missing file that the whole folder has gone, if
// it has. A folder that is being removed loses the lock file at any time of the
// removal, so it is looked for as long as watch would.
func (g *guarded) explain(err error) error {
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrElsewhere) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), watchEvery+watchEvery/2)
	defer cancel()
	return errors.Join(g.watch(ctx), err)
}

func (g *guarded) Create(path string) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.FS.Create(path)
}

func (g *guarded) Open(path string) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.FS.Open(path)
}

func (g *guarded) OpenReadWrite(path string) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.FS.OpenReadWrite(path)
}

func (g *guarded) Remove(path string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Remove(path)
}

func (g *guarded) Rename(from, to string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Rename(from, to)
}

func (g *guarded) MkdirAll(path string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.MkdirAll(path)
}

func (g *guarded) Lock(path string) (io.Closer, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.FS.Lock(path)
}

func (g *guarded) List(dir string) ([]string, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.FS.List(dir)
}

func (g *guarded) SyncDir(dir string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.SyncDir(dir)
}

func (g *guarded) Free(path string) (int64, error) {
	if err := g.check(); err != nil {
		return 0, err
	}
	return g.FS.Free(path)
}
