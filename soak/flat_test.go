package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// series is y with noise of some share and a rise over the whole.
func series(rng *rand.Rand, n int, y, noise, rise float64) (out []point) {
	for i := range n {
		x := float64(i) / float64(n-1)
		out = append(out, point{60 * float64(i), y * (1 + rise*x + noise*rng.NormFloat64())})
	}
	return out
}

func TestFlat(t *testing.T) {
	const mib = 16
	for _, c := range []struct {
		what        string
		n           int
		noise, rise float64
		flat        bool
	}{
		{"a half-hour's lives, noisy and flat", 30, 0.08, 0, true},
		{"a half-hour's lives, noisy and growing by half", 30, 0.08, 0.5, false},
		{"five lives, noisy and flat", 5, 0.05, 0, true},
		{"five lives, doubling", 5, 0.05, 1, false},
		{"one long life, growing by a third", 60, 0.02, 0.35, false},
		{"falling", 30, 0.05, -0.5, true},
	} {
		wrong := 0
		for seed := range uint64(300) {
			v := flat("x", series(rand.New(rand.NewPCG(seed, 1)), c.n, 200, c.noise, c.rise), mib)
			if !v.Judged || v.Flat != c.flat {
				wrong++
			}
		}
		if wrong > 3 {
			t.Errorf("%s: judged wrong %d times of 300", c.what, wrong)
		}
	}
	if v := flat("x", series(rand.New(rand.NewPCG(1, 1)), 3, 200, 0, 1), mib); v.Judged {
		t.Error("three readings were judged")
	}
}

// TestLeaksNoticed feeds readings of a server that leaks, by what is stored or
// by what is asked, through the whole judgement.
func TestLeaksNoticed(t *testing.T) {
	for _, c := range []struct {
		what                  string
		perLife, perSecond    float64 // MiB
		routines, descriptors int     // more in each life
		kinds                 int     // verdicts that are not flat
	}{
		{"nothing", 0, 0, 0, 0, 0},
		{"memory with what is stored", 8, 0, 0, 0, 1},
		{"memory with every request", 0, 1, 0, 0, 1},
		{"goroutines", 0, 0, 3, 0, 1},
		{"descriptors", 0, 0, 0, 3, 1},
	} {
		rng := rand.New(rand.NewPCG(5, 5))
		var samples []sample
		const lives = 20
		for life := 1; life <= lives; life++ {
			last := 60.0
			if life == lives {
				last = 300
			}
			for age := 5.0; age < last; age += 5 {
				anon := 200 + 10*rng.NormFloat64() + c.perLife*float64(life) + c.perSecond*age
				samples = append(samples, sample{Life: life, At: float64(life)*60 + age, Age: age, Anon: int64(anon * (1 << 20)),
					Goroutines: 30 + rng.IntN(4) + c.routines*life, Descriptors: 40 + rng.IntN(4) + c.descriptors*life})
			}
		}
		n := 0
		for _, v := range append(acrossLives(samples, 20, 40), withinLife(samples, lives, 75)...) {
			if !v.Judged {
				t.Errorf("%s: %v", c.what, v)
			}
			if !v.Flat {
				n++
			}
		}
		if n != c.kinds {
			t.Errorf("a server that leaks %s: %d verdicts say that it grows, want %d", c.what, n, c.kinds)
		}
	}
}

func TestMetadataSize(t *testing.T) {
	for growth, flat := range map[int64]bool{0: true, 200: false} {
		var samples []sample
		for at := 5.0; at < 1800; at += 5 {
			snapshots := 20 + int64(at/5)%50
			samples = append(samples, sample{At: at, disk: disk{MetadataFile: snapshots*1500 + growth*int64(at/5)}})
		}
		if v := metadataSize(samples); !v.Judged || v.Flat != flat {
			t.Errorf("%d bytes more with each commit: %v", growth, v)
		}
		if v := metadataSize(samples[:100]); v.Judged {
			t.Errorf("judged after 500 s: %v", v)
		}
	}
}

func TestRetentionNoticed(t *testing.T) {
	var found findings
	samples := []sample{{disk: disk{Log: retainBytes}}}
	if checkLog(samples, &found); len(found.all()) > 0 {
		t.Error(found.all())
	}
	samples = append(samples, sample{disk: disk{Log: 2 * retainBytes}})
	if checkLog(samples, &found); len(found.all()) != 1 {
		t.Errorf("a log that is never cut: %v", found.all())
	}
}

func TestRateNoticed(t *testing.T) {
	var found findings
	if checkRate(1_000_000, 5_000, &found); len(found.all()) > 0 {
		t.Error(found.all())
	}
	if checkRate(1_000_000, 50_000, &found); len(found.all()) != 1 {
		t.Errorf("5%% left out: %v", found.all())
	}
}

func TestWaits(t *testing.T) {
	var w waits
	for i := range 1000 {
		w.add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		if got := w.quantile(q); got < want*95/100 || got > want*105/100 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if w.max() != time.Second || w.count() != 1000 {
		t.Errorf("max %v of %d", w.max(), w.count())
	}
}
