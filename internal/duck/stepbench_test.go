package duck

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/transform"
)

// edits are events like those of the Wikipedia stream: 18 fields, 440 bytes.
func edits(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"isRobot":%t,"channel":"#%s.wikipedia","timestamp":"2015-09-12T00:46:58.%03dZ","flags":"MB","isUnpatrolled":false,"page":"Talk:Oswald Tilghman %d","diffUrl":"https://en.wikipedia.org/w/index.php?diff=%d&oldid=670952700","added":%d,"comment":"/* The village of %d */ revised","commentLength":%d,"isNew":false,"isMinor":%t,"delta":%d,"isAnonymous":true,"user":"GELongstreet%d","deltaBucket":%d.0,"deleted":0,"namespace":"Talk"}`,
			i%3 == 0, []string{"en", "de", "fr", "ko"}[i%4], i%1000, i, i*7, i%200, i, i%90, i%2 == 0, i%300-50, i%500, i%300/100*100)
	}
	return list
}

// bigBatch is what a pipeline reads at once: record batches of 1 MiB.
func bigBatch(t testing.TB, n int) (*event.Batch, int) {
	all := edits(n)
	out := &event.Batch{Stream: "events", Incarnation: event.Incarnation{1}, Next: int64(n)}
	for from := 0; from < n; from += 2000 {
		one := batchOf(t, int64(from), all[from:min(from+2000, n)]...)
		out.Raw = append(out.Raw, one.Raw...)
	}
	size := 0
	for _, d := range all {
		size += len(d)
	}
	return out, size
}

func BenchmarkSteps(b *testing.B) {
	everything := func(*event.Event) bool { return true }
	for _, c := range []struct {
		name string
		list []transform.Step
	}{
		{"filter", sqlSteps("SELECT * FROM input WHERE added > 1000000")},
		{"project", sqlSteps(`SELECT _id, _time, channel, page, "user", added FROM input WHERE NOT isRobot`)},
		{"all", sqlSteps("SELECT *, upper(channel) AS up FROM input")},
	} {
		for _, n := range []int{1, 100, 20000} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				s := stepsFor(b, StepsDeps{})
				tr, err := s.Open(context.Background(), c.list, transform.Input{Stream: "events"})
				require.NoError(b, err)
				defer tr.Close()
				in, size := bigBatch(b, n)
				for range 2 {
					_, err := tr.Apply(context.Background(), in, everything)
					require.NoError(b, err)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := tr.Apply(context.Background(), in, everything); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
	b.Run("none/20000", func(b *testing.B) { // what a sink does to events without steps
		in, size := bigBatch(b, 20000)
		var d recordbatch.Decoder
		b.SetBytes(int64(size))
		var buf []byte
		for b.Loop() {
			err := d.EachIn(in, func(e *event.Event) error {
				buf = row.AppendJSON(buf[:0], nil, e, 0)
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(20000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}
