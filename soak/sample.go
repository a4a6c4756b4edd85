package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sample is one reading of the server and of its folder.
type sample struct {
	Life        int     `json:"life"`
	Asked       bool    `json:"asked"` // this life is asked questions
	At          float64 `json:"at"`    // seconds since the run began
	Age         float64 `json:"age"`   // seconds since this life was ready
	RSS         int64   `json:"rss"`
	Anon        int64   `json:"rss_anon"`
	Heap        int64   `json:"go_heap_goal"` // what the last collection has left, and half as much
	Goroutines  int     `json:"goroutines"`
	Descriptors int     `json:"descriptors"`
	Lag         float64 `json:"commit_lag_seconds"` // of the stream that is furthest behind
	Behind      int64   `json:"not_yet_written"`
	Sent        int64   `json:"sent"` // events acknowledged so far
	disk
}

// disk is what the folder holds.
type disk struct {
	Log          int64  `json:"log_bytes"`
	Lake         int64  `json:"lake_bytes"`
	LakeFiles    int    `json:"lake_files"`
	Metadata     int64  `json:"metadata_bytes"`     // manifests and metadata files
	MetadataFile int64  `json:"largest_metadata"`   // the largest *.metadata.json
	Oldest       string `json:"oldest_log_segment"` // shows that retention works
}

// weigh measures the folder's data. Files may come and go meanwhile.
func weigh(dir string) (d disk) {
	data := filepath.Join(dir, "data")
	_ = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		rel, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		switch top, _, _ := strings.Cut(rel, string(filepath.Separator)); top {
		case "log":
			d.Log += info.Size()
			if strings.HasSuffix(rel, ".seg") && d.Oldest == "" { // in the order of names
				d.Oldest = filepath.Base(rel)
			}
		case "lake":
			d.Lake += info.Size()
			d.LakeFiles++
			if filepath.Base(filepath.Dir(path)) == "metadata" {
				d.Metadata += info.Size()
			}
			if strings.HasSuffix(rel, ".metadata.json") {
				d.MetadataFile = max(d.MetadataFile, info.Size())
			}
		}
		return nil
	})
	return d
}

// sampler reads every five seconds, give or take one, so that it does not keep
// step with the commits. Memory goes up and down with every commit and every
// question, so it is read four times a second, and a sample has the median.
type sampler struct {
	dir   string
	began time.Time
	rng   *rand.Rand
	load  *load
	found *findings

	mu struct {
		sync.Mutex
		all []sample
	}
}

func (p *sampler) run(s *server, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	next := func() time.Time {
		return time.Now().Add(4*time.Second + time.Duration(p.rng.Int64N(int64(2*time.Second))))
	}
	due, memory := next(), []float64(nil)
	for {
		select {
		case <-stop:
			return
		case <-s.done:
			return
		case <-tick.C:
		}
		if status, err := os.ReadFile(s.proc("status")); err == nil {
			memory = append(memory, float64(kilobytes(status, "RssAnon:")))
		}
		if time.Now().Before(due) {
			continue
		}
		got, err := p.take(ctx, s)
		got.Anon = int64(median(memory))
		due, memory = next(), nil
		if err != nil {
			if !s.dying.Load() {
				p.found.add("life %d: no reading: %v", s.life, err)
			}
			continue
		}
		p.mu.Lock()
		p.mu.all = append(p.mu.all, got)
		p.mu.Unlock()
	}
}

func (p *sampler) samples() []sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]sample(nil), p.mu.all...)
}

func (p *sampler) take(ctx context.Context, s *server) (sample, error) {
	got := sample{Life: s.life, Asked: s.asked, At: time.Since(p.began).Seconds(), Age: time.Since(s.ready).Seconds(), Sent: p.load.sent.Load(), disk: weigh(p.dir)}
	status, err := os.ReadFile(s.proc("status"))
	if err != nil {
		return got, err
	}
	got.RSS = kilobytes(status, "VmRSS:")
	files, err := os.ReadDir(s.proc("fd"))
	if err != nil {
		return got, err
	}
	got.Descriptors = len(files)
	metrics, err := s.call(ctx, "GET", "/metrics", "", "")
	if err != nil {
		return got, err
	}
	lines := bufio.NewScanner(bytes.NewReader(metrics))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		base, _, _ := strings.Cut(name, "{")
		switch base {
		case "go_goroutines":
			got.Goroutines = int(v)
		case "go_memstats_next_gc_bytes":
			got.Heap = int64(v)
		case "naru_stream_lag_seconds":
			got.Lag = max(got.Lag, v)
		case "naru_stream_not_yet_written":
			got.Behind += int64(v)
		case "naru_stream_balanced":
			if v != 1 {
				p.found.add("life %d: %s is %v", s.life, name, v)
			}
		}
	}
	if got.Goroutines == 0 || got.RSS == 0 {
		return got, fmt.Errorf("no goroutines or no memory in what the server and /proc say")
	}
	return got, nil
}

func kilobytes(status []byte, name string) int64 {
	_, rest, _ := bytes.Cut(status, []byte(name))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(line)), "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
