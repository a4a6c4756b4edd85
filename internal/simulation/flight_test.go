package simulation

import (
	"path"
	"strings"
	"sync"

	"naru/internal/lake"
	"naru/internal/vfs"
)

// What may be in flight at a cut. A run of some length must meet each of them.
const (
	flyAppend   = "append written, not synced"
	flyPromise  = "promise written, not synced"
	flyRoll     = "roll to a new segment"
	flyTrim     = "segment dropped by retention"
	flyLogOpen  = "recovery of the log"
	flyLakeOpen = "opening of the lake"
	flyFiles    = "data files written, table not swapped"
	flyMetadata = "metadata synced, table not swapped"
	flySwap     = "table swapped, watermark not appended"
	flyExpiry   = "files of old snapshots removed"
	flyRewrite  = "files of a promoted column rewritten"
	flyDrain    = "last commits of a stop"
	flyClaims   = "claims of tables replaced"
)

var allKinds = []string{flyAppend, flyPromise, flyRoll, flyTrim, flyLogOpen, flyLakeOpen, flyFiles, flyMetadata, flySwap, flyExpiry, flyRewrite, flyDrain, flyClaims}

// flight knows what is going on, from the operations alone.
type flight struct {
	*flightState
}

type flightState struct {
	mu      sync.Mutex
	phase   string
	dirty   map[string]int // segments: bytes of the write that is not synced
	rolling bool
	ops     int
	trimmed int // op at which a segment was dropped
	removed int // op at which a file of the lake was removed
	files   map[string]bool
	meta    map[string]bool
	rewrite bool
	claims  bool
	marks   map[string]bool // streams with swaps behind their watermark
}

func newFlight() flight {
	return flight{&flightState{dirty: map[string]int{}, files: map[string]bool{}, meta: map[string]bool{}, marks: map[string]bool{},
		trimmed: -10, removed: -10}}
}

// in sets the phase of the process: opening something, running, stopping.
func (f *flightState) in(phase string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
}

const (
	headSize = 48 // of a frame: all of a promise
	recently = 3  // operations
)

func (f *flightState) begin(op vfs.Op, name string, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	base := path.Base(name)
	switch {
	case op == vfs.OpWrite && strings.HasPrefix(name, logDir):
		f.dirty[name] = size
	case op == vfs.OpOpen && strings.HasPrefix(base, "free-") && f.phase == "":
		f.rolling = true
	case op == vfs.OpRemove && strings.HasSuffix(base, ".seg"):
		f.trimmed = f.ops
	case op == vfs.OpRemove && strings.HasPrefix(name, lakeDir) && f.phase == "":
		f.removed = f.ops
	case op == vfs.OpCreate && strings.HasSuffix(base, ".parquet.tmp"):
		f.files[tableOf(name)] = true
	case op == vfs.OpOpen && strings.HasSuffix(base, ".parquet"):
		f.rewrite = true
	case op == vfs.OpCreate && base == "claims.json.tmp":
		f.claims = true
	}
}

func (f *flightState) done(op vfs.Op, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case op == vfs.OpSync:
		delete(f.dirty, name)
	case op == vfs.OpSyncDir && name == logDir:
		f.rolling = false
	case op == vfs.OpSyncDir && name == lakeDir:
		f.claims = false
	}
}

func (f *flightState) renamed(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case strings.HasSuffix(from, ".seg"):
		f.trimmed = f.ops
	case strings.HasSuffix(to, ".metadata.json"):
		f.meta[tableOf(to)] = true
	}
}

func (f *flightState) swapped(t lake.Ident) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.files, t.String())
	delete(f.meta, t.String())
	f.rewrite = false
	f.marks[t.Namespace] = true
}

func (f *flightState) marked(stream string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.marks, stream)
}

func tableOf(name string) string {
	parts := strings.Split(strings.TrimPrefix(name, lakeDir+"/"), "/")
	if len(parts) < 2 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

func (f *flightState) names() (on []string) {
	for _, kind := range allKinds {
		if f.on(kind) {
			on = append(on, kind)
		}
	}
	return on
}

func (f *flightState) on(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	written := func(promise bool) bool {
		for _, size := range f.dirty {
			if promise == (size == headSize) {
				return true
			}
		}
		return false
	}
	switch kind {
	case flyAppend:
		return f.phase == "" && written(false)
	case flyPromise:
		return f.phase == "" && written(true)
	case flyRoll:
		return f.rolling
	case flyTrim:
		return f.ops-f.trimmed <= recently
	case flyExpiry:
		return f.ops-f.removed <= recently
	case flyFiles:
		return len(f.files) > 0
	case flyMetadata:
		return len(f.meta) > 0
	case flySwap:
		return len(f.marks) > 0
	case flyRewrite:
		return f.rewrite
	case flyClaims:
		return f.claims
	}
	return f.phase == kind
}
