package verify

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

var (
	benchRows   = flag.Int("rows", 200_000, "events of the folder that BenchmarkVerify makes")
	benchFolder = flag.String("folder", "", "where BenchmarkVerify makes its folder, to be kept for naru verify; empty: a temporary one")
)

// BenchmarkVerify reads a folder with five tables, all of whose events are still
// in the log.
func BenchmarkVerify(b *testing.B) {
	dir := *benchFolder
	if dir == "" {
		dir = b.TempDir()
	}
	w := &world{t: b, dir: filepath.Join(dir, "data"), fs: vfs.OS(), lakeCfg: iceberg.DefaultConfig()}
	w.logDir = filepath.Join(w.dir, "log")
	w.cfg = newConfig()
	w.cfg.Segment, w.cfg.RetainBytes, w.cfg.Queue = 128*quantity.MiB, 0, 64*quantity.MiB
	require.NoError(b, os.MkdirAll(w.logDir, 0o755))
	w.open()
	const batch = 5000
	events := each(batch, "page_view", "page_view", "search", "page_view", "order", "page_view", "login", "page_view", "search", "error")
	for i := range *benchRows / batch {
		w.send("events", events...)
		if i%100 == 99 {
			w.loadStream("events", true)
		}
	}
	w.loadStream("events", true)
	w.close()
	l, err := iceberg.Open(b.Context(), w.lakeCfg, w.fs, w.dir, quiet, iceberg.ReadOnly())
	require.NoError(b, err)
	defer l.Close()
	for _, deep := range []bool{false, true} {
		b.Run(fmt.Sprintf("deep=%v", deep), func(b *testing.B) {
			for b.Loop() {
				r, err := Run(b.Context(), Folder{FS: w.fs, LogDir: w.logDir, Lake: l}, Options{Deep: deep})
				require.NoError(b, err)
				require.True(b, r.Clean, "%+v", r.Differences)
			}
			b.ReportMetric(float64(*benchRows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
