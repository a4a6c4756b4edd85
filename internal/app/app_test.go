package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/serve/status"
	"naru/internal/vfs"
)

// run is a server under test.
type run struct {
	t     *testing.T
	url   string
	stop  context.CancelFunc
	ended chan error
}

func options(t *testing.T, dir string) Options {
	t.Helper()
	folder, err := config.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(vfs.OS(), folder)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen.HTTP = "127.0.0.1:0"
	cfg.Log.Segment = 4 << 20
	cfg.Pipelines.CommitInterval = config.Default().Pipelines.BackoffMin // soon
	return Options{Folder: folder, Config: *cfg, Pipelines: true, Version: "test", Logger: obs.Discard()}
}

func serve(t *testing.T, o Options) *run {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &run{t: t, stop: stop, ended: make(chan error, 1)}
	ready := make(chan string, 1)
	o.Ready = func(url string) { ready <- url }
	go func() { r.ended <- Serve(ctx, o) }()
	select {
	case r.url = <-ready:
	case err := <-r.ended:
		t.Fatalf("not ready: %v", err)
	}
	t.Cleanup(func() {
		stop()
		<-r.ended // closed, or the error that nobody has asked for
	})
	return r
}

// end stops the server and returns how it ended.
func (r *run) end() error {
	r.stop()
	err := <-r.ended
	close(r.ended)
	return err
}

func (r *run) do(method, path, body string, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (r *run) status() (rep status.Report) {
	r.t.Helper()
	code, text := r.do("GET", "/v1/status", "")
	if err := json.Unmarshal([]byte(text), &rep); err != nil || code != 200 {
		r.t.Fatalf("status: %d %s %v", code, text, err)
	}
	return rep
}

// settle waits until everything is written.
func (r *run) settle() status.Report {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		rep := r.status()
		left := int64(0)
		for _, s := range rep.Streams {
			left += s.NotYetWritten
		}
		if left == 0 {
			return rep
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d events are not written: %+v", left, rep)
		}
	}
}

