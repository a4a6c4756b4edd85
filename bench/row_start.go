package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	startsEach  = 3
	startTarget = 2.0 // seconds
)

// rowStart is row 8.
func rowStart() *row {
	return &row{
		name:     "8",
		scenario: "start with a long log, after a clean stop and after SIGKILL",
		target:   fmt.Sprintf("≤ %.0f s, the same for either size", startTarget),
		method: "One folder is filled by sending at full speed until its log holds so many bytes, with pipelines on. Three starts after a clean stop, three after a SIGKILL in the" +
			" midst of a load at full speed. From the start of the process until `/readyz` says 200, asked every 2 ms; the longest of the three. The memory is RssAnon + RssShmem in that" +
			" moment. The files are in the page cache.",
		take: func(b *bench) error { return b.starts() },
		judge: func(all []measure) verdict {
			v := verdict{met: true, peer: "none: brokers scan", ratio: "-"}
			slowest := map[string]float64{}
			for _, kase := range cases(all) {
				longest, memory := 0.0, int64(0)
				for _, m := range of(all, "naru", kase) {
					longest, memory = max(longest, m.Wall), max(memory, m.Memory)
				}
				slowest[kase] = longest
				v.ours += fmt.Sprintf("%s: %.2f s, %d MB; ", kase, longest, memory/1e6)
				v.met = v.met && longest <= startTarget
			}
			return v
		},
	}
}

func (b *bench) starts() error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startNaru("")
	if err != nil {
		return err
	}
	defer func() { _, _ = b.fresh("naru") }()
	for _, size := range b.startSizes {
		if err := s.fill(all, size); err != nil {
			return errors.Join(err, s.stop())
		}
		if s, err = b.startAgain(s, all, size); err != nil {
			return err
		}
	}
	return s.stop()
}

// fill sends until the log holds so many bytes.
func (s *server) fill(all [][]byte, size int64) error {
	for {
		have, err := s.logBytes()
		if err != nil {
			return err
		}
		if have >= size {
			return nil
		}
		if _, err := closedLoop(s.to("page", ndjson), all, batchSize, batchConnections, 0, time.Second); err != nil {
			return err
		}
	}
}

// startAgain ends the server in both ways in turn and measures the starts.
func (b *bench) startAgain(s *server, all [][]byte, size int64) (*server, error) {
	for _, how := range []string{"clean stop", "SIGKILL"} {
		for range startsEach {
			if how == "SIGKILL" {
				broken := make(chan struct{})
				go func() {
					_, _ = closedLoop(s.to("page", ndjson), all, batchSize, batchConnections, 0, time.Minute)
					close(broken)
				}()
				time.Sleep(b.warm)
				s.kill()
				<-broken
			} else if err := s.stop(); err != nil {
				return s, err
			}
			m, next, err := b.startOnce(s.folder)
			if err != nil {
				return s, err
			}
			s = next
			bytes, err := s.logBytes()
			if err != nil {
				return s, errors.Join(err, s.stop())
			}
			m.Case = fmt.Sprintf("%.1f GB, %s", float64(size)/1e9, how)
			m.Figures = map[string]float64{"log_gb": float64(bytes) / 1e9, "log_files_gb": float64(fileBytes(s.folder)) / 1e9}
			b.add(m)
		}
	}
	return s, nil
}

// startOnce starts on a folder and measures the time until it is ready.
func (b *bench) startOnce(folder string) (measure, *server, error) {
	// A port that is known beforehand, so that /readyz can be asked at once.
	address, err := freePort()
	if err != nil {
		return measure{}, nil, err
	}
	began := time.Now()
	p, err := start(nil, nil, b.naru, "serve", folder, "--listen", address)
	if err != nil {
		return measure{}, nil, err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	for {
		resp, err := client.Get("http://" + address + "/readyz")
		took := time.Since(began)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return measure{System: "naru", Wall: took.Seconds(), Memory: p.memory(), Syncs: -1}, &server{p, address, folder}, nil
			}
		}
		if took > time.Minute {
			return measure{}, nil, fmt.Errorf("start on %s: not ready within a minute; %w: %s", folder, p.stop(), lastLines(p.errs.String()))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// fileBytes is the size of the log's segment files.
func fileBytes(folder string) (sum int64) {
	paths, err := filepath.Glob(filepath.Join(folder, "data", "log", "*.seg"))
	if err != nil {
		return 0
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			sum += info.Size()
		}
	}
	return sum
}
