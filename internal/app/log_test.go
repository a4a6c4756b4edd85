package app

import (
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// TestLogGone: only tables without any segment tell of a log that is gone.
func TestLogGone(t *testing.T) {
	disk := vfs.NewMemory()
	f := config.Folder("/p")
	lake := filepath.Join(f.Data(), "lake")
	for _, dir := range []string{f.Log(), lake} {
		if err := disk.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	touch := func(path string) {
		t.Helper()
		file, err := disk.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want bool) {
		t.Helper()
		if got, err := logGone(disk, f); err != nil || got != want {
			t.Errorf("%v, %v", got, err)
		}
	}
	is(false)
	touch(filepath.Join(lake, "claims.json"))
	touch(filepath.Join(f.Log(), "free-1.tmp"))
	is(true)
	touch(filepath.Join(f.Log(), "0000000000000001.seg"))
	is(false)
}

type denied struct{ vfs.FS }

func (denied) Lock(path string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
}

// TestFolderOfAnotherUser: a lock file that root has left is named with its cure.
func TestFolderOfAnotherUser(t *testing.T) {
	_, err := Alone(denied{vfs.NewMemory()}, "/p")
	if err == nil || !strings.Contains(fault.HintOf(err), "chown -R USER: /p") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
}
