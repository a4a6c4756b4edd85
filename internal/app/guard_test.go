package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// While a server runs, its folder is moved away, and then another is put in its
// place: nothing is done by path any more, in either case.
func TestGuard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	h, err := hold(vfs.OS(), config.Folder(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	g, err := guard(vfs.OS(), h)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.Data(), "x")
	calls := map[string]func() error{
		"create": func() error { f, err := g.Create(path); return errors.Join(err, closeFile(f)) },
		"open":   func() error { f, err := g.Open(path); return errors.Join(err, closeFile(f)) },
		"write":  func() error { f, err := g.OpenReadWrite(path); return errors.Join(err, closeFile(f)) },
		"rename": func() error { return errors.Join(g.Rename(path, path+"2"), g.Rename(path+"2", path)) },
		"mkdir":  func() error { return g.MkdirAll(filepath.Join(h.Data(), "sub")) },
		"list":   func() error { _, err := g.List(h.Data()); return err },
		"sync":   func() error { return g.SyncDir(h.Data()) },
		"free":   func() error { _, err := g.Free(h.Data()); return err },
		"lock":   func() error { c, err := g.Lock(path + ".lock"); return errors.Join(err, closeFile(c)) },
		"remove": func() error {
			if err := g.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
		"check": g.check,
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all := func(what string, elsewhere bool) {
		t.Helper()
		for name, call := range calls {
			err := call()
			if !elsewhere && err != nil {
				t.Errorf("%s: %s: %v", what, name, err)
			}
			if elsewhere && (!errors.Is(err, ErrElsewhere) || !strings.Contains(fault.HintOf(err), dir)) {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
	}
	all("in place", false)
	missing := &os.PathError{Op: "rename", Path: path, Err: os.ErrNotExist}
	synctest.Test(t, func(t *testing.T) { // which looks again for a while
		if err := g.explain(missing); errors.Is(err, ErrElsewhere) || !errors.Is(err, missing) {
			t.Errorf("in place: a missing file became %v", err)
		}
	})
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	all("moved away", true)
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("something was made there: %v", err)
	}
	other, err := hold(vfs.OS(), config.Folder(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	all("replaced by another", true)
	if names, err := vfs.OS().List(other.Data()); err != nil || len(names) != 2 {
		t.Errorf("the other folder has %v, %v", names, err)
	}
	if err := g.watch(t.Context()); !errors.Is(err, ErrElsewhere) {
		t.Errorf("watch: %v", err)
	}
	if err := g.explain(missing); !errors.Is(err, ErrElsewhere) || !errors.Is(err, missing) || fault.HintOf(err) == "" {
		t.Errorf("gone: a missing file became %v", err)
	}
	if err := g.explain(os.ErrPermission); errors.Is(err, ErrElsewhere) {
		t.Errorf("another error became %v", err)
	}
}

func closeFile(c interface{ Close() error }) error {
	if v, ok := c.(vfs.File); c == nil || ok && v == nil {
		return nil
	}
	return c.Close()
}
