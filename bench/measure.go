package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// measure is one run of one system on one row.
type measure struct {
	Row     string  `json:"row"`
	Run     int     `json:"run"`
	System  string  `json:"system"`
	Case    string  `json:"case,omitempty"` // what the runs of a row differ in
	Commit  string  `json:"commit,omitempty"`
	At      string  `json:"at,omitempty"`
	Full    bool    `json:"full"` // the long form
	Events  int64   `json:"events"`
	Rate    float64 `json:"events_per_s"`
	CPU     float64 `json:"server_cpu_us_per_event"`
	Memory  int64   `json:"server_peak_anon_bytes"`
	Answers int64   `json:"acknowledgements"`
	Syncs   int64   `json:"fsyncs"` // -1: the system does not tell
	P50     float64 `json:"p50_ms"` // of the acknowledgements
	P99     float64 `json:"p99_ms"`
	Wall    float64 `json:"wall_s"`
	Others  float64 `json:"others_cores"` // what else the machine did meanwhile: busy cores that were neither the server's nor the generator's
	// What this row alone has, the unit at the end of each name.
	Figures map[string]float64 `json:"figures,omitempty"`
}

// of picks the runs of a system, and of a case if one is given.
func of(all []measure, system, kase string) (out []measure) {
	for _, m := range all {
		if m.System == system && (kase == "" || m.Case == kase) {
			out = append(out, m)
		}
	}
	return out
}

// cases are the cases of all runs, in order of appearance.
func cases(all []measure) (out []string) {
	for _, m := range all {
		if !slices.Contains(out, m.Case) {
			out = append(out, m.Case)
		}
	}
	return out
}

// median is the middle of each figure by itself: a run that was disturbed in one
// of them does not speak for the others.
func median(all []measure) measure {
	m := all[0]
	m.Events = middle(all, func(m measure) int64 { return m.Events })
	m.Rate = middle(all, func(m measure) float64 { return m.Rate })
	m.CPU = middle(all, func(m measure) float64 { return m.CPU })
	m.Memory = middle(all, func(m measure) int64 { return m.Memory })
	m.Answers = middle(all, func(m measure) int64 { return m.Answers })
	m.Syncs = middle(all, func(m measure) int64 { return m.Syncs })
	m.P50 = middle(all, func(m measure) float64 { return m.P50 })
	m.P99 = middle(all, func(m measure) float64 { return m.P99 })
	m.Wall = middle(all, func(m measure) float64 { return m.Wall })
	m.Others = middle(all, func(m measure) float64 { return m.Others })
	m.Figures = map[string]float64{}
	for name := range all[0].Figures {
		m.Figures[name] = middle(all, func(m measure) float64 { return m.Figures[name] })
	}
	return m
}

func middle[T cmp.Ordered](all []measure, figure func(measure) T) T {
	values := make([]T, len(all))
	for i, m := range all {
		values[i] = figure(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// percentile of values in ascending order, by nearest rank: the smallest value
// that so large a share of all does not exceed. 0 without values.
func percentile[T cmp.Ordered](sorted []T, share float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	// The small number makes up for shares that have no exact binary form.
	rank := int(math.Ceil(share*float64(len(sorted)) - 1e-9))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// spread is what a row says of many durations.
type spread struct {
	count         int
	p50, p99, max time.Duration
}

// spreadOf sorts the values in place.
func spreadOf(values []time.Duration) spread {
	slices.Sort(values)
	return spread{len(values), percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1)}
}

// put writes the spread into figures, in ms.
func (s spread) put(figures map[string]float64, name string) {
	figures[name+"_p50_ms"], figures[name+"_p99_ms"], figures[name+"_max_ms"] = ms(s.p50), ms(s.p99), ms(s.max)
}

func ms(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

// tenths gives the median of each tenth of samples taken at a steady pace, after the
// first skip of them: whether something grows, without being led by single samples.
// Fewer than ten samples are one tenth.
func tenths(samples []int64, skip int) []int64 {
	samples = samples[max(0, min(skip, len(samples)-1)):]
	n := 10
	if len(samples) < n {
		n = 1
	}
	out := make([]int64, 0, n)
	for i := range n {
		if part := slices.Clone(samples[i*len(samples)/n : (i+1)*len(samples)/n]); len(part) > 0 {
			slices.Sort(part)
			out = append(out, percentile(part, 0.5))
		}
	}
	return out
}
