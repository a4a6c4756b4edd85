package iceberg

import (
	"bytes"
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake"
	"naru/internal/vfs"
)

// Nothing in a copy for another place leads back to the original: whoever works
// on the copy must not read or remove the original's files.
func TestMovedCopyForgetsItsOrigin(t *testing.T) {
	here, there := filepath.Join(t.TempDir(), "the-original"), filepath.Join(t.TempDir(), "new")
	l, err := Open(t.Context(), DefaultConfig(), vfs.OS(), here, quiet)
	require.NoError(t, err)
	h := l.Table(views)
	s := load(t, h)
	for i := range 4 {
		s, err = h.Commit(t.Context(), work(t, h, s, 3, int64(3*i+3)))
		require.NoError(t, err)
	}
	_, _, err = l.Claim(t.Context(), lake.Ident{Namespace: "events", Name: "promised"}, nil)
	require.NoError(t, err)
	require.NoError(t, l.ReloadStream("events"))
	other, err := sql.Open("sqlite", filepath.Join(here, "catalog.db"))
	require.NoError(t, err)
	for _, q := range []string{
		`INSERT INTO iceberg_namespace_properties VALUES ('naru', 'events', 'location', 'file://` + here + `/lake/events')`,
		`INSERT INTO iceberg_namespace_properties VALUES ('naru', 'theirs', 'location', 's3://bucket/theirs')`,
		`INSERT INTO iceberg_tables VALUES ('naru', 'theirs', 'a_view', 'file://` + here + `/lake/theirs/a_view/metadata/1.json', 'file://` + here + `/lake/theirs/a_view/metadata/0.json', 'VIEW')`,
		`INSERT INTO iceberg_tables VALUES ('theirs', 'theirs', 'far', 's3://bucket/far', NULL, 'TABLE')`,
	} {
		_, err := other.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
	require.NoError(t, other.Close())
	made, err := l.Copy(t.Context(), CopyOptions{To: there, Root: there, Pace: func(int) error { return nil }, Room: func(int64) error { return nil }})
	require.NoError(t, err)
	require.Len(t, made.Strangers, 2)
	require.NoError(t, l.Close())

	files := 0
	require.NoError(t, filepath.WalkDir(there, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		require.NotContains(t, p, "the-original")
		if at := bytes.Index(b, []byte(here)); at >= 0 {
			t.Errorf("%s names the original at byte %d: %q", p, at, b[at:min(at+100, len(b))])
		}
		return nil
	}))
	require.Greater(t, files, 10)

	copied, err := sql.Open("sqlite", filepath.Join(there, "catalog.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, copied.Close()) }()
	one := func(q string) (text string) {
		require.NoError(t, copied.QueryRowContext(t.Context(), q).Scan(&text))
		return text
	}
	require.Equal(t, "file://"+there+"/lake/events", one(`SELECT property_value FROM iceberg_namespace_properties WHERE namespace = 'events' AND property_key = 'location'`))
	require.Equal(t, "s3://bucket/theirs", one(`SELECT property_value FROM iceberg_namespace_properties WHERE namespace = 'theirs'`))
	require.Equal(t, "file://"+there+"/lake/theirs/a_view/metadata/1.json", one(`SELECT metadata_location FROM iceberg_tables WHERE table_name = 'a_view'`))
	require.Equal(t, "s3://bucket/far", one(`SELECT metadata_location FROM iceberg_tables WHERE table_name = 'far'`))
	l, err = Open(t.Context(), DefaultConfig(), vfs.OS(), there, quiet)
	require.NoError(t, err)
	require.EqualValues(t, s.Rows, load(t, l.Table(views)).Rows)
	require.NoError(t, l.Close())
}
