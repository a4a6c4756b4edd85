package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"naru/internal/vfs"
)

func newMemory(t *testing.T) *vfs.Memory {
	t.Helper()
	m := vfs.NewMemory()
	ok(t, m.MkdirAll("/d"))
	return m
}

func create(t *testing.T, m *vfs.Memory, path string) vfs.File {
	t.Helper()
	return must[vfs.File](t)(m.Create(path))
}

func missing(m *vfs.Memory, path string) bool {
	_, err := m.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestCrashDropsWhatWasNotSynced(t *testing.T) {
	m := newMemory(t)
	f := create(t, m, "/d/f")
	must[int](t)(f.WriteAt([]byte("synced"), 0))
	ok(t, f.Sync())
	if !missing(m.CrashClone(0), "/d/f") {
		t.Error("syncing the file made its name durable")
	}
	ok(t, m.SyncDir("/d"))
	must[int](t)(f.WriteAt([]byte("SYNC"), 0))
	ok(t, f.Truncate(5))
	if got := readAll(t, m.CrashClone(0), "/d/f"); string(got) != "synced" {
		t.Errorf("nothing kept: %q", got)
	}
	if got := readAll(t, m.CrashClone(1), "/d/f"); string(got) != "SYNCe" {
		t.Errorf("everything kept: %q", got)
	}
	if got := readAll(t, m, "/d/f"); string(got) != "SYNCe" {
		t.Errorf("the original reads %q", got)
	}
}

func TestCrashTearsAtSectors(t *testing.T) {
	m := newMemory(t)
	f := create(t, m, "/d/f")
	ok(t, f.Preallocate(16*vfs.SectorSize))
	ok(t, f.Sync())
	ok(t, m.SyncDir("/d"))
	must[int](t)(f.WriteAt(bytes.Repeat([]byte{1}, 8*vfs.SectorSize), 100))
	must[int](t)(f.WriteAt(bytes.Repeat([]byte{2}, 4*vfs.SectorSize), 100+8*vfs.SectorSize))
	torn, reordered, whole := 0, 0, 0
	for seed := range uint64(200) {
		got := readAll(t, m.CrashClone(seed), "/d/f")
		if again := readAll(t, m.CrashClone(seed), "/d/f"); !bytes.Equal(got, again) {
			t.Fatal("one seed gives two disks")
		}
		first, second := bytes.Count(got, []byte{1}), bytes.Count(got, []byte{2})
		for i := 0; i < len(got); i += vfs.SectorSize {
			// Inside a sector there are at most the border of the write and its bytes.
			sector := got[i : i+vfs.SectorSize]
			if lead := len(sector) - len(bytes.TrimLeft(sector, "\x00")); lead != 0 && lead != 100 && lead != vfs.SectorSize {
				t.Fatalf("seed %d: sector %d is torn inside, at %d", seed, i/vfs.SectorSize, lead)
			}
		}
		switch {
		case first == 8*vfs.SectorSize && second == 4*vfs.SectorSize:
			whole++
		case first < 8*vfs.SectorSize && second > 0:
			reordered++
		default:
			torn++
		}
	}
	if torn == 0 || reordered == 0 || whole == 0 {
		t.Fatalf("torn %d, reordered %d, whole %d: some kind never occurs", torn, reordered, whole)
	}
}

func TestCrashKeepsAnyPartOfAFolder(t *testing.T) {
	m := newMemory(t)
	ok(t, create(t, m, "/d/old").Close())
	ok(t, m.SyncDir("/d"))
	ok(t, create(t, m, "/d/tmp").Close())
	ok(t, m.Rename("/d/tmp", "/d/new"))
	ok(t, m.Remove("/d/old"))
	seen := map[string]bool{}
	for seed := range uint64(300) {
		c := m.CrashClone(seed)
		names := must[[]string](t)(c.List("/d"))
		if slices.Contains(names, "tmp") && slices.Contains(names, "new") {
			t.Fatalf("seed %d: a rename left both names", seed)
		}
		seen[strings.Join(names, " ")] = true
	}
	ok(t, m.SyncDir("/d"))
	if names := must[[]string](t)(m.CrashClone(0).List("/d")); !slices.Equal(names, []string{"new"}) {
		t.Fatalf("after the sync: %q", names)
	}
	if len(seen) < 3 {
		t.Fatalf("300 crashes left only %v", seen)
	}
}

func TestKillKeepsThePageCacheVolatile(t *testing.T) {
	m := newMemory(t)
	f := create(t, m, "/d/f")
	must[int](t)(f.WriteAt([]byte("abc"), 0))
	k := m.KillClone()
	if got := readAll(t, k, "/d/f"); string(got) != "abc" {
		t.Fatalf("after the kill: %q", got)
	}
	must[int](t)(f.WriteAt([]byte("X"), 0))
	if got := readAll(t, k, "/d/f"); string(got) != "abc" {
		t.Fatalf("the clone follows the original: %q", got)
	}
	if !missing(k.CrashClone(0), "/d/f") {
		t.Fatal("a kill made a file durable")
	}
	ok(t, must[vfs.File](t)(k.OpenReadWrite("/d/f")).Sync())
	ok(t, k.SyncDir("/d"))
	if got := readAll(t, k.CrashClone(0), "/d/f"); string(got) != "abc" {
		t.Fatalf("synced after the kill: %q", got)
	}
}

func TestFailedSyncLosesForGood(t *testing.T) {
	m := newMemory(t)
	f := create(t, m, "/d/f")
	ok(t, m.SyncDir("/d"))
	must[int](t)(f.WriteAt([]byte("abc"), 0))
	r := m.Inject(vfs.Rule{Ops: vfs.OpSync, Pattern: "f", Times: 1})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) || m.Hits(r) != 1 {
		t.Fatalf("sync: %v", err)
	}
	ok(t, f.Sync()) // the kernel says that all is well
	if got := readAll(t, m, "/d/f"); string(got) != "abc" {
		t.Fatalf("the page cache shows %q", got)
	}
	if got := readAll(t, m.CrashClone(1), "/d/f"); len(got) != 0 {
		t.Fatalf("the disk holds %q", got)
	}
}

