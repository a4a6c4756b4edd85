package vfs

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// SectorSize is what a disk writes in one piece: a torn write is torn here.
const SectorSize = 512

// CrashClone returns what a disk may hold when the power goes now: all that is
// durable, and of the rest any part that the seed chooses. Writes are torn at
// sector borders, and a later one may have reached the disk without an earlier
// one; so may entries of folders. Locks and rules are gone. The file system
// itself is not changed.
//
// Seed 0 keeps nothing that was not durable, seed 1 everything.
func (m *Memory) CrashClone(seed uint64) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newCut(seed)
	clone := m.emptyClone()
	inodes := map[*inode]*inode{}
	for _, dir := range slices.Sorted(maps.Keys(m.mu.dirs)) { // in one order, for the seed's sake
		d := m.mu.dirs[dir]
		entries := maps.Clone(d.durable)
		for _, e := range c.entries(d.pending) {
			switch {
			case e.ino == nil:
				delete(entries, e.name)
			default:
				// A file has one name: that a later rename survived without an
				// earlier one does not leave it two.
				maps.DeleteFunc(entries, func(_ string, ino *inode) bool { return ino == e.ino })
				entries[e.name] = e.ino
			}
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			old := entries[name]
			if inodes[old] == nil {
				b := bytes.Clone(old.durable)
				for _, part := range c.changes(old.pending) {
					b = part.apply(b)
				}
				inodes[old] = &inode{durable: b, live: bytes.Clone(b), modified: old.modified, name: path.Join(dir, name)}
			}
			clone.mu.dirs[dir].link(name, inodes[old])
		}
	}
	return clone
}

// KillClone returns what the system shows when the process dies now, as by
// SIGKILL: everything written, with what was not durable still not durable.
// Locks and rules are gone.
func (m *Memory) KillClone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	clone := m.emptyClone()
	inodes := map[*inode]*inode{}
	copied := func(old *inode) *inode {
		if old == nil {
			return nil
		}
		if inodes[old] == nil {
			inodes[old] = &inode{durable: bytes.Clone(old.durable), live: bytes.Clone(old.live), pending: slices.Clone(old.pending), modified: old.modified, name: old.name}
		}
		return inodes[old]
	}
	for dir, d := range m.mu.dirs {
		to := clone.mu.dirs[dir]
		for name, ino := range d.durable {
			to.durable[name] = copied(ino)
		}
		for name, ino := range d.live {
			to.live[name] = copied(ino)
		}
		for _, e := range d.pending {
			to.pending = append(to.pending, entryChange{name: e.name, from: e.from, ino: copied(e.ino)})
		}
	}
	return clone
}

func (m *Memory) emptyClone() *Memory {
	clone := NewMemory()
	clone.mu.capacity = m.mu.capacity
	for dir := range m.mu.dirs {
		clone.mu.dirs[dir] = newFolder()
	}
	return clone
}

func (d *folder) link(name string, ino *inode) {
	d.durable[name], d.live[name] = ino, ino
}

// cut decides what survives. Some crashes keep a beginning of what happened,
// as a journal does, some any part of it: both kinds find bugs of their own.
type cut struct {
	rng    *rand.Rand
	keep   float64 // probability that a piece survives
	prefix bool
}

func newCut(seed uint64) *cut {
	c := &cut{rng: rand.New(rand.NewPCG(seed, 0x6e617275))}
	switch seed {
	case 0:
		c.keep = 0
	case 1:
		c.keep = 1
	default:
		c.keep = []float64{0.1, 0.5, 0.9, 0.98}[c.rng.IntN(4)]
		c.prefix = c.rng.IntN(2) == 0
	}
	return c
}

func (c *cut) survives() bool { return c.keep > 0 && (c.keep >= 1 || c.rng.Float64() < c.keep) }

func (c *cut) entries(all []entryChange) []entryChange {
	if c.prefix && len(all) > 0 {
		return all[:c.rng.IntN(len(all)+1)]
	}
	var kept []entryChange
	for _, e := range all {
		if c.survives() {
			kept = append(kept, e)
		}
	}
	return kept
}

func (c *cut) changes(all []change) []change {
	if c.prefix && len(all) > 0 {
		all = all[:c.rng.IntN(len(all)+1)]
		if len(all) == 0 {
			return nil
		}
		// The last one is torn, those before it are whole.
		last := len(all) - 1
		return append(slices.Clone(all[:last]), c.sectors(all[last])...)
	}
	var kept []change
	for _, ch := range all {
		kept = append(kept, c.sectors(ch)...)
	}
	return kept
}

// sectors returns what survives of one change.
func (c *cut) sectors(ch change) []change {
	if ch.data == nil {
		if c.survives() {
			return []change{ch}
		}
		return nil
	}
	var kept []change
	for off, b := ch.off, ch.data; len(b) > 0; {
		n := min(int64(len(b)), SectorSize-off%SectorSize)
		if c.survives() {
			kept = append(kept, change{off: off, data: b[:n]})
		}
		off, b = off+n, b[n:]
	}
	return kept
}
