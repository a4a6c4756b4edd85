package iceberg

import (
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/vfs"
)

// BenchmarkCommit is one commit of one small file, with all its syncs, on the
// machine's disk and SQLite.
func BenchmarkCommit(b *testing.B) {
	l, err := Open(b.Context(), DefaultConfig(), vfs.OS(), b.TempDir(), quiet)
	require.NoError(b, err)
	defer func() { require.NoError(b, l.Close()) }()
	h := l.Table(views)
	s, err := h.Load(b.Context())
	require.NoError(b, err)
	for i := 0; b.Loop(); i++ {
		c := Commit{Base: s, Schema: s.Schema, Positions: at(int64(i + 1))}
		if c.Schema == nil {
			c.Schema = wide()
		}
		c.Files = append(c.Files, fileOf(b, h, s, 1))
		s, err = h.Commit(b.Context(), c)
		require.NoError(b, err)
		l.CollectGarbage()
	}
}
