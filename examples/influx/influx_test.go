package influx

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/sink"
	"naru/internal/sink/sinktest"
)

// The page shows the code as it stands here.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/sinks/writing.md")
	require.NoError(t, err)
	for _, name := range []string{"influx.go", "influx_test.go"} {
		code, err := os.ReadFile(name)
		require.NoError(t, err)
		text := string(code)
		if name == "influx_test.go" {
			_, text, _ = strings.Cut(text, "// The suite.\n")
		}
		require.Contains(t, string(page), "```go\n"+text+"```\n", "%s: copy it to the page", name)
	}
}

// The suite.
func TestSink(t *testing.T) { sinktest.Run(t, newHarness) }

var point = regexp.MustCompile(`(?m)^events,naru_key=(\S+) .*?,_id="([^"]*)"`)

// newHarness is a server that knows its points by their tags, and a sink for it.
func newHarness(t *testing.T) sinktest.Harness {
	var mu sync.Mutex
	points := map[string]string{} // ids by key
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range point.FindAllStringSubmatch(string(body), -1) {
			points[m[1]] = m[2]
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	settings := &Settings{URL: server.URL, Measurement: "events"}
	require.NoError(t, settings.Validate())
	return sinktest.Harness{
		Tabular: true,
		Open: func(t *testing.T) sink.Sink {
			s, err := settings.Open(t.Context(), sink.Env{Getenv: func(string) string { return "" }})
			require.NoError(t, err)
			return s
		},
		IDs: func(*testing.T) (ids []string) {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range points {
				ids = append(ids, id)
			}
			return ids
		},
	}
}
