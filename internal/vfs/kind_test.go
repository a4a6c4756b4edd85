package vfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	if k, err := KindOf("/dev/shm"); err == nil && k.Name == "tmpfs" && (!k.Memory || k.Network) {
		t.Errorf("/dev/shm: %+v", k)
	}
	if k, err := KindOf(t.TempDir()); err != nil || k.Name == "" {
		t.Errorf("%+v %v", k, err)
	}
	if _, err := KindOf(filepath.Join(t.TempDir(), "nowhere")); !os.IsNotExist(err) {
		t.Errorf("of nothing: %v", err)
	}
	for magic, want := range map[uint32]Kind{
		0xef53: {Name: "ext4"}, 0x01021994: {Name: "tmpfs", Memory: true}, 0x6969: {Name: "nfs", Network: true}, 0x65735546: {Name: "fuse", Network: true},
		0x12345678: {Name: "type 0x12345678"},
	} {
		if got := kindOf(magic); got != want {
			t.Errorf("%#x: %+v, want %+v", magic, got, want)
		}
	}
}

func TestRemoveAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	other := filepath.Join(t.TempDir(), "kept")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "a", "b", "c"), filepath.Join(dir, "d"), other} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What a link leads to is somebody else's.
	if err := os.Symlink(filepath.Dir(other), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	fsys := OS()
	for range 2 {
		if err := RemoveAll(fsys, dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("still there: %v", err)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	if err := RemoveAll(fsys, filepath.Join(dir, "\x00")); err == nil || !strings.Contains(err.Error(), "invalid") {
		t.Errorf("a path that cannot be: %v", err)
	}
}
