package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Frames of a segment as docs/format/log.md has them.
const (
	frameMagic      = "nar1"
	frameHead       = 48
	frameCheckpoint = 1
	frameFooter     = 5
)

// segments are the log's segment files, oldest first.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "data", "log", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// frameKinds walks the frames of a segment by their heads alone and gives
// their kinds, up to the first place that is no frame of this segment.
func frameKinds(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []byte
	var nonce uint64
	for len(b) >= frameHead && string(b[:4]) == frameMagic {
		length := int(binary.LittleEndian.Uint32(b[4:]))
		of := binary.LittleEndian.Uint64(b[16:])
		if len(kinds) == 0 {
			nonce = of
		}
		if of != nonce || length < frameHead {
			break
		}
		kinds = append(kinds, b[12])
		b = b[min((length+7)&^7, len(b)):]
	}
	return kinds
}

// rollLeft tells what of the log's files shows that the kill came while a
// segment was being followed by the next one; "" when nothing does.
func rollLeft(t testing.TB, dir string) string {
	t.Helper()
	all := segments(t, dir)
	if len(all) == 0 {
		return ""
	}
	newest := all[len(all)-1]
	name := filepath.Base(newest)
	switch kinds := frameKinds(t, newest); {
	case len(all) > 1 && len(kinds) == 1 && kinds[0] == frameCheckpoint:
		return name + " has its checkpoint only"
	case len(kinds) > 0 && kinds[len(kinds)-1] == frameFooter:
		return fmt.Sprintf("%s is sealed and has no successor", name)
	}
	return ""
}
