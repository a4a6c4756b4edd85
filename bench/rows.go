package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	batchSize   = 500
	connections = 8
	// bentoAddress stands in the peer's configuration, too.
	bentoAddress = "127.0.0.1:4195"
	// bentoParquetConnections keep enough bodies in flight to fill the 10,000
	// rows of a file: Bento answers when the file is written.
	bentoParquetConnections = 64
)

// naruConfig commits every second, as the peers with tables were set: with the
// default of five seconds the wait for the last commit would be most of a run.
const naruConfig = "pipelines:\n  commit_interval: 1s\n"

// measure is one run of one system on one row.
type measure struct {
	System  string  `json:"system"`
	Events  int64   `json:"events"`
	Rate    float64 `json:"events_per_s"`
	CPU     float64 `json:"server_cpu_us_per_event"`
	Memory  int64   `json:"server_peak_anon_bytes"`
	Answers int64   `json:"acknowledgements"`
	Syncs   int64   `json:"fsyncs"` // -1: the system does not tell
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Wall    float64 `json:"wall_s"`
}

// settings of a whole run.
type settings struct {
	naru, bento string // binaries; bento may be ""
	dir         string // scratch, on a real disk
	corpus      string
	events      int
	warm, last  time.Duration
	rounds      int // over the corpus, in rows that send it whole
	runs        int
}

func (s settings) folder(name string) (string, error) {
	dir := filepath.Join(s.dir, "run-"+name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// startNaru starts a server in a fresh folder and returns its address.
func (s settings) startNaru(name string, args ...string) (p *process, address, folder string, err error) {
	if folder, err = s.folder(name); err != nil {
		return nil, "", "", err
	}
	if err := os.WriteFile(filepath.Join(folder, "naru.yaml"), []byte(naruConfig), 0o644); err != nil {
		return nil, "", "", err
	}
	ready := make(chan string, 1)
	p, err = start(nil, ready, s.naru, append([]string{"serve", folder, "--listen", "127.0.0.1:0"}, args...)...)
	if err != nil {
		return nil, "", "", err
	}
	address, ok := strings.CutPrefix(<-ready, "ready http://")
	if !ok {
		return nil, "", "", fmt.Errorf("start naru: no ready line; %w", p.stop())
	}
	return p, strings.TrimSpace(address), folder, nil
}

// syncs asks naru how many times its log has called fdatasync.
func syncs(address string) (int64, error) {
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, syncMetric+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return int64(n), err
		}
	}
	return 0, fmt.Errorf("no %s in /metrics", syncMetric)
}

// syncMetric counts the fdatasyncs of the log.
const syncMetric = "naru_log_syncs_total"

// naruBatches is row 1: bodies of 500 events, acknowledged when on disk.
func naruBatches(s settings) (measure, error) {
	p, address, folder, err := s.startNaru("naru", "--no-pipelines")
	if err != nil {
		return measure{}, err
	}
	defer os.RemoveAll(folder)
	m, err := s.batches("naru", p, target{address, "/v1/events?type=page"}, func() (int64, error) { return syncs(address) })
	if stopErr := p.stop(); err == nil {
		err = stopErr
	}
	return m, err
}

// bentoBatches is row 1 by Bento: each line to a file, not synced.
func bentoBatches(s settings) (measure, error) {
	p, folder, err := s.startBento("bento_lines.yaml")
	if err != nil {
		return measure{}, err
	}
	defer os.RemoveAll(folder)
	m, err := s.batches("Bento → file", p, target{bentoAddress, "/post"}, nil)
	_ = p.stop() // its exit code does not matter to the figure
	return m, err
}

