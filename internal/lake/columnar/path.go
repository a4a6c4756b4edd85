package columnar

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendPath puts a key behind a path: '.' between keys, '.' and '\' inside a
// key escaped with '\'. first says that the key opens the path.
func appendPath(path []byte, key []byte, first bool) []byte {
	if !first {
		path = append(path, '.')
	}
	for _, c := range key {
		if c == '.' || c == '\\' {
			path = append(path, '\\')
		}
		path = append(path, c)
	}
	return path
}

// splitPath gives the keys of a path.
func splitPath(path string) []string {
	var keys []string
	var key []byte
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path):
			i++
			key = append(key, path[i])
		case c == '.':
			keys = append(keys, string(key))
			key = key[:0]
		default:
			key = append(key, c)
		}
	}
	return append(keys, string(key))
}

// columnName is the column that a path asks for: its keys joined with '_'.
func columnName(path string) string { return strings.Join(splitPath(path), "_") }

// fitKey tells whether a key may be part of a column name: not empty, and
// free of control characters, which SQL, Avro and terminals cannot take.
func fitKey(key string) bool {
	if key == "" {
		return false
	}
	for _, r := range key {
		if r < utf8.RuneSelf && (r < 0x20 || r == 0x7f) || unicode.IsControl(r) {
			return false
		}
	}
	return utf8.ValidString(key)
}
