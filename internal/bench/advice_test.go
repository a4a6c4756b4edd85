package bench

import (
	"slices"
	"strings"
	"testing"
	"time"

	"naru/internal/quantity"
	"naru/internal/vfs"
)

// sound is a machine on which nothing needs to be changed.
func sound() *Report {
	return &Report{
		Seconds: 61,
		Machine: Machine{Cores: 4, GoProcs: 4, Memory: 16 << 30, LoadOnce: 0.2},
		Folder:  Folder{Free: 400 << 30, Log: 1 << 30},
		Settings: Settings{
			Segment: 128 * quantity.MiB, Recycle: 256 * quantity.MiB, RetainBytes: 50 * quantity.GiB, Reserve: quantity.GiB, Queue: 64 * quantity.MiB,
			InFlight: 64 * quantity.MiB, LakeMemory: 128 * quantity.MiB, CommitInterval: quantity.Duration(5 * time.Second), QueryMemory: quantity.GiB,
			HotTailMemory: 96 * quantity.MiB,
		},
		Disk: Disk{Kind: vfs.Kind{Name: "ext4"}, Sequential: 1e9, Syncs: []Sync{
			{Bytes: smallWrite, Count: 1000, P50: 0.15, P99: 0.4}, {Bytes: largeWrite, Count: 1000, P50: 0.6, P99: 1},
			{Bytes: smallWrite, Growing: true, Count: 1000, P50: 0.21, P99: 0.5}, {Bytes: largeWrite, Growing: true, Count: 1000, P50: 0.9, P99: 2},
		}},
		Batches:   Flow{PerRequest: 500, Connections: 8, Requests: 2000, Events: 1_000_000, Rate: 1e6, ServerCPU: 1, SenderCPU: 0.1, Busy: 0.6, Syncing: 0.5, Syncs: 900, LogBytes: 75},
		Single:    Flow{PerRequest: 1, Connections: 32, Rate: 300_000, ServerCPU: 3},
		Load:      Flow{PerRequest: 500, Rate: 600_000, ServerCPU: 2.4, LogBytes: 75},
		Freshness: Freshness{Rate: 10_000, P50: 100, P99: 300, CommitInterval: quantity.Duration(5 * time.Second)},
	}
}

