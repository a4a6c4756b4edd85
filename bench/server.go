package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bentoAddress stands in the peer's configuration, too.
const bentoAddress = "127.0.0.1:4195"

// server is a naru under load.
type server struct {
	*process
	address string
	folder  string
}

func (s settings) fresh(name string) (string, error) {
	dir := filepath.Join(s.dir, "run-"+name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// commitEvery is naru.yaml with that commit interval.
func commitEvery(interval string) string {
	return "pipelines:\n  commit_interval: " + interval + "\n"
}

// startNaru starts a server in a fresh folder with that naru.yaml.
func (s settings) startNaru(config string, args ...string) (*server, error) {
	folder, err := s.folder(config)
	if err != nil {
		return nil, err
	}
	return s.resume(folder, args...)
}

// folder makes a fresh one with that naru.yaml.
func (s settings) folder(config string) (string, error) {
	folder, err := s.fresh("naru")
	if err != nil {
		return "", err
	}
	return folder, os.WriteFile(filepath.Join(folder, "naru.yaml"), []byte(config), 0o644)
}

// resume starts a server on a folder as it is.
func (s settings) resume(folder string, args ...string) (*server, error) {
	ready := make(chan string, 1)
	p, err := start(nil, ready, s.naru, append([]string{"serve", folder, "--listen", "127.0.0.1:0"}, args...)...)
	if err != nil {
		return nil, err
	}
	address, ok := strings.CutPrefix(<-ready, "ready http://")
	if !ok {
		return nil, fmt.Errorf("start naru: no ready line; %w", p.stop())
	}
	return &server{p, strings.TrimSpace(address), folder}, nil
}

// to is where a load goes: all its events become rows of one table.
func (s *server) to(table, media string) target {
	return target{address: s.address, path: "/v1/events?type=" + table, media: media}
}

// remove ends the server and removes its folder.
func (s *server) remove() error { return errors.Join(s.stop(), os.RemoveAll(s.folder)) }

// metric is the sum of a metric over all label sets that have the given labels,
// written as in name="value". found tells whether there is any.
func (s *server) metric(name string, labels ...string) (sum int64, found bool, err error) {
	resp, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, false, err
	}
lines:
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue lines
			}
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			return 0, false, err
		}
		sum, found = sum+int64(n), true
	}
	return sum, found, nil
}

// syncs is how many times the log has called fdatasync.
func (s *server) syncs() (int64, error) {
	const name = "naru_log_syncs_total"
	n, found, err := s.metric(name)
	if err == nil && !found {
		err = fmt.Errorf("no %s in /metrics", name)
	}
	return n, err
}

// written is how many events of the stream that loads go to are in committed
// files; 0 before its first event.
func (s *server) written() (int64, error) {
	n, _, err := s.metric("naru_stream_events_total", `fate="written"`, `pipeline="default/events"`)
	return n, err
}

// logBytes is what the log holds of the stream that loads go to.
func (s *server) logBytes() (int64, error) {
	n, _, err := s.metric("naru_stream_bytes", `stream="events"`)
	return n, err
}

// verify runs `naru verify` on the folder of a server that has stopped, and
// gives the rows written to the stream that loads go to. A difference is an error.
func (s settings) verify(folder string) (written int64, took time.Duration, err error) {
	began := time.Now()
	out, err := exec.Command(s.naru, "verify", folder, "--json").Output()
	took = time.Since(began)
	if err != nil {
		return 0, took, fmt.Errorf("verify %s: %w: %.2000s", folder, err, out)
	}
	var report struct {
		Clean   bool
		Streams []struct {
			Stream  string
			Written int64
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, took, fmt.Errorf("read the report of verify: %w", err)
	}
	if !report.Clean {
		return 0, took, fmt.Errorf("verify %s: not clean: %.2000s", folder, out)
	}
	for _, stream := range report.Streams {
		if stream.Stream == "events" {
			written = stream.Written
		}
	}
	return written, took, nil
}

// startBento starts the peer with one of the configurations in bench/peers.
func (s settings) startBento(config string) (*process, string, error) {
	folder, err := s.fresh("bento")
	if err != nil {
		return nil, "", err
	}
	p, err := start([]string{"BENCH_OUT=" + folder}, nil, s.bento, "-c", filepath.Join("bench", "peers", config))
	if err != nil {
		return nil, "", err
	}
	if err := waitPort(bentoAddress); err != nil {
		_ = p.stop()
		return nil, "", fmt.Errorf("start Bento: %w: %s", err, lastLines(p.errs.String()))
	}
	return p, folder, nil
}

// duckTime is one load by the peer of row 4.
type duckTime struct {
	Version string  `json:"version"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	Rows    int64   `json:"rows"`
}

// duckLoad has DuckDB load the corpus into one zstd Parquet file.
func (s settings) duckLoad() (t duckTime, err error) {
	folder, err := s.fresh("duckdb")
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(folder)
	cmd := exec.Command(s.duckdb, filepath.Join("bench", "peers", "duckdb_load.py"), s.wholeCorpus, filepath.Join(folder, "events.parquet"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return t, fmt.Errorf("load by DuckDB: %w", err)
	}
	in := bufio.NewReader(strings.NewReader(string(out)))
	return t, json.NewDecoder(in).Decode(&t)
}
