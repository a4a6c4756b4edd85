package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const editsPipeline = `from: {types: [edit]}
steps:
  - filter: NOT robot
  - sql: SELECT _id, page, CAST(size AS BIGINT) AS size FROM input
to:
  - table: human_edits
tests:
  - name: robots stay out
    input:
      - {page: Seoul, robot: false, size: "12"}
      - {page: Busan, robot: true, size: "13"}
    rows:
      - {page: Seoul, size: 12.0}
  - name: sizes
    input:
      - {page: Jeju, robot: false, size: many}
    rejections: 1
`

func TestPipelineTest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pipelines", "edits.yaml")
	writeFile(t, file, editsPipeline)
	writeFile(t, filepath.Join(dir, "pipelines", "plain.yaml"), "to: [{table: all_of_them}]\n")
	code, out, errs := call(t, "", nil, "pipeline", "test", "--dir", dir)
	require.Zero(t, code, errs)
	require.Equal(t, "edits: robots stay out: passed\nedits: sizes: passed\nplain: no tests\n", out)

	writeFile(t, file, strings.Replace(editsPipeline, "12.0", "13", 1))
	code, out, errs = call(t, "", nil, "pipeline", "test", "edits", "--dir", dir)
	require.Equal(t, 1, code)
	require.Equal(t, `edits: robots stay out: FAILED (pipelines/edits.yaml:8)
              want  got
  row 1 size  13    12
edits: sizes: passed
`, out)
	require.Equal(t, "naru: test pipelines: 1 of 2 tests failed\n", errs)
	code, out, _ = call(t, "", nil, "pipeline", "test", "--dir", dir, "--json")
	var all []struct {
		Passed      bool
		Differences []struct{ Where, Want, Got string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	require.Equal(t, 1, code)
	require.Equal(t, "row 1 size", all[0].Differences[0].Where)
	require.True(t, all[1].Passed)

	code, _, errs = call(t, "", nil, "pipeline", "test", "edit", "--dir", dir)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "did you mean edits?")
}

func TestPipelinesAreChecked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pipelines", "edits.yaml")
	writeFile(t, file, editsPipeline)
	code, out, errs := call(t, "", nil, "check", dir)
	require.Zero(t, code, out+errs)
	for from, to := range map[string][2]string{
		"NOT robot":     {"count(robot) > 1", "pipelines/edits.yaml:3: steps: step 1 filter: the aggregate count cannot stand over input"},
		"table: human":  {"tabel: human", "pipelines/edits.yaml:6: to[0].tabel: there is no such sink"},
		"{page: Jeju,":  {"{data: {}, page: Jeju,", "pipelines/edits.yaml:16: tests.input[0]: the key data makes this an event"},
		"SELECT _id, p": {"SELEC _id, p", "pipelines/edits.yaml:4: steps: step 2 sql: "},
	} {
		writeFile(t, file, strings.Replace(editsPipeline, from, to[0], 1))
		code, out, _ := call(t, "", nil, "check", dir)
		require.Equal(t, 1, code, out)
		require.Contains(t, out, to[1])
		code, _, errs := call(t, "", nil, "pipeline", "test", "--dir", dir)
		require.Equal(t, 1, code)
		require.Contains(t, errs, to[1])
	}
}
