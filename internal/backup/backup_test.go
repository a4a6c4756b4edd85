package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/backup"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// TestOrder: events that come, are loaded and counted while the backup is made
// are neither lost nor doubled after a restore, whichever part was copied by
// then.
func TestOrder(t *testing.T) {
	for _, part := range []string{"/data/lake", "/data/lake/events", "/data/log", "/models"} {
		for _, root := range []string{home, "/srv/other"} {
			t.Run(part+" to "+root, func(t *testing.T) {
				disk := newDisk(t)
				n := start(t, disk, home, iceberg.NewMemoryCatalog())
				n.send(40)
				n.load()
				n.send(10)
				before := 3 * n.sent
				wire := &tripwire{FS: disk, below: away + backup.PartialSuffix + part}
				wire.fn = func() {
					n.send(30)
					n.load()
					n.send(1)
				}
				r, err := backup.Run(t.Context(), n.options(wire, root))
				if err != nil {
					t.Fatal(err)
				}
				if wire.fn != nil {
					t.Fatal("nothing came meanwhile")
				}
				n.load()
				if got := n.proved(); got != 3*n.sent {
					t.Errorf("the original has %d events of %d", got, 3*n.sent)
				}
				n.stop()
				if err := disk.Rename(home, "/srv/lost"); err != nil {
					t.Fatal(err)
				}
				c := restored(t, disk, root, n.copied())
				c.lags()
				c.load()
				got := c.proved()
				if got < before || got > 3*n.sent || got != r.Log.Streams[0].End {
					t.Errorf("the copy has %d events, want %d to %d; it says %+v", got, before, 3*n.sent, r.Log.Streams)
				}
				c.send(5)
				c.load()
				if more := c.proved(); more != got+15 {
					t.Errorf("then %d, after %d", more, got)
				}
				c.stop()
			})
		}
	}
}

// TestWhole: what a backup holds, and that a second one of it holds the same.
func TestWhole(t *testing.T) {
	disk := newDisk(t)
	n := start(t, disk, home, iceberg.NewMemoryCatalog())
	n.send(20)
	n.load()
	for _, name := range []string{"/data/surprise", "/data/pipelines/edits.json", "/data/pipelines/edits/file/state"} {
		n.must(disk.MkdirAll(filepath.Dir(home + name)))
		f, err := disk.Create(home + name)
		n.must(err)
		_, err = f.Write([]byte("{}"))
		n.must(err)
		n.must(f.Close())
	}
	r, err := backup.Run(t.Context(), n.options(disk, home))
	if err != nil {
		t.Fatal(err)
	}
	got := tree(t, disk, away)
	for name, want := range map[string]string{"/naru.yaml": "log: {}\n", "/models/deep/a.sql": "select 1\n", "/data/root": "record\n", "/data/pipelines/edits.json": "{}", "/data/lake/root": home + "/data/lake\n"} {
		if got[name] != want {
			t.Errorf("%s: %q", name, got[name])
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "/data/pipelines/edits/") || strings.Contains(name, "lock") || strings.Contains(name, "LOCK") || strings.Contains(name, "free-") || strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s is in the backup", name)
		}
	}
	if len(r.LeftOut) != 1 || r.LeftOut[0] != "data/surprise" {
		t.Errorf("left out: %v", r.LeftOut)
	}
	bytes := 0
	for _, text := range got {
		bytes += len(text)
	}
	if r.Files != len(got)+1 || r.Bytes < int64(bytes)-16<<10 || r.Bytes > int64(bytes)+16<<10 { // footers; the catalog has no file here
		t.Logf("the report says %d files, %d bytes; there are %d, %d", r.Files, r.Bytes, len(got), bytes)
	}
	n.stop()
}

// TestPowerCut: whenever the power goes, the folder with the backup's name is not
// there or is whole; and the next backup works.
func TestPowerCut(t *testing.T) {
	disk := newDisk(t)
	n := start(t, disk, home, iceberg.NewMemoryCatalog())
	n.send(20)
	n.load()
	n.send(3)
	n.stop()
	var cuts []*vfs.Memory
	disk.OnSync(func(i int, _ vfs.Op, _ string) { cuts = append(cuts, disk.CrashClone(uint64(i)%3*uint64(i))) })
	if _, err := backup.Run(t.Context(), n.options(disk, home)); err != nil {
		t.Fatal(err)
	}
	disk.OnSync(nil)
	for range 4 {
		cuts = append(cuts, disk.CrashClone(uint64(len(cuts))%2*7))
	}
	want := tree(t, disk, away)
	whole := 0
	for i, cut := range cuts {
		if _, err := cut.Stat(away); errors.Is(err, fs.ErrNotExist) {
			if i%5 > 0 {
				continue
			}
			o := n.options(cut, home)
			if _, err := backup.Run(t.Context(), o); err != nil {
				t.Errorf("backup after cut %d: %v", i, err)
			}
			continue
		}
		whole++
		got := tree(t, cut, away)
		delete(got, "/backup.lock") // it goes last, and is no harm
		if !maps.Equal(got, want) {
			t.Errorf("cut %d left %d files of %d, or other bytes", i, len(got), len(want))
		}
	}
	t.Logf("%d cuts, whole after %d", len(cuts), whole)
	if whole < 4 || whole == len(cuts) {
		t.Error("nothing was proved")
	}
}

