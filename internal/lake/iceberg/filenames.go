package iceberg

import (
	"crypto/rand"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"naru/internal/lake"
	"naru/internal/lake/columnar"
)

// Every file below a table carries its writer: the orphan collector removes
// only what naru has written, in an earlier life.
//
//	data/_time_day=2015-09-12/naru-<writer>-<n>.parquet
//	metadata/naru-<writer>-<n>.avro                       manifests and manifest lists
//	metadata/00012-6e617275-XXXX-8XXX-aXXX-<writer>.metadata.json
//
// The third is a UUID of version 8: "naru" in ASCII, random digits, the writer.
// Other engines want a version and a UUID there.
var (
	ownFile     = regexp.MustCompile(`^naru-([0-9a-f]{12})-[0-9]+\.(?:parquet|avro)(?:\.tmp)?$`)
	ownMetadata = regexp.MustCompile(`^[0-9]{5,}-6e617275-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-([0-9a-f]{12})\.metadata\.json(?:\.tmp)?$`)
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

func (l *Lake) dataPath(location string, day int32) string {
	date := time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly)
	return fmt.Sprintf("%s/data/%s=%s/naru-%s-%06d.parquet", location, columnar.DayField, date, l.writer, l.nextFile())
}

func (l *Lake) manifestPath(location string) string {
	return fmt.Sprintf("%s/metadata/naru-%s-%06d.avro", location, l.writer, l.nextFile())
}

func (l *Lake) metadataPath(location string, version int) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%s/metadata/%05d-6e617275-%02x%02x-8%03x-a%03x-%s.metadata.json", location, version,
		b[0], b[1], uint16(b[2])<<4|uint16(b[3])>>4, uint16(b[3]&0xf)<<8|uint16(b[4]), l.writer)
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
