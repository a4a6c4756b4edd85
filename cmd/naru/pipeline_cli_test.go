package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/config"
	"naru/internal/event"
	"naru/internal/pipeline/definition"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
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

const routedPipeline = `from: {types: [edit]}
steps:
  - sql: SELECT page, CAST(size AS BIGINT) AS size FROM input
to:
  - table: all_of_them
  - {table: large, name: large, where: size > 100}
  - {file: out, where: _type = 'edit' AND page LIKE 'S%'}
tests:
  - name: by sink
    input:
      - {page: Seoul, size: "12"}
      - {page: Busan, size: "113"}
    rows:
      large: [{page: Busan}]
      file: [{page: Seoul, size: 12}]
  - name: all
    input: [{page: Seoul, size: "12"}, {page: Busan, size: "113"}]
    rows: [{page: Seoul}, {page: Busan}]
`

func TestPipelineTestBySink(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pipelines", "edits.yaml")
	writeFile(t, file, routedPipeline)
	code, out, errs := call(t, "", nil, "pipeline", "test", "--dir", dir)
	require.Zero(t, code, out+errs)
	require.Equal(t, "edits: by sink: passed\nedits: all: passed\n", out)

	writeFile(t, file, strings.Replace(routedPipeline, "large: [{page: Busan}]", "large: []", 1))
	code, out, _ = call(t, "", nil, "pipeline", "test", "--dir", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "large row 1  no row  {\"page\":\"Busan\",\"size\":113}\n")

	writeFile(t, file, strings.Replace(routedPipeline, "size > 100", "sze > 100", 1))
	code, out, _ = call(t, "", nil, "check", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, `pipelines/edits.yaml:6: to: where of large: Binder Error: Referenced column "sze" not found`)
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

// The latest events of a type, over segments and in the order of the log.
func TestLatest(t *testing.T) {
	f := config.Folder(t.TempDir())
	cfg := seglog.DefaultConfig()
	cfg.Segment, cfg.Reserve = 64*quantity.KiB, 0
	require.NoError(t, vfs.OS().MkdirAll(f.Log()))
	log, err := seglog.Open(vfs.OS(), f.Log(), cfg, nil)
	require.NoError(t, err)
	for i := range 40 { // some five in a segment
		var b recordbatch.Builder
		b.Reset(time.Now())
		for _, typ := range []string{"edit", "view", "edit"} {
			b.AppendEvent(&event.Event{ID: fmt.Append(nil, i), Source: []byte("/t"), Type: []byte(typ), Data: []byte(`{"a":"` + strings.Repeat("x", 4000) + `"}`)})
		}
		_, err := log.Append(t.Context(), stream.Write{Stream: "events", Batch: b.Finish(nil, recordbatch.None), Count: 3})
		require.NoError(t, err)
	}
	require.NoError(t, log.Close())
	segments, err := seglog.List(vfs.OS(), f.Log())
	require.NoError(t, err)
	require.Greater(t, len(segments), 4)
	for _, last := range []int{1, 2, 3, 25, 79, 80, 1000} {
		found, err := latest(t.Context(), f, &definition.Definition{From: definition.From{Stream: "events", Types: []string{"edit"}}}, last)
		require.NoError(t, err)
		var want, got []int64
		for i := range int64(40) {
			want = append(want, 3*i, 3*i+2)
		}
		want = want[max(len(want)-last, 0):]
		for _, one := range found {
			got = append(got, one.offsets...)
			n := 0
			require.NoError(t, new(recordbatch.Decoder).EachIn(one.batch, func(e *event.Event) error {
				require.Contains(t, string(e.Data), "xxx")
				n++
				return nil
			}))
			require.Equal(t, 3, n)
		}
		require.Equal(t, want, got, last)
	}
}
