package native

import (
	"bytes"
	"syscall"
	"testing"

	"naru/internal/stream/memory"
)

// cpuTime is what the process has used so far, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkDoor is the way from a body of 500 events to the writes for the log.
// On a machine with other work, the CPU time is what counts.
func BenchmarkDoor(b *testing.B) {
	d, _ := newDoor(b, &sink{Log: memory.New()}, nil)
	benchmarkDoor(b, d)
}

// BenchmarkDoorContract is the same with the nine-field contract in force.
func BenchmarkDoorContract(b *testing.B) {
	d, _ := newDoorWith(b, &sink{Log: memory.New()}, always(nine(b)), nil)
	benchmarkDoor(b, d)
}

func benchmarkDoor(b *testing.B, d *Door) {
	const events = 500
	all := corpus(b, 20000)
	var bodies []func()
	for len(all) > 0 {
		end := 0
		for range events {
			n := bytes.IndexByte(all[end:], '\n')
			if n < 0 {
				end = len(all)
				break
			}
			end += n + 1
		}
		bodies = append(bodies, poster(b, d, "?type=page", all[:end]))
		all = all[end:]
	}
	b.ReportAllocs()
	n := 0
	began := cpuTime(b)
	for b.Loop() {
		bodies[n%len(bodies)]()
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/events, "ns/event")
	b.ReportMetric(float64(cpuTime(b)-began)/float64(n)/events, "cpu-ns/event")
}