func TestRules(t *testing.T) {
	m := newMemory(t)
	r := m.Inject(vfs.Rule{Ops: vfs.OpWrite | vfs.OpRename, Pattern: "*.seg", Skip: 1, Times: 2, Err: syscall.ENOSPC})
	f, other := create(t, m, "/d/1.seg"), create(t, m, "/d/other")
	must[int](t)(f.WriteAt([]byte("a"), 0))
	must[int](t)(other.WriteAt([]byte("a"), 0))
	if _, err := f.WriteAt([]byte("b"), 1); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write: %v", err)
	}
	var pe *fs.PathError
	if err := m.Rename("/d/1.seg", "/d/2.seg"); !errors.As(err, &pe) || pe.Path != "/d/1.seg" || pe.Op != "rename" {
		t.Fatalf("rename: %v", err)
	}
	must[int](t)(f.WriteAt([]byte("c"), 1))
	if m.Hits(r) != 2 {
		t.Fatalf("%d hits", m.Hits(r))
	}
	m.Inject(vfs.Rule{Ops: vfs.OpWrite, Err: io.ErrShortWrite})
	if err := f.WriteVAt([][]byte{[]byte("12"), []byte("34")}, 0); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("write: %v", err)
	}
	if got := readAll(t, m, "/d/1.seg"); string(got) != "12" {
		t.Fatalf("half a write left %q", got)
	}
	m.Inject(vfs.Rule{Ops: vfs.OpAny})
	calls := map[vfs.Op]func() error{
		vfs.OpCreate:   func() error { _, err := m.Create("/d/x"); return err },
		vfs.OpOpen:     func() error { _, err := m.Open("/d/1.seg"); return err },
		vfs.OpRead:     func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		vfs.OpSync:     f.Sync,
		vfs.OpTruncate: func() error { return f.Truncate(1) },
		vfs.OpAllocate: func() error { return f.Preallocate(1) },
		vfs.OpRemove:   func() error { return m.Remove("/d/1.seg") },
		vfs.OpMkdir:    func() error { return m.MkdirAll("/e") },
		vfs.OpList:     func() error { _, err := m.List("/d"); return err },
		vfs.OpStat:     func() error { _, err := m.Stat("/d"); return err },
		vfs.OpSyncDir:  func() error { return m.SyncDir("/d") },
		vfs.OpLock:     func() error { _, err := m.Lock("/d/l"); return err },
		vfs.OpFree:     func() error { _, err := m.Free("/d"); return err },
	}
	for op, call := range calls {
		if err := call(); !errors.Is(err, vfs.ErrInjected) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := f.Close(); !errors.Is(err, vfs.ErrInjected) {
		t.Errorf("close: %v", err)
	}
	m.Heal()
	must[[]string](t)(m.List("/d"))
}

