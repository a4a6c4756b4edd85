package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"naru/internal/bench"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

// TestShowBench keeps the table as it is shown, over made-up figures.
func TestShowBench(t *testing.T) {
	r := bench.Report{
		Version: "v1", Seconds: 61, Machine: bench.Machine{CPU: "Some CPU", Cores: 4, GoProcs: 4, Memory: 16 << 30, Kernel: "Linux 6"},
		Folder: bench.Folder{Dir: "/srv/x", Free: 300 << 30},
		Disk: bench.Disk{Kind: vfs.Kind{Name: "ext4"}, Sequential: 500 << 20, Syncs: []bench.Sync{
			{Bytes: 4096, P50: .15, P99: 1.2}, {Bytes: 1 << 20, P50: .6, P99: 2}, {Bytes: 4096, Growing: true, P50: .2, P99: 31}, {Bytes: 1 << 20, Growing: true, P50: .8, P99: 2000},
		}},
		Batches:   bench.Flow{PerRequest: 500, Connections: 8, Requests: 20000, Rate: 1.1e6, P50: 3.1, P99: 7, ServerCPU: 1.05, Memory: 32 << 20, Syncs: 9000, Busy: .97},
		Single:    bench.Flow{PerRequest: 1, Connections: 32, Requests: 200000, Rate: 34567, P50: .8, P99: 2.9, ServerCPU: 30, Memory: 33 << 20, Syncs: 14000, Busy: .99},
		Load:      bench.Flow{PerRequest: 500, Connections: 8, Requests: 14000, Events: 7_000_000, Rate: 601234, P50: 4, P99: 32, ServerCPU: 2.41, Memory: 191 << 20, Syncs: 7698, Busy: 1},
		Queries:   []bench.Query{{Name: "count", P50: 3, Max: 5}, {Name: "group by", P50: 60, Max: 90}},
		Freshness: bench.Freshness{Rate: 10000, CommitInterval: quantity.Duration(5 * time.Second), P50: 90, P99: 250, Max: 400},
		Advice: []bench.Advice{
			{Rule: "space", Level: bench.Change, Text: "a text that is so long that it has to be broken at a blank somewhere before the hundredth of its characters", Setting: "log.retain_bytes", Value: "10GiB"},
			{Rule: "bodies", Level: bench.Note, Text: "short"},
		},
	}
	var out bytes.Buffer
	if err := (&cli{out: &out}).showBench(&r); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench.txt", out.String())
}

// TestBenchRefuses what cannot be measured, before anything is written.
func TestBenchRefuses(t *testing.T) {
	dir := t.TempDir()
	code, out, errs := call(t, "", nil, "bench", filepath.Join(dir, "no"))
	if code != exitError || out != "" || !strings.HasPrefix(errs, "naru: bench: there is no folder ") || !strings.Contains(errs, "\nhint: name a folder") {
		t.Errorf("no folder: %d %q %q", code, out, errs)
	}
	settings := filepath.Join(dir, "naru.yaml")
	for text, want := range map[string]string{
		"log:\n  segmnt: 1MiB\n": "did you mean segment?",
		"log:\n  reserve: 1PB\n": "is not a size",
		// More than any disk has free.
		"log:\n  reserve: 1000000TiB\n": "make room, name a folder on another disk, or measure for less time",
	} {
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := call(t, "", nil, "bench", dir, "--duration", "1s"); code != exitError || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: %d %q %q", text, code, out, errs)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("left: %v %v", names, err)
	}
}

// TestBenchJSONIsWhole: every field of the report has a name of its own, and
// lists are never null.
func TestBenchJSONIsWhole(t *testing.T) {
	text, err := json.Marshal(bench.Report{Advice: []bench.Advice{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file_system", "memory", "network", "sequential_bytes_per_s", "ingest_batches", "server_cpu_us_per_event", "log.retain_bytes", "advice"} {
		if !strings.Contains(string(text), `"`+name+`"`) {
			t.Errorf("no %s in %s", name, text)
		}
	}
}