func (s settings) startBento(config string) (*process, string, error) {
	folder, err := s.folder("bento")
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

// batches is row 1's load: a warm-up, then a measured stretch.
func (s settings) batches(system string, p *process, to target, syncs func() (int64, error)) (measure, error) {
	all, err := bodies(s.corpus, s.events, batchSize)
	if err != nil {
		return measure{}, err
	}
	if _, err := closedLoop(to, all, batchSize, connections, 0, s.warm); err != nil {
		return measure{}, err
	}
	before, synced := p.cpu(), int64(0)
	if syncs != nil {
		if synced, err = syncs(); err != nil {
			return measure{}, err
		}
	}
	o, err := closedLoop(to, all, batchSize, connections, 0, s.last)
	if err != nil {
		return measure{}, err
	}
	m := o.measure(system, p.cpu()-before, p)
	m.Syncs = -1
	if syncs != nil {
		now, err := syncs()
		if err != nil {
			return measure{}, err
		}
		m.Syncs = now - synced
	}
	return m, nil
}

func (o outcome) measure(system string, cpu time.Duration, p *process) measure {
	return measure{
		System: system, Events: o.Events, Rate: o.rate(), Answers: o.Requests,
		CPU: float64(cpu.Microseconds()) / float64(o.Events), Memory: p.most.Load(),
		P50: float64(o.P50.Microseconds()) / 1e3, P99: float64(o.P99.Microseconds()) / 1e3, Wall: o.Wall.Seconds(),
	}
}

// naruRows is row 3: from the first byte sent until SQL counts every event in
// committed Iceberg files.
func naruRows(s settings) (measure, error) {
	p, address, folder, err := s.startNaru("naru")
	if err != nil {
		return measure{}, err
	}
	defer os.RemoveAll(folder)
	m, err := s.naruRows(p, address)
	if stopErr := p.stop(); err == nil {
		err = stopErr
	}
	return m, err
}

func (s settings) naruRows(p *process, address string) (measure, error) {
	all, err := bodies(s.corpus, s.events, batchSize)
	if err != nil {
		return measure{}, err
	}
	warm, err := closedLoop(target{address, "/v1/events?type=warm_up"}, all, batchSize, connections, 0, s.warm)
	if err != nil {
		return measure{}, err
	}
	if err := waitRows(address, "warm_up", warm.Events); err != nil {
		return measure{}, err
	}
	before := p.cpu()
	synced, err := syncs(address)
	if err != nil {
		return measure{}, err
	}
	began := time.Now()
	o, err := closedLoop(target{address, "/v1/events?type=page"}, all, batchSize, connections, s.rounds, 0)
	if err != nil {
		return measure{}, err
	}
	if err := waitRows(address, "page", o.Events); err != nil {
		return measure{}, err
	}
	o.Wall = time.Since(began)
	m := o.measure("naru", p.cpu()-before, p)
	now, err := syncs(address)
	m.Syncs = now - synced
	return m, err
}

// waitRows polls until a table has so many rows.
func waitRows(address, table string, want int64) error {
	const within = 5 * time.Minute
	deadline := time.Now().Add(within)
	last := ""
	for time.Now().Before(deadline) {
		resp, err := http.Post("http://"+address+"/v1/sql", "text/plain", strings.NewReader("select count(*) from "+table))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		var answer struct{ Rows [][]int64 }
		if last = string(text); json.Unmarshal(text, &answer) == nil && len(answer.Rows) == 1 {
			if n := answer.Rows[0][0]; n == want {
				return nil
			} else if n > want {
				return fmt.Errorf("count rows of %s: %d, more than the %d sent", table, n, want)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("count rows of %s: not %d within %v, but %.200s", table, want, within, last)
}

// bentoRows is row 3's nearest peer: Parquet files, no table, no fsync.
func bentoRows(s settings) (measure, error) {
	p, folder, err := s.startBento("bento_parquet.yaml")
	if err != nil {
		return measure{}, err
	}
	defer os.RemoveAll(folder)
	defer func() { _ = p.stop() }()
	all, err := bodies(s.corpus, s.events, batchSize)
	if err != nil {
		return measure{}, err
	}
	if _, err := closedLoop(target{bentoAddress, "/post"}, all, batchSize, bentoParquetConnections, 0, s.warm); err != nil {
		return measure{}, err
	}
	before := p.cpu()
	o, err := closedLoop(target{bentoAddress, "/post"}, all, batchSize, bentoParquetConnections, 1, 0)
	if err != nil {
		return measure{}, err
	}
	m := o.measure("Bento → Parquet", p.cpu()-before, p)
	m.Syncs = -1
	return m, nil
}
