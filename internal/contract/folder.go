package contract

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// LookEvery is how often a folder of contracts is looked at. What has changed is
// taken over once two looks see the same: an editor may be writing it.
const LookEvery = 500 * time.Millisecond

// unread is the stamp of no folder.
const unread = "\x00"

// Folder keeps the contracts of a folder compiled while the files change. Set is
// safe for concurrent use, and so is State.
type Folder struct {
	fs     vfs.FS
	dir    string
	allow  func(*Set) error
	logger *slog.Logger
	now    func() time.Time

	set atomic.Pointer[Set]
	// Of Look alone.
	taken, seen string // stamps: of what was read last, of the last look

	mu struct {
		sync.Mutex
		state State
	}
}

// State is what a folder of contracts says of itself.
type State struct {
	Contracts int       // in force
	Loaded    time.Time // when they were read
	Taken     int       // changes taken over since the start
	Refused   int       // changes refused since the start
	// Broken is why what is in the folder is not in force; nil: it is.
	Broken error
	Since  time.Time // of Broken
}

// OpenFolder reads the contracts of a folder, which need not exist. Mistakes in
// them are an error, Problems, and so is what allow, unless it is nil, says against
// them: there is nothing older to go on with.
func OpenFolder(fsys vfs.FS, dir string, allow func(*Set) error, logger *slog.Logger) (*Folder, error) {
	f := &Folder{fs: fsys, dir: dir, allow: allow, logger: logger, now: time.Now}
	stamp, err := f.stamp()
	if err != nil {
		return nil, err
	}
	set, err := f.read()
	if err != nil {
		return nil, err
	}
	f.taken, f.seen = stamp, stamp
	f.take(set)
	f.mu.state.Taken = 0
	return f, nil
}

// Set gives the contracts that are in force. It never changes.
func (f *Folder) Set() *Set { return f.set.Load() }

// State says how many are in force, and whether a change was refused.
func (f *Folder) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.state
}

// Run takes over changes until ctx ends.
func (f *Folder) Run(ctx context.Context) error {
	tick := time.NewTicker(LookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.Look()
		case <-ctx.Done():
			return nil
		}
	}
}

// Look looks once whether the folder has changed. What is broken is refused: the
// contracts in force stay so, and State and the log say why.
func (f *Folder) Look() {
	stamp, err := f.stamp()
	if err == nil && stamp == f.taken {
		f.seen = stamp
		return
	}
	if err == nil && stamp != f.seen {
		f.seen = stamp
		return
	}
	var set *Set
	if err == nil {
		f.taken = stamp
		set, err = f.read()
	}
	if err != nil {
		if mistakes := (Problems{}); !errors.As(err, &mistakes) {
			f.taken = unread // what could not be read is read again
		}
		f.refuse(err)
		return
	}
	f.take(set)
	f.logger.Info("contracts changed", slog.Int("contracts", len(set.byType)))
}

func (f *Folder) read() (*Set, error) {
	files, err := Load(f.fs, f.dir)
	if err != nil {
		return nil, err
	}
	set, problems := Compile(files)
	if problems != nil {
		return nil, problems
	}
	if f.allow != nil {
		if err := f.allow(set); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func (f *Folder) take(set *Set) {
	f.set.Store(set)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.mu.state
	s.Contracts, s.Loaded, s.Broken, s.Since = len(set.byType), f.now().UTC(), nil, time.Time{}
	s.Taken++
}

// refuse keeps what is in force. A folder that cannot be read says so once.
func (f *Folder) refuse(err error) {
	f.mu.Lock()
	s := &f.mu.state
	again := s.Broken != nil && s.Broken.Error() == err.Error()
	if !again {
		s.Refused++
		s.Broken, s.Since = err, f.now().UTC()
	}
	f.mu.Unlock()
	if !again {
		f.logger.Error("contracts refused: those read before stay in force", slog.Any("error", err), slog.String("hint", CureOf(err)))
	}
}

// CureOf says what is to be done when contracts are refused for err.
func CureOf(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return hint
	}
	return "naru contract lint names what is wrong"
}

// stamp tells the files of the folder by name, size and time.
func (f *Folder) stamp() (string, error) {
	var b strings.Builder
	err := eachFile(f.fs, f.dir, filepath.Base(f.dir), 0, func(at, as string) error {
		if info, err := f.fs.Stat(at); err == nil { // else it has just gone, or is a dangling link
			fmt.Fprintf(&b, "%s\x00%d\x00%d\n", as, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // of a folder beneath it that goes just now, the next look knows
	}
	return b.String(), err
}
