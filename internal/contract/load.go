package contract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"naru/internal/vfs"
)

// maxFolders is how deep folders are looked through.
const maxFolders = 8

// Load reads the files of a folder and of those beneath it that Compile wants,
// named from the folder's own name on, as in contracts/web/page.odcs.yaml. A
// folder that does not exist has none. Names that begin with a dot are passed
// over.
func Load(fsys vfs.FS, dir string) ([]File, error) {
	l := &folderReader{fs: fsys}
	err := eachFile(fsys, dir, filepath.Base(dir), 0, l.file)
	if errors.Is(err, fs.ErrNotExist) && l.files == nil {
		return nil, nil
	}
	return l.files, err
}

// reference is what may be the name of a JSON Schema in a file.
var reference = regexp.MustCompile(`[\p{L}\p{N}_./-]+\.json`)

// LoadFile reads one file, and the JSON Schemas that it seems to refer to.
func LoadFile(fsys vfs.FS, name string) ([]File, error) {
	l := &folderReader{fs: fsys}
	if err := l.file(name, filepath.ToSlash(filepath.Clean(name))); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := 0; i < len(l.files); i++ {
		f := l.files[i]
		for _, ref := range reference.FindAllString(string(f.Data), MaxFiles) {
			as := path.Join(path.Dir(f.Name), ref)
			if seen[as] || strings.Contains(ref, "//") {
				continue
			}
			seen[as] = true
			if err := l.file(filepath.FromSlash(as), as); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return l.files, nil
}

type folderReader struct {
	fs    vfs.FS
	files []File
	total int
}

// eachFile calls fn for the files of a folder, and of those beneath it, that Compile
// wants: where each is, and its name.
func eachFile(fsys vfs.FS, dir, name string, depth int, fn func(at, as string) error) error {
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("read contracts: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, ".") {
			continue
		}
		at, as := filepath.Join(dir, n), path.Join(name, n)
		if IsContract(n) || strings.HasSuffix(n, ".json") {
			if err := fn(at, as); err != nil {
				return err
			}
			continue
		}
		info, err := fsys.Stat(at)
		if err != nil || !info.IsDir() {
			continue // a README, a dangling link
		}
		if depth == maxFolders {
			return fmt.Errorf("read contracts: %s: folders are nested deeper than %d", at, maxFolders)
		}
		if err := eachFile(fsys, at, as, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

func (l *folderReader) file(at, as string) error {
	if len(l.files) == MaxFiles {
		return fmt.Errorf("read contracts: more than %d files", MaxFiles)
	}
	f, err := l.fs.Open(at)
	if err != nil {
		return fmt.Errorf("read contract: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1)) // Compile says what is too large
	if err != nil {
		return fmt.Errorf("read contract %s: %w", at, err)
	}
	if l.total += len(text); l.total > MaxTotal {
		return fmt.Errorf("read contracts: more than %d MiB in all files together", MaxTotal>>20)
	}
	l.files = append(l.files, File{Name: as, Data: text})
	return nil
}