func TestAdvice(t *testing.T) {
	sync := func(r *Report, bytes int, growing bool, p50, p99 float64) {
		for i := range r.Disk.Syncs {
			if s := &r.Disk.Syncs[i]; s.Bytes == bytes && s.Growing == growing {
				s.P50, s.P99 = p50, p99
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(r *Report)
		rule   string // "" when there is to be none
		level  Level
		says   []string
		set    string
	}{
		{name: "sound", change: func(*Report) {}},
		{name: "beside a server", change: func(r *Report) { r.Folder.Beside = true }, rule: "beside", level: Note, says: []string{"lower bounds"}},
		{name: "busy", change: func(r *Report) { r.Machine.LoadOnce = 3.2 }, rule: "busy", level: Note, says: []string{"load 3.2 on 4 cores"}},
		{name: "others at work", change: func(r *Report) { r.Batches.Others, r.Batches.Syncing, r.Machine.LoadOnce = .4, .9, 3 }, rule: "busy", level: Note, says: []string{"up to 40% of the cores"}},
		{name: "others at work, hardly", change: func(r *Report) { r.Load.Others = .1 }},
		{name: "busy because of the server", change: func(r *Report) { r.Machine.LoadOnce, r.Folder.Beside = 3.2, true }, rule: "beside", level: Note},
		{name: "short", change: func(r *Report) { r.Seconds = 4 }, rule: "short", level: Note, says: []string{"--duration 1m"}},
		{name: "tmpfs", change: func(r *Report) {
			r.Disk.Kind = vfs.Kind{Name: "tmpfs", Memory: true}
			sync(r, smallWrite, false, .001, .002)
			sync(r, smallWrite, true, .001, .002)
		},
			rule: "memory-disk", level: Warning, says: []string{"tmpfs is memory", "gone with the power"}},
		{name: "nfs", change: func(r *Report) { r.Disk.Kind = vfs.Kind{Name: "nfs", Network: true} }, rule: "network-disk", level: Warning, says: []string{"nfs", "durability.md"}},
		{name: "a disk that lies", change: func(r *Report) { sync(r, smallWrite, false, .009, .02); sync(r, smallWrite, true, .010, .02) }, rule: "lying-disk", level: Warning, says: []string{"9 µs", "flushes"}},
		{name: "a slow disk", change: func(r *Report) { sync(r, smallWrite, false, 8, 15); sync(r, smallWrite, true, 9, 15) }, rule: "slow-sync", level: Change,
			says: []string{"8.0 ms", "about 83 acknowledgements a second", "--batch-events", "500 events"}},
		{name: "exactly 5 ms", change: func(r *Report) { sync(r, smallWrite, false, 5, 8); sync(r, smallWrite, true, 5, 8) }},
		{name: "an uneven disk", change: func(r *Report) { sync(r, smallWrite, false, .2, 90) }, rule: "uneven-sync", level: Note, says: []string{"90 ms", "450 times"}},
		{name: "no recycling", change: func(r *Report) { r.Settings.Recycle = 64 * quantity.MiB }, rule: "recycle", level: Change, set: "log.recycle: 256MiB", says: []string{"210 µs", "150 µs"}},
		{name: "no recycling, none needed", change: func(r *Report) { r.Settings.Recycle = 0; sync(r, smallWrite, true, .16, .4) }},
		{name: "cores", change: func(r *Report) { r.Batches.Busy, r.Batches.Syncing, r.Batches.SenderCPU = .97, .8, .25 }, rule: "cpu-bound", level: Note,
			says: []string{"2000 acknowledgements shared 900 syncs", "20% of the processor time was the sender's", "4.0 million events", "4 cores"}},
		{name: "disk", change: func(r *Report) { r.Batches.Syncing = .9 }, rule: "disk-bound", level: Change, says: []string{"90% of the time", "busy for 60%"}},
		{name: "GOMAXPROCS", change: func(r *Report) { r.Machine.GoProcs = 1 }, rule: "gomaxprocs", level: Change, says: []string{"3 of 4 cores"}},
		{name: "one core", change: func(r *Report) { r.Machine.GoProcs, r.Machine.Cores, r.Batches.Syncing = 1, 1, .9 }, rule: "one-core", level: Change, says: []string{"two"}},
		{name: "one by one", change: func(r *Report) { r.Single.ServerCPU = 25 }, rule: "bodies", level: Note, says: []string{"25.0 µs", "body of 500", "1.00 µs"}},
		{name: "bandwidth", change: func(r *Report) { r.Disk.Sequential = 100e6 }, rule: "bandwidth", level: Change, says: []string{"95.37MiB", "71.53MiB"}},
		{name: "a full disk", change: func(r *Report) { r.Folder.Free = 20 << 30 }, rule: "space", level: Change, set: "log.retain_bytes: 10GiB", says: []string{"may grow to 50GiB", "room for 20GiB", "503"}},
		{name: "a log without a limit", change: func(r *Report) { r.Settings.RetainBytes = 0 }, rule: "space", level: Change, set: "log.retain_bytes: 200GiB", says: []string{"no limit"}},
		{name: "a disk that is fuller than the reserve", change: func(r *Report) { r.Folder.Free, r.Folder.Log = 100<<20, 0 }, rule: "space", level: Change, says: []string{"room for 0B"}},
		{name: "little memory", change: func(r *Report) { r.Machine.Memory = 1 << 30 }, rule: "memory", level: Change, set: "query.memory: 128MiB", says: []string{"has 1GiB", "1.66GiB together"}},
		{name: "hardly any memory", change: func(r *Report) { r.Machine.Memory = 512 << 20 }, rule: "memory", level: Change},
		{name: "no hot tail", change: func(r *Report) { r.Freshness.P50, r.Freshness.P99, r.Settings.HotTailMemory = 2500, 5200, 0 }, rule: "hot-tail", level: Change,
			set: "hot_tail.memory: 96MiB", says: []string{"5.2 s", "commit_interval, 5s"}},
		{name: "no hot tail, and none needed", change: func(r *Report) { r.Settings.HotTailMemory = 0 }},
		{name: "stale in spite of it", change: func(r *Report) { r.Freshness.P50, r.Freshness.P99 = 900, 4000 }, rule: "stale", level: Note, says: []string{"4.0 s", "10,000 events"}},
		{name: "stale now and then", change: func(r *Report) { r.Freshness.P99 = 4000 }, rule: "stale", level: Note},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := sound()
			tt.change(r)
			got := Advise(r)
			i := slices.IndexFunc(got, func(a Advice) bool { return a.Rule == "capacity" })
			if i < 0 {
				t.Fatalf("nothing to plan with in %+v", got)
			}
			got = slices.Delete(got, i, i+1) // which everybody gets
			if tt.rule == "" {
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Rule != tt.rule || got[0].Level != tt.level {
				t.Fatalf("%+v, want %s alone", got, tt.rule)
			}
			for _, text := range tt.says {
				if !strings.Contains(got[0].Text, text) {
					t.Errorf("no %q in %q", text, got[0].Text)
				}
			}
			set := ""
			if got[0].Setting != "" {
				set = got[0].Setting + ": " + got[0].Value
			}
			if set != tt.set {
				t.Errorf("%q, want %q", set, tt.set)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	r := sound()
	// 400,000 events a second too many, 75 bytes each, 50 GiB of room: 1,790 s.
	if got := capacity(r); len(got) != 1 || !strings.Contains(got[0].Text, "half of 600,000 events a second") || !strings.Contains(got[0].Text, "1.0 million events a second is taken in for 30 minutes") {
		t.Errorf("%+v", got)
	}
	r.Folder.Free, r.Folder.Log = 3<<30, 0 // 2 GiB beside the reserve: 72 s
	if got := capacity(r); !strings.Contains(got[0].Text, "for 72 seconds") {
		t.Errorf("%+v", got)
	}
	r.Load.Rate = r.Batches.Rate // nothing piles up
	if got := capacity(r); strings.Contains(got[0].Text, "peak") {
		t.Errorf("%+v", got)
	}
	r.Load.Rate = 0
	if got := capacity(r); got != nil {
		t.Errorf("%+v", got)
	}
}

// TestAdviceOfNothing: figures that are missing lead to no advice and no NaN.
func TestAdviceOfNothing(t *testing.T) {
	for _, a := range Advise(&Report{Seconds: 60}) {
		if a.Rule != "space" && a.Rule != "busy" || strings.Contains(a.Text, "NaN") || strings.Contains(a.Text, "Inf") {
			t.Errorf("%+v", a)
		}
	}
	if got := Advise(sound()); got == nil {
		t.Error("null in JSON")
	}
}

func TestWords(t *testing.T) {
	for want, got := range map[string]string{
		"950 events": events(950), "1 core": Cores(1), "2 cores": Cores(2), "12,000 events": events(12_345), "1.2 million events": events(1_234_567),
		"9 µs": ShowMS(.009), "1.5 ms": ShowMS(1.5), "42 ms": ShowMS(42.4), "3.0 s": ShowMS(3000),
		"90 seconds": roughly(90 * time.Second), "5 minutes": roughly(5 * time.Minute), "3 hours": roughly(3 * time.Hour), "4 days": roughly(96 * time.Hour),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
