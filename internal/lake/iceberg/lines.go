package iceberg

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
)

// readLines reads a file of the lake that holds one JSON object a line; a file
// that is not there holds none.
func readLines[T any](l *Lake, name string) ([]T, error) {
	b, err := l.io.ReadFile(filepath.Join(l.root, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []T
	for line := range strings.Lines(string(b)) {
		var one T
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// writeLines replaces such a file, durably.
func writeLines[T any](l *Lake, name string, all []T) error {
	var b strings.Builder
	for _, one := range all {
		line, err := json.Marshal(one)
		if err != nil {
			return err
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return l.io.WriteFile(filepath.Join(l.root, name), []byte(b.String()))
}
