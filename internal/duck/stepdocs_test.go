package duck

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/row"
	"naru/internal/transform"
)

var docExample = regexp.MustCompile("(?s)```yaml\n(steps:.*?)```\n```json in\n(.*?)\n```\n```json out\n(.*?)```\n")

// TestStepDocs runs the examples of docs/steps.md. -rewrite writes what comes.
func TestStepDocs(t *testing.T) {
	const page = "../../docs/steps.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	s := stepsFor(t, StepsDeps{})
	examples := 0
	got := docExample.ReplaceAllStringFunc(string(text), func(example string) string {
		m := docExample.FindStringSubmatch(example)
		list := stepsIn(t, m[1])
		require.Empty(t, s.Check(context.Background(), "steps.md", list, transform.Input{Stream: "events"}))
		out := apply(t, openSteps(t, s, list), batchOf(t, 0, strings.Split(m[2], "\n")...))
		var rows strings.Builder
		for i := range out.Batch.Rows {
			rows.WriteString(string(row.AppendJSON(nil, out.Batch.Columns, &out.Batch.Rows[i], 0)) + "\n")
		}
		for _, r := range out.Refused {
			fmt.Fprintf(&rows, "refused by step %s: %s\n", r.Step, r.Detail)
		}
		examples++
		return strings.TrimSuffix(example, m[3]+"```\n") + rows.String() + "```\n"
	})
	require.Greater(t, examples, 6)
	if *rewrite {
		require.NoError(t, os.WriteFile(page, []byte(got), 0o644))
		return
	}
	require.Equal(t, string(text), got)
}