func TestFullDisk(t *testing.T) {
	m := newMemory(t)
	m.SetCapacity(1000)
	f := create(t, m, "/d/f")
	ok(t, f.Preallocate(600))
	if free := must[int64](t)(m.Free("/d")); free != 400 {
		t.Fatalf("free: %d", free)
	}
	must[int](t)(f.WriteAt(make([]byte, 600), 0)) // within what is reserved
	g := create(t, m, "/d/g")
	if _, err := g.WriteAt(make([]byte, 401), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write: %v", err)
	}
	if err := g.Preallocate(401); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("preallocate: %v", err)
	}
	ok(t, m.Remove("/d/f"))
	must[int](t)(g.WriteAt(make([]byte, 401), 0))
}

func TestSyncPoints(t *testing.T) {
	m := newMemory(t)
	f := create(t, m, "/d/f")
	var points []string
	var before []byte
	m.OnSync(func(n int, op vfs.Op, path string) {
		points = append(points, op.String()+" "+path)
		if n == 3 {
			before = readAll(t, m.CrashClone(0), "/d/f")
		}
	})
	must[int](t)(f.WriteAt([]byte("a"), 0))
	ok(t, f.Sync())
	ok(t, m.SyncDir("/d"))
	must[int](t)(f.WriteAt([]byte("b"), 0))
	ok(t, f.Sync())
	if want := []string{"fdatasync /d/f", "fsync folder /d", "fdatasync /d/f"}; !slices.Equal(points, want) {
		t.Fatalf("points %q", points)
	}
	if string(before) != "a" || m.Syncs() != 3 {
		t.Fatalf("at the third sync the disk held %q; %d syncs", before, m.Syncs())
	}
}

func TestFileReadsAndWritesInTurn(t *testing.T) {
	each(t, func(t *testing.T, fsys vfs.FS, dir string) {
		f := must[vfs.File](t)(fsys.Create(dir + "/f"))
		defer f.Close()
		must[int](t)(io.WriteString(f, "hello "))
		must[int](t)(io.WriteString(f, "world"))
		must[int64](t)(f.Seek(0, io.SeekStart))
		if b, err := io.ReadAll(f); err != nil || string(b) != "hello world" {
			t.Fatalf("%q, %v", b, err)
		}
		if n, err := f.ReadAt(make([]byte, 10), 6); n != 5 || err != io.EOF {
			t.Fatalf("short read: %d, %v", n, err)
		}
		ok(t, f.Truncate(4))
		if end := must[int64](t)(f.Seek(-1, io.SeekEnd)); end != 3 {
			t.Fatalf("end %d", end)
		}
		ro := must[vfs.File](t)(fsys.Open(dir + "/f"))
		if _, err := ro.WriteAt([]byte("x"), 0); err == nil {
			t.Error("a file opened for reading is written to")
		}
		ok(t, ro.Close())
		if err := ro.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		if _, err := ro.ReadAt(make([]byte, 1), 0); err == nil {
			t.Error("a closed file is read")
		}
	})
}

func TestMemoryFolders(t *testing.T) {
	m := vfs.NewMemory()
	if err := m.MkdirAll("/a/b"); err != nil {
		t.Fatal(err)
	}
	f, err := m.Create("/a/b/file")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove("/a"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove /a: %v", err)
	}
	if err := m.Remove("/a/b"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove /a/b: %v", err)
	}
	if err := m.MkdirAll("/ab"); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename("/a", "/ab"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename onto a folder: %v", err)
	}
	if err := m.Rename("/a", "/a.c"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat("/a.c/b/file"); err != nil {
		t.Error(err)
	}
	if _, err := m.Stat("/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old folder: %v", err)
	}
	if err := m.Remove("/ab"); err != nil {
		t.Error(err)
	}
	// The folder is there after a crash, its file never was.
	if names, err := m.CrashClone(0).List("/a.c/b"); err != nil || len(names) > 0 {
		t.Errorf("after a crash: %v, %v", names, err)
	}
}

func TestCopy(t *testing.T) {
	m := vfs.NewMemory()
	want := bytes.Repeat([]byte("0123456789"), 300_000)
	f, err := m.Create("/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	paced := 0
	var seen bytes.Buffer
	n, err := vfs.Copy(m, "/a", "/b", func(n int) error { paced += n; return nil }, &seen)
	if err != nil || n != int64(len(want)) || paced != len(want) || !bytes.Equal(seen.Bytes(), want) {
		t.Fatalf("copied %d, paced %d, %v", n, paced, err)
	}
	if err := m.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	after := m.CrashClone(0)
	g, err := after.Open("/b")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)+1)
	if n, _ := g.ReadAt(got, 0); !bytes.Equal(got[:n], want) {
		t.Error("the copy is not durable")
	}
	stop := errors.New("stop")
	if _, err := vfs.Copy(m, "/a", "/c", func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("copy: %v", err)
	}
}
