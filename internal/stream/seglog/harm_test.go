package seglog

import (
	"context"
	"testing"

	"naru/internal/event"
	"naru/internal/recordbatch"
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

// expired is a context in which a read that would wait ends at once.
func expired() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, cancel
}

// eachAt calls fn for every event of a batch with its offset.
func eachAt(t testing.TB, b *event.Batch, fn func(at int64, value string)) {
	t.Helper()
	var d recordbatch.Decoder
	if err := d.EachIn(b, func(e *event.Event) error {
		fn(e.Offset, string(e.Data))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
