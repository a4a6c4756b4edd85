package main

import (
	"fmt"
	"slices"
)

// point is one reading: x in seconds, y in its own unit.
type point struct{ x, y float64 }

// verdict says whether a series is flat.
type verdict struct {
	What    string  `json:"what"`
	Points  int     `json:"points"`
	First   float64 `json:"first"` // where the line begins
	Last    float64 `json:"last"`  // where it ends
	Allowed float64 `json:"allowed_rise"`
	Judged  bool    `json:"judged"` // false: too few points
	Flat    bool    `json:"flat"`
}

func (v verdict) String() string {
	says := "flat"
	switch {
	case !v.Judged:
		says = "too few readings to judge"
	case !v.Flat:
		says = "GROWS"
	}
	return fmt.Sprintf("%s: %s, %.4g to %.4g over %d readings (a rise of %.4g is allowed)", v.What, says, v.First, v.Last, v.Points, v.Allowed)
}

// Readings that a verdict needs, and from how many on it is strict. The line
// through n readings of noise s rises by about s·√(12/n) by chance, so few
// readings allow more.
const (
	fewest = 4
	enough = 12
)

// flat judges a series by the line of Theil and Sen through it (the median of
// the slopes of all pairs of points; a third of the points may be wild without
// moving it). It may rise by 15 % of the median, by 30 % when there are fewer
// than twelve points, plus slack. Falling is no fault.
func flat(what string, points []point, slack float64) verdict {
	v := verdict{What: what, Points: len(points)}
	if len(points) < fewest {
		return v
	}
	v.Judged = true
	var slopes, ys []float64
	lo, hi := points[0].x, points[0].x
	for i, p := range points {
		ys = append(ys, p.y)
		lo, hi = min(lo, p.x), max(hi, p.x)
		for _, q := range points[i+1:] {
			if p.x != q.x {
				slopes = append(slopes, (q.y-p.y)/(q.x-p.x))
			}
		}
	}
	slope, middle := median(slopes), median(ys)
	share := 0.15
	if len(points) < enough {
		share = 0.30
	}
	v.Allowed = share*middle + slack
	v.First, v.Last = middle-slope*(hi-lo)/2, middle+slope*(hi-lo)/2
	v.Flat = v.Last-v.First <= v.Allowed
	return v
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// measure is something that must not grow.
type measure struct {
	what  string
	slack float64
	of    func(sample) float64
	quiet bool // judged by lives that are asked nothing
}

// measures: memory in MiB. The slack is what a quiet server differs by from one
// moment to the next.
var measures = []measure{
	{what: "anonymous memory without questions, MiB", slack: 16, quiet: true, of: func(s sample) float64 { return float64(s.Anon) / (1 << 20) }},
	// What is in use between two collections goes up and down fivefold; what one
	// leaves, by which the goal of the next is set, tells a leak.
	{what: "Go heap's goal, MiB", slack: 16, of: func(s sample) float64 { return float64(s.Heap) / (1 << 20) }},
	{what: "goroutines", slack: 10, of: func(s sample) float64 { return float64(s.Goroutines) }},
	{what: "descriptors", slack: 10, of: func(s sample) float64 { return float64(s.Descriptors) }},
}

// acrossLives compares the lives of the server with each other, each by the
// median of its readings at the same age: memory must not grow with what is
// stored. youngest and oldest are in seconds since ready.
func acrossLives(samples []sample, youngest, oldest float64) (out []verdict) {
	for _, m := range measures {
		byLife := map[int][]float64{}
		began := map[int]float64{}
		for _, s := range samples {
			if s.Age >= youngest && s.Age <= oldest && !(m.quiet && s.Asked) {
				byLife[s.Life] = append(byLife[s.Life], m.of(s))
				began[s.Life] = s.At - s.Age
			}
		}
		var points []point
		for life, values := range byLife {
			points = append(points, point{began[life], median(values)})
		}
		out = append(out, flat(fmt.Sprintf("%s, from life to life", m.what), points, m.slack))
	}
	return out
}

// withinLife follows one long life from an age on: what each request leaks
// does not show from life to life.
func withinLife(samples []sample, life int, youngest float64) (out []verdict) {
	for _, m := range measures {
		var points []point
		for _, s := range samples {
			if s.Life == life && s.Age >= youngest && !(m.quiet && s.Asked) {
				points = append(points, point{s.Age, m.of(s)})
			}
		}
		out = append(out, flat(fmt.Sprintf("%s, within the last life", m.what), points, m.slack))
	}
	return out
}

// Sizes of metadata go up and down with the expiry of snapshots, every fifty
// commits: readings begin after the first time, and end after several.
const (
	metadataFrom = 5 * 60
	metadataFor  = 15 * 60
)

// metadataSize judges the largest metadata file: a commit must not become
// slower by the number of commits before it.
func metadataSize(samples []sample) verdict {
	const what = "largest metadata file, KiB"
	var points []point
	for _, s := range samples {
		if s.At >= metadataFrom {
			points = append(points, point{s.At, float64(s.MetadataFile) / (1 << 10)})
		}
	}
	if len(points) == 0 || points[len(points)-1].x < metadataFrom+metadataFor {
		return verdict{What: what, Points: len(points)}
	}
	return flat(what, points, 32)
}