// TestFaults: a call that fails, at every place in turn, fails the backup, and
// nothing of it is left.
func TestFaults(t *testing.T) {
	for _, f := range []struct {
		op  vfs.Op
		err error
	}{{vfs.OpCreate, syscall.ENOSPC}, {vfs.OpWrite, syscall.ENOSPC}, {vfs.OpSync, nil}, {vfs.OpSyncDir, nil}, {vfs.OpRename, nil}, {vfs.OpRead, nil}} {
		t.Run(f.op.String(), func(t *testing.T) {
			disk := newDisk(t)
			n := start(t, disk, home, iceberg.NewMemoryCatalog())
			n.send(12)
			n.load()
			n.stop()
			failures := 0
			for skip := 0; ; skip += 1 + skip/8 {
				o := n.options(disk, home)
				rule := disk.Inject(vfs.Rule{Ops: f.op, Skip: skip, Times: 1, Err: f.err})
				_, err := backup.Run(t.Context(), o)
				hit := disk.Hits(rule) > 0
				disk.Heal()
				if !hit {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				if err == nil {
					t.Fatalf("%s %d failed, and the backup did not", f.op, skip)
				}
				failures++
				if names, err := disk.List("/backups"); err != nil || len(names) > 0 {
					t.Fatalf("%s %d left %v, %v", f.op, skip, names, err)
				}
			}
			if failures == 0 {
				t.Error("nothing failed")
			}
		})
	}
}

// TestNoRoom: too little room is noticed before the data is copied.
func TestNoRoom(t *testing.T) {
	disk := newDisk(t)
	n := start(t, disk, home, iceberg.NewMemoryCatalog())
	n.send(50)
	n.load()
	n.stop()
	free, err := disk.Free("/")
	n.must(err)
	disk.SetCapacity(1<<40 - free + 8<<20)
	if _, err := backup.Run(t.Context(), n.options(disk, home)); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("backup: %v", err)
	}
}

// TestTargets: where a backup may not go.
func TestTargets(t *testing.T) {
	disk := newDisk(t)
	n := start(t, disk, home, iceberg.NewMemoryCatalog())
	n.send(1)
	n.stop()
	run := func(to string) error {
		o := n.options(disk, home)
		o.To = to
		_, err := backup.Run(t.Context(), o)
		return err
	}
	n.must(disk.MkdirAll("/full/x"))
	n.must(disk.MkdirAll("/taken.partial/theirs"))
	n.must(disk.MkdirAll("/empty"))
	n.must(disk.MkdirAll("/busy.partial"))
	lock, err := disk.Lock("/busy.partial/backup.lock")
	n.must(err)
	for to, want := range map[string]string{home: "lies in", home + "/a/b": "lies in", "/full": "not empty", "/taken": "not from a backup", "/busy": "locked"} {
		if err := run(to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", to, err)
		}
	}
	n.must(lock.Close())
	for _, to := range []string{"/busy", "/empty"} { // the first is left over now
		if err := run(to); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// TestCanceled: a backup that is stopped leaves nothing.
func TestCanceled(t *testing.T) {
	disk := newDisk(t)
	n := start(t, disk, home, iceberg.NewMemoryCatalog())
	n.send(30)
	n.stop()
	ctx, cancel := context.WithCancel(t.Context())
	o := n.options(&tripwire{FS: disk, below: away + backup.PartialSuffix + "/data/log", fn: cancel}, home)
	if _, err := backup.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("backup: %v", err)
	}
	if names, err := disk.List("/backups"); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestRate: the rate holds, and a cancellation does not wait for it.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(t)
		n := start(t, disk, home, iceberg.NewMemoryCatalog())
		n.send(100)
		n.stop()
		o := n.options(disk, home)
		o.Rate = 10 * quantity.KiB
		told := 0
		o.Progress = func(done, total int64) { told++ }
		began := time.Now()
		r, err := backup.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if want := time.Duration(float64(r.Bytes) / 10240 * float64(time.Second)); took < want*8/10 || took > want*12/10+2*time.Second {
			t.Errorf("%d bytes took %v, want about %v", r.Bytes, took, want)
		}
		if told < 3 {
			t.Errorf("told %d times", told)
		}
	})
}
