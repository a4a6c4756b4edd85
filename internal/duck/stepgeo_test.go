package duck

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/fault"
	"naru/internal/geoip/geoiptest"
	"naru/internal/transform"
)

// TestStepsGeoIP: paths begin at the folder, and a file that is gone refuses no event.
func TestStepsGeoIP(t *testing.T) {
	cfg := DefaultStepsConfig()
	cfg.Folder = t.TempDir()
	path := filepath.Join(cfg.Folder, "geo", "city.mmdb")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, geoiptest.Database("KR", "Seoul", 37.5), 0o644))
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	list := stepsIn(t, "steps: [{geoip: {ip: ip, file: geo/city.mmdb}}, {select: [ip, ip_country, ip_city, ip_latitude, ip_asn]}]")
	tr := openSteps(t, s, list)
	require.Equal(t, `0.0 {"ip":"1.2.3.4","ip_country":"KR","ip_city":"Seoul","ip_latitude":37.5}
1.0 {"ip":"200.2.3.4"}
2.0 {}
written 3 filtered 0`, dump(apply(t, tr, batchOf(t, 0, `{"ip": "1.2.3.4"}`, `{"ip": "200.2.3.4"}`, `{"a": 1}`))))

	later := openSteps(t, s, sqlSteps("SELECT geoip_part(ip, 'geo/later.mmdb', 'country') AS c FROM input"))
	_, err = later.Apply(context.Background(), batchOf(t, 0, `{"ip": "1.2.3.4"}`), everyEvent)
	require.ErrorContains(t, err, "later.mmdb")
	require.True(t, fault.IsTransient(err))
	require.Equal(t, []transform.Step{{Line: 1, Kind: "geoip"}}, []transform.Step{{Line: list[0].Line, Kind: list[0].Kind}})
}
