package iceberg

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// The name of every file that naru writes below a table ends in the CRC-32C of
// the file's bytes (docs/design/0009-checksums.md). Whoever refers to a file so
// says what it holds: the catalog's row vouches for the metadata file, that for
// the manifest lists, those for the manifests, and those for the data files.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

var (
	summedFile     = regexp.MustCompile(`^naru-[0-9a-f]{12}-[0-9]+-([0-9a-f]{8})\.(?:parquet|avro)$`)
	summedMetadata = regexp.MustCompile(`^[0-9]{5,}-6e617275-([0-9a-f]{4})-8([0-9a-f]{3})-b([0-9a-f])[0-9a-f]{2}-[0-9a-f]{12}\.metadata\.json$`)
)

// nameSum returns the checksum that a file's name promises; ok is false for
// files of other engines and of naru before it had checksums.
func nameSum(name string) (sum uint32, ok bool) {
	name = path.Base(name)
	var digits string
	if m := summedFile.FindStringSubmatch(name); m != nil {
		digits = m[1]
	} else if m := summedMetadata.FindStringSubmatch(name); m != nil {
		digits = m[1] + m[2] + m[3]
	} else {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return uint32(n), err == nil
}

// withSum puts a checksum behind the name and before its ending.
func withSum(name string, sum uint32) string {
	ending := path.Ext(name)
	return fmt.Sprintf("%s-%08x%s", strings.TrimSuffix(name, ending), sum, ending)
}

// verify holds a file's bytes against its name.
func verify(name string, b []byte) error {
	want, ok := nameSum(name)
	if !ok {
		return nil
	}
	if got := sumOf(b); got != want {
		return wrongSum(name, got, want)
	}
	return nil
}

func wrongSum(name string, got, want uint32) error {
	return &fault.Corrupt{Path: name, Offset: -1, Reason: fmt.Sprintf("the CRC-32C of its bytes is %08x, its name says %08x", got, want)}
}

// verifiedFile is a small file that was read whole and held against its name.
type verifiedFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (f verifiedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f verifiedFile) Close() error               { return nil }

// openVerified reads what has a checksum in its name and is read whole anyway:
// metadata, manifest lists and manifests. Data files are streamed by their
// readers, so of them only Check knows.
func openVerified(fsys vfs.FS, p string) (verifiedFile, error) {
	f, err := fsys.Open(p)
	if err != nil {
		return verifiedFile{}, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // the first error tells more
		return verifiedFile{}, err
	}
	b, err := readAll(f)
	if err == nil {
		err = verify(p, b)
	}
	return verifiedFile{bytes.NewReader(b), info}, err
}
