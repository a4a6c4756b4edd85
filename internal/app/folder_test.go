package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/vfs"
)

func held(t *testing.T, fsys vfs.FS, dir string) *holding {
	t.Helper()
	h, err := hold(fsys, config.Folder(dir))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHoldIsExclusive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	h := held(t, vfs.OS(), dir)
	_, err := hold(vfs.OS(), config.Folder(dir))
	if !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), dir) || !strings.Contains(fault.HintOf(err), "another naru") {
		t.Fatalf("a second holder: %v (%s)", err, fault.HintOf(err))
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again := held(t, vfs.OS(), dir)
	defer again.Close()
	if again.ID != h.ID || again.ID == "" {
		t.Errorf("the id changed from %q to %q", h.ID, again.ID)
	}
}

func TestMovedFolderIsRefused(t *testing.T) {
	base := t.TempDir()
	was, is := filepath.Join(base, "was"), filepath.Join(base, "is")
	if err := held(t, vfs.OS(), was).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(was, is); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(filepath.Join(is, "data"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = hold(vfs.OS(), config.Folder(is))
	if !errors.Is(err, ErrElsewhere) || !strings.Contains(err.Error(), is) || !strings.Contains(err.Error(), was) || !strings.Contains(fault.HintOf(err), "move the folder back to "+was) {
		t.Fatalf("a moved folder: %v (%s)", err, fault.HintOf(err))
	}
	after, err := os.ReadDir(filepath.Join(is, "data"))
	if err != nil || len(before) != len(after) {
		t.Errorf("the refusal left %v of %v", after, before)
	}
	// The cure that the hint names: the old path leads here.
	if err := os.Symlink(is, was); err != nil {
		t.Fatal(err)
	}
	h := held(t, vfs.OS(), is)
	defer h.Close()
	if string(h.Folder) != was {
		t.Errorf("the tables' own way is %s, not %s", was, h.Folder)
	}
}

func TestCopiedFolderIsRefused(t *testing.T) {
	base := t.TempDir()
	original, copied := filepath.Join(base, "original"), filepath.Join(base, "copied")
	defer held(t, vfs.OS(), original).Close()
	if err := os.CopyFS(copied, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	if _, err := hold(vfs.OS(), config.Folder(copied)); !errors.Is(err, ErrElsewhere) {
		t.Errorf("a copy beside its original: %v", err)
	}
}

func TestBrokenRecordIsNotReplaced(t *testing.T) {
	for _, text := range []string{"", "{}", "hello", `{"version":2,"id":"x","root":"/p"}`} {
		dir := t.TempDir()
		path := filepath.Join(dir, "data", "root")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var corrupt *fault.Corrupt
		if _, err := hold(vfs.OS(), config.Folder(dir)); !errors.As(err, &corrupt) {
			t.Errorf("%q: %v", text, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%q became %q, %v", text, now, err)
		}
	}
}

// TestRecordSurvivesPowerCuts cuts the power at every sync: what is there
// afterwards is a whole record or none, and the folder can be held.
func TestRecordSurvivesPowerCuts(t *testing.T) {
	var clones []*vfs.Memory
	mem := vfs.NewMemory()
	mem.OnSync(func(n int, _ vfs.Op, _ string) { clones = append(clones, mem.CrashClone(uint64(n))) })
	id := held(t, mem, "/p").ID
	clones = append(clones, mem.CrashClone(99))
	for i, c := range clones {
		h := held(t, c, "/p")
		if i == len(clones)-1 && h.ID != id {
			t.Errorf("the record did not last: %s became %s", id, h.ID)
		}
	}
	if len(clones) < 4 {
		t.Errorf("only %d syncs", len(clones)-1)
	}
}
