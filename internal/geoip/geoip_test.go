package geoip

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/geoip/geoiptest"
)

func TestPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "city.mmdb")
	require.NoError(t, os.WriteFile(path, geoiptest.Database("KR", "Seoul", 37.5), 0o644))
	var f Files
	for part, want := range map[string]string{"country": "KR", "city": "Seoul", "latitude": "37.5", "asn": "", "region": "", "nothing": ""} {
		got, found, err := f.Part(path, "1.2.3.4", part)
		require.NoError(t, err)
		require.Equal(t, want, got, part)
		require.Equal(t, want != "", found)
	}
	for _, ip := range []string{"128.2.3.4", "no address", "", "2001:db8::1"} {
		_, found, err := f.Part(path, ip, "country")
		require.NoError(t, err)
		require.False(t, found, ip)
	}
	require.ErrorContains(t, f.Open(path+"x"), "no such file")
	require.NoError(t, os.WriteFile(path+"y", []byte("no database"), 0o644))
	require.ErrorContains(t, f.Open(path+"y"), path+"y")

	// The file is replaced.
	require.NoError(t, os.WriteFile(path+"new", geoiptest.Database("DE", "Berlin", 52.5), 0o644))
	require.NoError(t, os.Rename(path+"new", path))
	f.mu.open[path].looked = time.Now().Add(-lookEvery)
	got, _, err := f.Part(path, "1.2.3.4", "country")
	require.NoError(t, err)
	require.Equal(t, "DE", got)
}