func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	s := serve(t, options(t, dir))
	if code, text := s.do("POST", "/v1/events?type=page", "{\"path\":\"/a\"}\nbroken\n{\"path\":\"/b\"}\n", "Content-Type", "application/x-ndjson"); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	rep := s.settle()
	if !rep.Balanced || len(rep.Streams) != 2 || rep.Streams[0].Acknowledged != 3 || rep.Streams[0].Written != 2 || rep.Streams[0].Rejections != 1 {
		t.Errorf("%+v", rep)
	}
	if code, text := s.do("POST", "/v1/sql", "select count(*) n from page", "Accept", "text/csv"); code != 200 || text != "n\n2\n" {
		t.Errorf("%d %s", code, text)
	}
	for path, want := range map[string]string{
		"/": "curl -d", "/healthz": "ok", "/readyz": "ready", "/v1/streams/events/events": `"data":{"path":"/b"}`,
		"/metrics": `naru_stream_events_total{fate="written",pipeline="default/events",stream="events"} 2`,
	} {
		if code, text := s.do("GET", path, ""); code != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d, without %q: %.300s", path, code, want, text)
		}
	}
	id := rep.Folder.ID
	if err := s.end(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	s = serve(t, options(t, dir))
	if rep := s.settle(); rep.Folder.ID != id || rep.Streams[0].Acknowledged != 3 || rep.Streams[0].Written != 2 || !rep.Balanced {
		t.Errorf("after a restart: %+v", rep)
	}
	if err := s.end(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestOtherSitesAreKeptOut(t *testing.T) {
	s := serve(t, options(t, t.TempDir()))
	for _, path := range []string{"/", "/v1/status", "/v1/streams/events/events", "/healthz", "/readyz", "/metrics"} {
		if code, _ := s.do("GET", path, "", "Origin", "https://evil.example"); code != 403 {
			t.Errorf("%s for a foreign page: %d", path, code)
		}
	}
	if code, _ := s.do("POST", "/v1/sql", "select 1", "Sec-Fetch-Site", "cross-site"); code != 403 {
		t.Errorf("/v1/sql for a foreign page: %d", code)
	}
	if code, text := s.do("POST", "/v1/events", `{"a":1}`, "Origin", "https://shop.example"); code != 200 {
		t.Errorf("an event of a foreign page: %d %s", code, text)
	}
}

func TestWithoutPipelines(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir)
	o.Pipelines = false
	s := serve(t, o)
	s.do("POST", "/v1/events?type=page", `{"a":1}`)
	if rep := s.status(); rep.Streams[0].NotYetWritten != 1 || !rep.Balanced || len(rep.Tables) != 0 {
		t.Errorf("%+v", rep)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	s = serve(t, options(t, dir))
	if rep := s.settle(); len(rep.Tables) != 1 || rep.Tables[0].Rows != 1 {
		t.Errorf("a later start: %+v", rep)
	}
}

func TestStopEndsFollowers(t *testing.T) {
	s := serve(t, options(t, t.TempDir()))
	s.do("POST", "/v1/events", `{"a":1}`)
	resp, err := http.Get(s.url + "/v1/streams/events/events?last=1&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := s.end(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRefusedBeforeAnythingIsTouched(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for addr, want := range map[string]string{
		taken.Addr().String(): taken.Addr().String(), "0.0.0.0:0": "not a loopback address", ":8080": "not a loopback address", "nonsense": "HOST:PORT",
	} {
		dir := filepath.Join(t.TempDir(), "p")
		o := options(t, dir)
		o.Config.Listen.HTTP = addr
		o.Ready = func(string) { t.Errorf("%s: ready", addr) }
		err := Serve(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (%s)", addr, err, fault.HintOf(err))
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: the folder was touched (%v)", addr, err)
		}
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := serve(t, options(t, dir))
	o := options(t, dir)
	o.Ready = func(string) { t.Error("two servers on one folder") }
	if err := Serve(t.Context(), o); !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	if code, _ := first.do("POST", "/v1/events", `{"a":1}`); code != 200 {
		t.Errorf("the first server: %d", code)
	}
}

// brokenDisk fails every sync in the log's folder from some moment on.
type brokenDisk struct {
	vfs.FS
	broken atomic.Bool
}

func (d *brokenDisk) Create(p string) (vfs.File, error)        { return d.file(d.FS.Create(p)) }
func (d *brokenDisk) OpenReadWrite(p string) (vfs.File, error) { return d.file(d.FS.OpenReadWrite(p)) }

func (d *brokenDisk) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil || filepath.Base(filepath.Dir(f.Name())) != "log" {
		return f, err
	}
	return &brokenFile{f, d}, nil
}

type brokenFile struct {
	vfs.File
	disk *brokenDisk
}

func (f *brokenFile) Sync() error {
	if f.disk.broken.Load() {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: syscall.EIO}
	}
	return f.File.Sync()
}

// TestFailedSyncEndsTheServer: nothing is acknowledged that is not on disk, and
// the next start finds everything that was.
func TestFailedSyncEndsTheServer(t *testing.T) {
	dir := t.TempDir()
	disk := &brokenDisk{FS: vfs.OS()}
	o := options(t, dir)
	o.FS = disk
	s := serve(t, o)
	if code, text := s.do("POST", "/v1/events?type=page", `{"a":1}`); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	disk.broken.Store(true)
	req, err := http.NewRequest("POST", s.url+"/v1/events?type=page", strings.NewReader(`{"a":2}`))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		if resp.Body.Close(); resp.StatusCode != 503 {
			t.Errorf("an event that is not on disk: %d", resp.StatusCode)
		}
	}
	err = <-s.ended
	close(s.ended)
	if !errors.Is(err, fault.ErrPoisoned) || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("ended with %v", err)
	}
	s = serve(t, options(t, dir))
	rep := s.settle()
	if n := rep.Streams[0].Acknowledged; n < 1 || n > 2 || !rep.Balanced {
		t.Errorf("after the failure: %+v", rep)
	}
}

func TestHealth(t *testing.T) {
	h := newHealth()
	if err := h.ready(t.Context()); err != nil {
		t.Errorf("at first: %v", err)
	}
	h.full.Store(true)
	if err := h.ready(t.Context()); !errors.Is(err, errDiskFull) {
		t.Errorf("disk full: %v", err)
	}
	h.poison(errors.New("first"))
	h.poison(errors.New("second"))
	if err := h.ready(t.Context()); !errors.Is(err, fault.ErrPoisoned) || !strings.Contains(err.Error(), "first") {
		t.Errorf("poisoned: %v", err)
	}
}
