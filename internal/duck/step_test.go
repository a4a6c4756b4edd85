package duck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/strict"
	"naru/internal/transform"
)

// stepsFor makes an engine without tables.
func stepsFor(t testing.TB, deps StepsDeps) *Steps {
	t.Helper()
	s, err := NewSteps(DefaultStepsConfig(), deps)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func sqlSteps(texts ...string) (list []transform.Step) {
	for i, text := range texts {
		list = append(list, transform.Step{Line: 10 + i, Kind: "sql", SQL: text})
	}
	return list
}

// received is when all events of these tests came.
var received = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// batchOf is a batch of events with that data, from an offset on.
func batchOf(t testing.TB, from int64, data ...string) *event.Batch {
	t.Helper()
	var b recordbatch.Builder
	b.Reset(received)
	for i, d := range data {
		b.AppendEvent(&event.Event{ID: fmt.Appendf(nil, "id-%d", from+int64(i)), Source: []byte("test"), Type: []byte("edit"), Time: received.Add(time.Duration(from+int64(i)) * time.Second), Data: []byte(d)})
	}
	raw := b.Finish(nil, recordbatch.None)
	recordbatch.SetBaseOffset(raw, from)
	return &event.Batch{Stream: "events", Incarnation: event.Incarnation{1}, Partition: 3, From: from, Next: from + int64(len(data)), Raw: [][]byte{raw}}
}

func openSteps(t testing.TB, s *Steps, list []transform.Step) transform.Transform {
	t.Helper()
	tr, err := s.Open(context.Background(), list, transform.Input{Stream: "events"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

func apply(t testing.TB, tr transform.Transform, b *event.Batch) *transform.Applied {
	t.Helper()
	out, err := tr.Apply(context.Background(), b, func(*event.Event) bool { return true })
	require.NoError(t, err)
	return out
}

// dump shows rows: offset.row and the JSON of their columns.
func dump(out *transform.Applied) string {
	var s strings.Builder
	for _, e := range out.Batch.Rows.Whole() {
		fmt.Fprintf(&s, "%d.%d %s\n", e.Offset, e.Row, row.AppendJSON(nil, out.Batch.Columns, &e, out.Batch.Partition))
	}
	for _, r := range out.Refused {
		fmt.Fprintf(&s, "%d refused by %s: %s\n", r.Offset, r.Step, r.Detail)
	}
	fmt.Fprintf(&s, "written %d filtered %d", out.Written, out.Filtered)
	return s.String()
}

func TestSteps(t *testing.T) {
	s := stepsFor(t, StepsDeps{})
	tr := openSteps(t, s, sqlSteps("SELECT _id, channel, added + 1 AS more FROM input WHERE NOT robot", "SELECT *, upper(channel) AS up FROM input WHERE more > 2"))
	out := apply(t, tr, batchOf(t, 0,
		`{"channel": "#en with a name that is long", "added": 4, "robot": false}`,
		`{"channel": "#de", "added": 1, "robot": false}`,
		`{"channel": "#fr", "added": 7, "robot": true}`,
		`{"channel": "#fr", "added": 7, "robot": false}`))
	require.Equal(t, `0.0 {"_id":"id-0","channel":"#en with a name that is long","more":5,"up":"#EN WITH A NAME THAT IS LONG"}
3.0 {"_id":"id-3","channel":"#fr","more":8,"up":"#FR"}
written 2 filtered 2`, dump(out))
	require.Equal(t, []event.Column{{Name: "_id", Type: "string"}, {Name: "channel", Type: "string"}, {Name: "more", Type: "long"}, {Name: "up", Type: "string"}}, out.Batch.Columns)
}

// stepsIn reads steps as a pipeline's file has them.
func stepsIn(t testing.TB, text string) []transform.Step {
	t.Helper()
	var into struct {
		Steps []transform.Step `yaml:"steps"`
	}
	d := strict.New("p.yaml", &into)
	d.Decode(strings.NewReader(text), &into)
	require.Empty(t, d.Problems())
	return into.Steps
}

// TestStepsReplaceAttributesOfOneRow: what a step says of the attributes of one row is
// not said of the others of its event, nor of other events.
func TestStepsReplaceAttributesOfOneRow(t *testing.T) {
	tr := openSteps(t, stepsFor(t, StepsDeps{}), sqlSteps("SELECT n, CASE WHEN n = 1 THEN 'own' END AS _id, CASE WHEN n = 2 THEN 'who' END AS _subject, CASE WHEN n = 2 THEN 'other' END AS _type, "+
		"CASE WHEN n = 0 THEN TIMESTAMPTZ '2020-01-01 00:00:00Z' END AS _time FROM (SELECT unnest(range(a)) AS n FROM input)"))
	out := apply(t, tr, batchOf(t, 5, `{"a":3}`, `{"a":1}`, `{"a":2}`))
	var got []string
	for _, e := range out.Batch.Rows.Whole() {
		subject := "none"
		if e.Subject != nil {
			subject = fmt.Sprintf("%q", e.Subject)
		}
		got = append(got, fmt.Sprintf("%d.%d %s %s %s %d %t", e.Offset, e.Row, e.ID, e.Type, subject, e.Time.Year(), e.GeneratedID))
	}
	sent := out.Batch.Rows.Whole()[1].Time.Year()
	require.Equal(t, []string{
		"5.0 id-5 edit none 2020 false", fmt.Sprintf("5.1 own edit none %d false", sent), fmt.Sprintf(`5.2 id-5 other "who" %d false`, sent),
		"6.0 id-6 edit none 2020 false",
		"7.0 id-7 edit none 2020 false", fmt.Sprintf("7.1 own edit none %d false", sent),
	}, got)
}

// TestStepScripts runs the scripts of testdata/steps: events, steps and what comes
// of them. -rewrite writes what comes.
func TestStepScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/steps/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	s := stepsFor(t, StepsDeps{Lake: lake.Snapshots{Reader: newLake(t)}})
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			var out strings.Builder
			for i, part := range strings.Split(string(text), "\n\n\n") {
				script, want, _ := strings.Cut(strings.TrimSpace(part), "\n----\n")
				yaml, data, _ := strings.Cut(script, "\n--\n")
				got := runScript(t, s, yaml, data)
				if !*rewrite {
					require.Equal(t, strings.TrimSpace(want), strings.TrimSpace(got), "%s", script)
				}
				if i > 0 {
					out.WriteString("\n\n\n")
				}
				out.WriteString(script + "\n----\n" + strings.TrimSpace(got))
			}
			if *rewrite {
				require.NoError(t, os.WriteFile(f, []byte(out.String()+"\n"), 0o644))
			}
		})
	}
}

func runScript(t *testing.T, s *Steps, yaml, data string) string {
	var into struct {
		Steps []transform.Step `yaml:"steps"`
	}
	d := strict.New("p.yaml", &into)
	d.Decode(strings.NewReader(yaml), &into)
	if p := d.Problems(); len(p) > 0 {
		return p.Error()
	}
	in := transform.Input{Stream: "events"}
	if p := s.Check(context.Background(), "p.yaml", into.Steps, in); len(p) > 0 {
		return p.Error()
	}
	tr, err := s.Open(context.Background(), into.Steps, in)
	if err != nil {
		return "not opened: " + err.Error()
	}
	defer tr.Close()
	out, err := tr.Apply(context.Background(), batchOf(t, 0, strings.Split(data, "\n")...), func(*event.Event) bool { return true })
	if err != nil {
		return "error: " + err.Error()
	}
	var columns []string
	for _, c := range out.Batch.Columns {
		columns = append(columns, c.Name+" "+string(c.Type))
	}
	return strings.Join(columns, ", ") + "\n" + dump(out)
}
