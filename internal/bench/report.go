package bench

import (
	"time"

	"naru/internal/quantity"
	"naru/internal/vfs"
)

// Report is what was measured, and what follows from it. Times are in
// milliseconds unless a name says otherwise.
type Report struct {
	Version   string    `json:"version"` // of naru
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"` // all of it
	Machine   Machine   `json:"machine"`
	Folder    Folder    `json:"folder"`
	Settings  Settings  `json:"settings"`
	Disk      Disk      `json:"disk"`
	Batches   Flow      `json:"ingest_batches"` // to the door, no tables loaded
	Single    Flow      `json:"ingest_single"`  // one event a request, no tables loaded
	Load      Flow      `json:"load"`           // from the first byte until every row is committed
	Queries   []Query   `json:"queries"`        // over the rows that Load has brought
	Freshness Freshness `json:"freshness"`
	Advice    []Advice  `json:"advice"`
}

// Machine is where it ran.
type Machine struct {
	CPU      string  `json:"cpu"`
	Cores    int     `json:"cores"`      // that this process may use
	GoProcs  int     `json:"gomaxprocs"` // that Go uses of them
	Memory   int64   `json:"memory_bytes"`
	Kernel   string  `json:"kernel"`
	LoadOnce float64 `json:"load_1m"` // of the system, before anything was measured
}

// Folder is what was measured for.
type Folder struct {
	Dir    string `json:"dir"`
	Beside bool   `json:"beside_server"` // a server was running on it
	Free   int64  `json:"free_bytes"`
	Log    int64  `json:"log_bytes"` // of the folder's own log
}

// Settings are those of the folder that the advice speaks of.
type Settings struct {
	Segment        quantity.Bytes    `json:"log.segment"`
	Recycle        quantity.Bytes    `json:"log.recycle"`
	RetainBytes    quantity.Bytes    `json:"log.retain_bytes"`
	Reserve        quantity.Bytes    `json:"log.reserve"`
	Queue          quantity.Bytes    `json:"log.queue"`
	InFlight       quantity.Bytes    `json:"collect.in_flight"`
	LakeMemory     quantity.Bytes    `json:"lake.memory"`
	CommitInterval quantity.Duration `json:"pipelines.commit_interval"`
	HotTailMemory  quantity.Bytes    `json:"hot_tail.memory"`
	QueryMemory    quantity.Bytes    `json:"query.memory"`
}

// Disk is what a write that is made durable costs.
type Disk struct {
	vfs.Kind
	Syncs      []Sync  `json:"syncs"`
	Sequential float64 `json:"sequential_bytes_per_s"` // 1 MiB writes, a sync every 64 MiB
}

// Sync is write + fdatasync of so many bytes.
type Sync struct {
	Bytes   int     `json:"bytes"`
	Growing bool    `json:"growing"` // at the end of a file; else over blocks that were written before
	Count   int     `json:"count"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// sync finds one of the syncs.
func (d Disk) sync(bytes int, growing bool) Sync {
	for _, s := range d.Syncs {
		if s.Bytes == bytes && s.Growing == growing {
			return s
		}
	}
	return Sync{}
}

// Flow is a stream of events into a server.
type Flow struct {
	PerRequest  int     `json:"events_per_request"`
	Connections int     `json:"connections"`
	Requests    int64   `json:"requests"`
	Events      int64   `json:"events"`
	Seconds     float64 `json:"seconds"`
	Rate        float64 `json:"events_per_s"`
	P50         float64 `json:"p50_ms"` // from a request's first byte to its answer
	P99         float64 `json:"p99_ms"`
	ServerCPU   float64 `json:"server_cpu_us_per_event"`
	SenderCPU   float64 `json:"sender_cpu_us_per_event"`
	Busy        float64 `json:"cpu_share"`        // server and sender, of all cores
	Others      float64 `json:"others_cpu_share"` // other programs, of all of the machine's cores
	Syncing     float64 `json:"sync_share"`       // of the time, in fdatasync of the log
	Syncs       int64   `json:"fsyncs"`
	LogBytes    float64 `json:"log_bytes_per_event"`
	Memory      int64   `json:"server_peak_bytes"` // anonymous and shared; mapped files are the page cache's
	// CommitInterval holds for Load only.
	CommitInterval quantity.Duration `json:"commit_interval,omitzero"`
}

// Query is one question, asked again and again.
type Query struct {
	Name string  `json:"name"`
	SQL  string  `json:"sql"`
	Rows int64   `json:"rows"` // of the table
	Runs int     `json:"runs"`
	P50  float64 `json:"p50_ms"`
	Max  float64 `json:"max_ms"`
}

// Freshness is the time from an acknowledgement until a query has seen it,
// with events at a steady, modest rate.
type Freshness struct {
	Rate           float64           `json:"events_per_s"`
	Requests       int64             `json:"requests"`
	Events         int64             `json:"events"`
	P50            float64           `json:"p50_ms"`
	P99            float64           `json:"p99_ms"`
	Max            float64           `json:"max_ms"`
	CommitInterval quantity.Duration `json:"commit_interval"`
}

// ms gives milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
