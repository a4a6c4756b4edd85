package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"naru/internal/vfs"
)

// systems lists the implementations: what holds for one holds for all.
func systems(t *testing.T) map[string]func(t *testing.T) (vfs.FS, string) {
	t.Helper()
	return map[string]func(t *testing.T) (vfs.FS, string){
		"os": func(t *testing.T) (vfs.FS, string) { return vfs.OS(), t.TempDir() },
		"memory": func(t *testing.T) (vfs.FS, string) {
			m := vfs.NewMemory()
			if err := m.MkdirAll("/data"); err != nil {
				t.Fatal(err)
			}
			return m, "/data"
		},
	}
}

func each(t *testing.T, fn func(t *testing.T, fsys vfs.FS, dir string)) {
	for name, open := range systems(t) {
		t.Run(name, func(t *testing.T) {
			fsys, dir := open(t)
			fn(t, fsys, dir)
		})
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, fsys vfs.FS, path string) []byte {
	t.Helper()
	f := must[vfs.File](t)(fsys.Open(path))
	defer f.Close()
	info := must[fs.FileInfo](t)(f.Stat())
	b := make([]byte, info.Size())
	if n, err := f.ReadAt(b, 0); n != len(b) {
		t.Fatalf("read %d of %d: %v", n, len(b), err)
	}
	return b
}

func TestVectoredWriteIsOnePiece(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		path := filepath.Join(dir, "f")
		f := must[vfs.File](t)(fsys.Create(path))
		// More buffers than the kernel takes at once, empty ones among them.
		var bufs [][]byte
		var want []byte
		for i := range 3000 {
			b := bytes.Repeat([]byte{byte(i)}, i%5)
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		ok(t, f.WriteVAt(bufs, 7))
		ok(t, f.WriteVAt(nil, 0))
		ok(t, f.WriteVAt([][]byte{nil, {}}, 0))
		ok(t, f.Sync())
		ok(t, f.Close())
		if got := readAll(t, fsys, path); !bytes.Equal(got, append(make([]byte, 7), want...)) {
			t.Fatalf("got %d bytes, want %d, or they differ", len(got), len(want)+7)
		}
	})
}

func TestPreallocateExtendsWithZeros(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		path := filepath.Join(dir, "f")
		f := must[vfs.File](t)(fsys.Create(path))
		ok(t, f.Preallocate(8192))
		must[int](t)(f.WriteAt([]byte("abc"), 100))
		ok(t, f.Preallocate(4096)) // never shrinks
		ok(t, f.Close())
		got := readAll(t, fsys, path)
		if len(got) != 8192 || string(got[100:103]) != "abc" || got[103] != 0 {
			t.Fatalf("size %d", len(got))
		}
		if err := must[vfs.File](t)(fsys.OpenReadWrite(path)).Preallocate(0); err == nil {
			t.Error("preallocate 0 is accepted")
		}
	})
}

func TestFolders(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		deep := filepath.Join(dir, "a", "b", "c")
		ok(t, fsys.MkdirAll(deep))
		ok(t, fsys.MkdirAll(deep))
		for _, name := range []string{"y", "x"} {
			ok(t, must[vfs.File](t)(fsys.Create(filepath.Join(deep, name))).Close())
		}
		ok(t, fsys.Rename(filepath.Join(deep, "y"), filepath.Join(deep, "z")))
		ok(t, fsys.SyncDir(deep))
		if got := must[[]string](t)(fsys.List(deep)); !slices.Equal(got, []string{"x", "z"}) {
			t.Errorf("list: %q", got)
		}
		ok(t, fsys.Remove(filepath.Join(deep, "x")))
		if _, err := fsys.Stat(filepath.Join(deep, "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat of a removed file: %v", err)
		}
		if _, err := fsys.Open(filepath.Join(deep, "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open of a removed file: %v", err)
		}
		if _, err := fsys.OpenReadWrite(filepath.Join(deep, "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open for writing makes a file: %v", err)
		}
		if err := fsys.SyncDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("sync of a missing folder: %v", err)
		}
		if err := fsys.MkdirAll(filepath.Join(deep, "z")); err == nil {
			t.Error("a file passes for a folder")
		}
		if free := must[int64](t)(fsys.Free(deep)); free <= 0 {
			t.Errorf("free: %d", free)
		}
	})
}

func TestOpenFileOutlivesItsName(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		path := filepath.Join(dir, "f")
		f := must[vfs.File](t)(fsys.Create(path))
		must[int](t)(f.Write([]byte("hello")))
		ok(t, fsys.Remove(path))
		b := make([]byte, 5)
		must[int](t)(f.ReadAt(b, 0))
		if string(b) != "hello" {
			t.Errorf("read %q", b)
		}
		ok(t, f.Close())
	})
}

func TestLockIsExclusive(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		path := filepath.Join(dir, "lock")
		l, err := fsys.Lock(path)
		ok(t, err)
		if _, err := fsys.Lock(path); !errors.Is(err, vfs.ErrLocked) {
			t.Fatalf("second lock: %v", err)
		}
		ok(t, l.Close())
		l, err = fsys.Lock(path)
		ok(t, err)
		ok(t, l.Close())
	})
}
