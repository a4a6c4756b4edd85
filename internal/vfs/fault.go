package vfs

import (
	"errors"
	"io"
	"path"
	"strings"
	"syscall"
)

// Op is a set of operations.
type Op uint32

// The operations of FS and File.
const (
	OpCreate Op = 1 << iota
	OpOpen
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpAllocate
	OpClose
	OpRename
	OpRemove
	OpMkdir
	OpList
	OpStat
	OpSyncDir
	OpLock
	OpFree

	OpAny Op = 1<<iota - 1
)

var opNames = []string{"create", "open", "read", "write", "fdatasync", "truncate", "fallocate", "close",
	"rename", "remove", "mkdir", "list", "stat", "fsync folder", "lock", "statfs"}

func (o Op) String() string {
	var names []string
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// ErrInjected is the default error of a rule: an I/O error.
var ErrInjected error = syscall.EIO

// Rule makes calls on a Memory fail.
type Rule struct {
	Ops Op
	// Pattern is matched (path.Match) with the last element of the path that the
	// file has now; for a rename with the old one. Empty matches all.
	Pattern string
	Skip    int // so many matching calls succeed first
	Times   int // so many fail then; 0 means all
	// Err is the cause that the *fs.PathError carries: ErrInjected by default.
	// syscall.ENOSPC is a full disk; io.ErrShortWrite lets a write store its
	// first half.
	Err error

	seen, hits int
}

// Inject adds a rule. The first one that matches and is due decides.
func (m *Memory) Inject(r Rule) *Rule {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Err == nil {
		r.Err = ErrInjected
	}
	m.mu.rules = append(m.mu.rules, &r)
	return &r
}

// Heal removes all rules.
func (m *Memory) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.rules = nil
}

// Hits tells how many calls a rule has made fail.
func (m *Memory) Hits(r *Rule) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.hits
}

// fault returns the error that the rules have for a call. The caller holds the lock.
func (m *Memory) fault(op Op, name string) error {
	for _, r := range m.mu.rules {
		if r.Ops&op == 0 {
			continue
		}
		if r.Pattern != "" {
			if match, err := path.Match(r.Pattern, path.Base(name)); err != nil || !match {
				continue
			}
		}
		if r.seen++; r.seen <= r.Skip || (r.Times > 0 && r.hits >= r.Times) {
			continue
		}
		r.hits++
		return failed(op, name, r.Err)
	}
	return nil
}

func short(err error) bool { return errors.Is(err, io.ErrShortWrite) }
