package iceberg

import (
	"crypto/rand"
	"fmt"
	"path"
	"regexp"
	"strings"

	"naru/internal/lake"
)

// Every file below a table carries its writer: the orphan collector removes
// only what naru has written, in an earlier life.
//
//	data/_time_day=2015-09-12/naru-<writer>-<n>-<sum>.parquet
//	metadata/naru-<writer>-<n>-<sum>.avro                 manifests and manifest lists
//	metadata/00012-6e617275-SSSS-8SSS-bSXX-<writer>.metadata.json
//
// <sum> and S are the CRC-32C of the file (sums.go). The third is a UUID of
// version 8: "naru" in ASCII, the checksum, two random digits, the writer. Other
// engines want a version and a UUID there. Before there were checksums, the first
// two had none and the third random digits behind an a.
var (
	ownFile     = regexp.MustCompile(`^naru-([0-9a-f]{12})-[0-9]+(?:-[0-9a-f]{8})?\.(?:parquet|avro)(?:\.tmp)?$`)
	ownMetadata = regexp.MustCompile(`^[0-9]{5,}-6e617275-[0-9a-f]{4}-8[0-9a-f]{3}-[ab][0-9a-f]{3}-([0-9a-f]{12})\.metadata\.json(?:\.tmp)?$`)
)

// writerOf returns who wrote a file; "" when it was not naru.
func writerOf(name string) string {
	if m := ownFile.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	if m := ownMetadata.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// dataPath names a data file that is to be written, in the folder of its partition,
// which is empty for none; the checksum is added when it is closed.
func (l *Lake) dataPath(location, folder string) string {
	return path.Join(location, "data", folder, fmt.Sprintf("naru-%s-%06d%s", l.writer, l.nextFile(), dataSuffix))
}

// manifestPath names a manifest, or a list of them, that holds b.
func (l *Lake) manifestPath(location string, b []byte) string {
	return withSum(fmt.Sprintf("%s/metadata/naru-%s-%06d.avro", location, l.writer, l.nextFile()), sumOf(b))
}

// metadataPath names a metadata file that holds b.
func (l *Lake) metadataPath(location string, version int, b []byte) string {
	var random [1]byte
	_, _ = rand.Read(random[:]) // never fails
	sum := sumOf(b)
	return fmt.Sprintf("%s/metadata/%05d-6e617275-%04x-8%03x-b%x%02x-%s.metadata.json", location, version,
		sum>>16, sum>>4&0xfff, sum&0xf, random[0], l.writer)
}

// metadataVersion is the number that begins a metadata file's name, in both
// ways of writing it; 0 when there is none.
func metadataVersion(location string) int {
	v := 0
	for _, c := range strings.TrimPrefix(path.Base(location), "v") {
		if c < '0' || c > '9' || v > 1<<30 {
			break
		}
		v = v*10 + int(c-'0')
	}
	return v
}

func (l *Lake) tableFolder(t lake.Ident) string { return l.root + "/" + t.Namespace + "/" + t.Name }
