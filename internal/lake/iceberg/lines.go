package iceberg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"naru/internal/fault"
)

// linesHead is the first line of a file of JSON lines: the checksum of all that
// follows. Files of naru before it had checksums begin with their first object.
type linesHead struct {
	Sum  string `json:"crc32c"`
	File string `json:"file"` // its own name: another such file in its place is noticed
}

const linesPrefix = `{"crc32c":`

// checkLines holds such a file against its first line; summed is false when it
// has none.
func checkLines(name string, b []byte) (summed bool, err error) {
	first, rest, whole := bytes.Cut(b, []byte("\n"))
	bad := func(reason string) error { return &fault.Corrupt{Path: name, Offset: -1, Reason: reason} }
	if !whole || len(b) == 0 {
		return false, bad("its first line is not whole")
	}
	if !bytes.HasPrefix(first, []byte(linesPrefix)) {
		if bytes.HasPrefix(first, []byte(`{"table":`)) {
			return false, nil
		}
		return false, bad("its first line is not a checksum")
	}
	var head linesHead
	if err := strict(first, &head); err != nil {
		return false, bad("its first line is not a checksum: " + err.Error())
	}
	// The decoder takes keys in any case, and the checksum is not over this line.
	if same, err := json.Marshal(head); err != nil || !bytes.Equal(same, first) {
		return false, bad("its first line is not as naru writes it")
	}
	if head.File != filepath.Base(name) {
		return false, bad("its first line says that it is " + head.File)
	}
	if got := fmt.Sprintf("%08x", sumOf(rest)); got != head.Sum {
		return false, bad(fmt.Sprintf("the CRC-32C of its lines is %s, the first one says %s", got, head.Sum))
	}
	return true, nil
}

// checkLines knows of one more: naru before it had checksums left refused.json
// empty when the last refusal was taken back. Whoever opens such a lake to write
// replaces the file before it makes streams.json (renewRefusals).
func (l *Lake) checkLines(name string, b []byte) (summed bool, err error) {
	if len(b) == 0 && filepath.Base(name) == RefusedFile {
		if _, err := l.fs.Stat(filepath.Join(l.root, streamsFile)); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
	}
	return checkLines(name, b)
}

func strict(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// readLines reads a file of the lake that holds one JSON object a line; a file
// that is not there holds none.
func readLines[T any](l *Lake, name string) ([]T, error) {
	p := filepath.Join(l.root, name)
	b, err := l.io.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	summed, err := l.checkLines(p, b)
	if err != nil {
		return nil, fault.WithHint(err, "%s", cureOf(CheckedFile{Kind: KindLake, Path: p}))
	}
	text := string(b)
	if summed {
		_, text, _ = strings.Cut(text, "\n")
	}
	var all []T
	for line := range strings.Lines(text) {
		var one T
		if err := strict([]byte(line), &one); err != nil {
			return nil, &fault.Corrupt{Path: p, Offset: -1, Reason: err.Error()}
		}
		all = append(all, one)
	}
	return all, nil
}

// writeLines replaces such a file, durably.
func writeLines[T any](l *Lake, name string, all []T) error {
	b, err := linesOf(name, all)
	if err != nil {
		return err
	}
	return l.io.WriteFile(filepath.Join(l.root, name), b)
}

// linesOf is the content of such a file.
func linesOf[T any](name string, all []T) ([]byte, error) {
	var b bytes.Buffer
	for _, one := range all {
		line, err := json.Marshal(one)
		if err != nil {
			return nil, err
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	head, err := json.Marshal(linesHead{Sum: fmt.Sprintf("%08x", sumOf(b.Bytes())), File: name})
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), b.Bytes()...), nil
}
