package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// watcher reports what happens in a tree of folders as it happens: the aim of
// a kill that has to hit a moment which lasts a few milliseconds.
type watcher struct {
	file *os.File
	fd   int
	done chan struct{}

	mu struct {
		sync.Mutex
		folders map[int32]string
		seen    func(path string, mask uint32) // called on the reading goroutine
	}
}

const watched = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE

// watch follows root and the folders below it, new ones included. seen is
// called for every event, on one goroutine.
func watch(t testing.TB, root string, seen func(path string, mask uint32)) *watcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatalf("start inotify: %v", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, done: make(chan struct{})}
	w.mu.folders = map[int32]string{}
	w.mu.seen = seen
	w.add(root)
	go w.read()
	return w
}

// add watches dir and what is below it. Folders that are gone by now are left out.
func (w *watcher) add(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		wd, err := unix.InotifyAddWatch(w.fd, path, watched)
		if err == nil {
			w.mu.Lock()
			w.mu.folders[int32(wd)] = path
			w.mu.Unlock()
		}
		return nil
	})
}

func (w *watcher) read() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return // closed
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b[0:]))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := binary.NativeEndian.Uint32(b[12:])
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
			w.mu.Lock()
			path := filepath.Join(w.mu.folders[wd], name)
			seen := w.mu.seen
			w.mu.Unlock()
			if mask&unix.IN_ISDIR != 0 {
				if mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
					w.add(path)
				}
				continue
			}
			seen(path, mask)
		}
	}
}

// close ends the watch; seen is not called any more once it has returned.
func (w *watcher) close() {
	if err := w.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		panic(err)
	}
	<-w.done
}
