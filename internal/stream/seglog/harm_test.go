package seglog

import (
	"testing"

	"naru/internal/vfs"
)

// change alters one byte of a file, durably.
func change(t testing.TB, disk *vfs.Memory, name string, off int64, fn func(byte) byte) {
	t.Helper()
	f, err := disk.OpenReadWrite(testDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] = fn(b[0])
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
