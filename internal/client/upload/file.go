package upload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"naru/internal/vfs"
)

// fingerprinted is how much of an input its ids are made of.
const fingerprinted = 1 << 20

// IDPrefix is what the ids of an input's records begin with: its name, its
// size and what its first MiB hashes to. So the same file sent again gives the
// same ids from any folder and machine, and a changed one does not.
func IDPrefix(name string, size int64, content io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(content, fingerprinted)); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	base := strings.ToValidUTF8(filepath.Base(name), "_")
	if r := []rune(base); len(r) > 60 {
		base = string(r[:60])
	}
	return fmt.Sprintf("%s:%d:%s:", base, size, hex.EncodeToString(h.Sum(nil)[:8])), nil
}

// StatePath is where the state of an upload stands in dir.
func StatePath(dir string, key Key) (string, error) {
	key.Modified = key.Modified.UTC()
	text, err := json.Marshal(key)
	if err != nil {
		return "", fmt.Errorf("name state: %w", err)
	}
	sum := sha256.Sum256(text)
	return filepath.Join(dir, hex.EncodeToString(sum[:12])+".json"), nil
}

// readFile reads a small file whole.
func readFile(fsys vfs.FS, path string) (text []byte, err error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
