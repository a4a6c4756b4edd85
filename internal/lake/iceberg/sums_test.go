package iceberg

import (
	"bytes"
	"hash/crc32"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
)

func TestNamesCarryChecksums(t *testing.T) {
	w := newWorld(t)
	b := []byte("some bytes")
	want := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	names := []string{w.lake.manifestPath("/t", b), w.lake.metadataPath("/t", 3, b), w.lake.metadataPath("/t", 123456, b)}
	out, err := w.lake.CreateFile(w.lake.dataPath("/t", ""))
	require.NoError(t, err)
	_, err = out.Write(b[:4])
	require.NoError(t, err)
	_, err = out.Write(b[4:])
	require.NoError(t, err)
	require.NoError(t, out.Close())
	require.True(t, w.exists(out.Path()))
	for _, name := range append(names, out.Path()) {
		sum, ok := nameSum(name)
		require.True(t, ok, name)
		require.Equal(t, want, sum, name)
		require.Equal(t, w.lake.writer, writerOf(path.Base(name)), name)
		require.Equal(t, w.lake.writer, writerOf(path.Base(name)+tempSuffix), name)
		require.NoError(t, verify(name, b))
		var bad *fault.Corrupt
		require.ErrorAs(t, verify(name, []byte("some other bytes")), &bad)
		require.Equal(t, name, bad.Path)
	}
	// Names of naru before it had checksums, and of others, promise nothing.
	for _, name := range []string{"naru-0123456789ab-000001.parquet", "naru-0123456789ab-000001.avro",
		"00012-6e617275-1234-8123-a123-0123456789ab.metadata.json", "00012-2f3c9c1e-8d1e-4c1f-9a43-0123456789ab.metadata.json",
		"snap-1-2-3.avro", "naru-0123456789ab-000001-12345678.parquet.tmp"} {
		_, ok := nameSum(name)
		require.False(t, ok, name)
		require.NoError(t, verify(name, b))
	}
}

// Every file that a commit writes says in its name what it holds.
func TestAllFilesOfCommitsHaveChecksums(t *testing.T) {
	w := newWorld(t)
	w.add(1)
	w.add(2)
	n := 0
	for _, ending := range []string{".parquet", ".avro", ".json"} {
		for _, p := range w.names(ending) {
			_, ok := nameSum(p)
			require.True(t, ok, p)
			n++
		}
	}
	require.Equal(t, 2*4, n)
}

// Naru before it had checksums left an empty file when the last refusal was
// taken back.
func TestNoRefusalsLeft(t *testing.T) {
	w := newWorld(t)
	p := w.lake.root + "/" + RefusedFile
	require.NoError(t, w.lake.io.WriteFile(p, nil))
	refused, err := w.lake.Refusal(views)
	require.NoError(t, err)
	require.Nil(t, refused)
	require.NoError(t, w.lake.Check(t.Context(), CheckOptions{}, func(f CheckedFile) error {
		require.False(t, f.Bad(), f.Path)
		return nil
	}))
	w.open2(t)
	require.NoError(t, w.lake.ReloadStream("events"))
	require.NoError(t, w.lake.Refuse(views, at(7)))
	require.NoError(t, w.lake.Refuse(views, nil))
	refused, err = w.lake.Refusal(views)
	require.NoError(t, err)
	require.Nil(t, refused)
	require.NoError(t, w.lake.Check(t.Context(), CheckOptions{}, func(f CheckedFile) error {
		require.False(t, f.Bad(), f.Path)
		return nil
	}))
	// From then on an empty file is damage.
	var bad *fault.Corrupt
	require.NoError(t, w.lake.io.WriteFile(p, nil))
	_, err = w.lake.Refusal(views)
	require.ErrorAs(t, err, &bad)
	w.open2(t)
	_, err = w.lake.Refusal(views)
	require.ErrorAs(t, err, &bad)
	require.NoError(t, w.lake.io.WriteFile(w.lake.root+"/"+streamsFile, nil))
	_, err = w.lake.Loading()
	require.ErrorAs(t, err, &bad)
}

// Each bit of a first line counts, also one that only makes a letter a capital.
func TestFirstLineIsHeldByteByByte(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.lake.MoveMark("events", at(3)))
	path := filepath.Join(w.lake.root, MarksFile)
	text, err := w.lake.io.ReadFile(path)
	require.NoError(t, err)
	summed, err := checkLines(path, text)
	require.NoError(t, err)
	require.True(t, summed)
	for i := range bytes.IndexByte(text, '\n') + 1 {
		for bit := range 8 {
			bad := bytes.Clone(text)
			bad[i] ^= 1 << bit
			_, err := checkLines(path, bad)
			require.Error(t, err, "byte %d, bit %d: %s", i, bit, bad)
		}
	}
}
