package duck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/geoip/geoiptest"
	"naru/internal/row"
	"naru/internal/strict"
	"naru/internal/transform"
)

var docExample = regexp.MustCompile("(?s)```yaml\n(steps:.*?)```\n```json in\n(.*?)\n```\n```json out\n(.*?)```\n")

// TestStepDocs runs the examples of docs/steps.md and of the pages of families, each of
// which has some. -rewrite writes what comes.
func TestStepDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/steps/*.md")
	require.NoError(t, err)
	require.Len(t, pages, 7, "a page for each family")
	cfg := DefaultStepsConfig()
	cfg.Folder = t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(cfg.Folder, "geo"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Folder, "geo", "city.mmdb"), geoiptest.Database("KR", "Seoul", 37.5), 0o644))
	s, err := NewSteps(cfg, StepsDeps{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for _, page := range append(pages, "../../docs/steps.md") {
		t.Run(filepath.Base(page), func(t *testing.T) {
			text, err := os.ReadFile(page)
			require.NoError(t, err)
			examples := 0
			got := docExample.ReplaceAllStringFunc(string(text), func(example string) string {
				m := docExample.FindStringSubmatch(example)
				examples++
				return strings.TrimSuffix(example, m[3]+"```\n") + documented(t, s, m[1], m[2]) + "```\n"
			})
			require.NotZero(t, examples, "no example that can be run")
			require.Equal(t, strings.Count(got, "```yaml\nsteps:"), examples, "an example without its input and output")
			if *rewrite {
				require.NoError(t, os.WriteFile(page, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

// documented is what comes of an example: rows, with the sinks that they go to where
// some of these choose.
func documented(t *testing.T, s *Steps, text, data string) string {
	t.Helper()
	var file struct {
		Steps []transform.Step    `yaml:"steps"`
		To    []map[string]string `yaml:"to"`
	}
	d := strict.New("p.yaml", &file)
	d.Decode(strings.NewReader(text), &file)
	require.Empty(t, d.Problems())
	list, all := file.Steps, []string(nil)
	for _, to := range file.To {
		if to["where"] != "" {
			list = append(list, transform.Where(to["name"], to["where"], 1))
		}
	}
	for _, to := range file.To {
		all = append(all, to["name"])
	}
	require.Empty(t, s.Check(context.Background(), "steps.md", list, transform.Input{Stream: "events"}))
	out := apply(t, openSteps(t, s, list), batchOf(t, 0, strings.Split(data, "\n")...))
	var rows strings.Builder
	for _, e := range out.Batch.Rows.Whole() {
		rows.Write(row.AppendJSON(nil, out.Batch.Columns, &e, 0))
		if len(all) > 0 {
			rows.WriteString(" → " + strings.Join(slices.DeleteFunc(slices.Clone(all), func(name string) bool {
				n := slices.IndexFunc(list[len(file.Steps):], func(r transform.Step) bool { return r.To == name })
				return n >= 0 && e.To&(1<<n) == 0
			}), ", "))
		}
		rows.WriteString("\n")
	}
	for _, r := range out.Refused {
		fmt.Fprintf(&rows, "refused by %s: %s\n", r.By(), r.Detail)
	}
	return rows.String()
}
