package e2e

import (
	"context"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// lagMost is what the lag of a sink at work stays under. A machine that does other things
// at the same time, or whose disk stands still, exceeds it for a moment: half of the looks
// must be under it, the largest are in the test's log. Where a look itself takes longer
// than lookMost, or there were fewer than looksLeast, nothing is judged.
const (
	lagMost    = 2 * time.Second
	lookMost   = 250 * time.Millisecond
	looksLeast = 20
)

// lags looks at naru_pipeline_lag_seconds all along, over the lives of a server.
//
// The seconds right behind a start are told from the others: they last until a sink has
// committed something that came since, and with it all from before.
type lags struct {
	pipeline string
	stop     context.CancelFunc
	done     chan struct{}

	mu     sync.Mutex
	url    string // of the server; "": it is killed
	before int    // events that it was sent before its start
	ready  time.Time
	took   []time.Duration // by each look
	sinks  map[string]*sinkLags
}

// sinkLags are those of one sink.
type sinkLags struct {
	steady  []time.Duration
	back    time.Duration // the longest that it took behind a start until it was there
	most    time.Duration // at any time
	working time.Time     // the start behind which it is there
}

func watchLags(t *testing.T, pipeline string) *lags {
	ctx, cancel := context.WithCancel(t.Context())
	l := &lags{pipeline: pipeline, stop: cancel, done: make(chan struct{}), sinks: map[string]*sinkLags{}}
	go func() {
		defer close(l.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.look(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(l.end)
	return l
}

func (l *lags) end() {
	l.stop()
	<-l.done
}

// serves says which server is at work, and how many events were sent before; nil: none.
func (l *lags) serves(s *server, before int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.url, l.before, l.ready = "", before, time.Now()
	if s != nil {
		l.url = s.url
	}
}

var pipelineMetric = regexp.MustCompile(`(?m)^naru_pipeline_(lag_seconds|events_total)\{pipeline="([^"]*)",(?:result="[^"]*",)?sink="([^"]*)"(?:,result="[^"]*")?\} (\S+)$`)

// look looks once. A server that has just been killed does not answer.
func (l *lags) look(ctx context.Context) {
	l.mu.Lock()
	url, before, ready := l.url, l.before, l.ready
	l.mu.Unlock()
	if url == "" {
		return
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	took := time.Since(began)
	lag, passed := map[string]time.Duration{}, map[string]int{}
	for _, m := range pipelineMetric.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseFloat(m[4], 64)
		if err != nil || m[2] != l.pipeline {
			continue
		}
		if m[1] == "lag_seconds" {
			lag[m[3]] = time.Duration(n * float64(time.Second))
		} else {
			passed[m[3]] += int(n)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	for name, d := range lag {
		s := l.sinks[name]
		if s == nil {
			s = &sinkLags{}
			l.sinks[name] = s
		}
		s.most = max(s.most, d)
		if s.working.Equal(ready) {
			s.steady = append(s.steady, d)
		} else if passed[name] > before {
			s.working, s.back = ready, max(s.back, time.Since(ready))
		}
	}
}

// judge looks once more and ends the watch. The lags of all sinks but one have stayed
// low, and that of the one has not, if it hung all the time.
func (l *lags) judge(t *testing.T, hung bool, hanging string) {
	t.Helper()
	l.end()
	l.look(t.Context())
	slices.Sort(l.took)
	timely := len(l.took) > 0 && l.took[len(l.took)/2] < lookMost
	for _, name := range slices.Sorted(maps.Keys(l.sinks)) {
		s := l.sinks[name]
		slices.Sort(s.steady)
		if len(s.steady) == 0 {
			t.Logf("%-9s never at work; lag at most %.2f s", name, s.most.Seconds())
			continue
		}
		median, most := s.steady[len(s.steady)/2], s.steady[len(s.steady)-1]
		at19of20 := s.steady[len(s.steady)*19/20]
		t.Logf("%-9s lag median %.2f s, 95th percentile %.2f, largest %.2f of %d looks; behind a start at work within %.2f s, lag until then at most %.2f s",
			name, median.Seconds(), at19of20.Seconds(), most.Seconds(), len(s.steady), s.back.Seconds(), s.most.Seconds())
		if name != hanging && timely && len(s.steady) >= looksLeast && median > lagMost {
			t.Errorf("%s lags while %s hangs", name, hanging)
		}
	}
	if s := l.sinks[hanging]; hung && (s == nil || s.most < lagMost) {
		t.Errorf("%s hangs and does not lag: %+v", hanging, s)
	}
}
