package dedupe

import (
	"fmt"
	"slices"

	"naru/internal/event"
	"naru/internal/recordbatch"
)

// Found gathers the duplicates that a log has on record: 16 bytes for each run of
// them. The zero value is ready.
type Found struct {
	dec  recordbatch.Decoder
	runs map[laneID][]event.Run // in order, apart from each other
}

// Wants tells whether a stream has verdicts.
func (f *Found) Wants(name string) bool { _, ok := JudgedBy(name); return ok }

// Take takes in a record batch of any stream.
func (f *Found) Take(name string, partition int32, raw []byte) error {
	judged, ok := JudgedBy(name)
	if !ok {
		return nil
	}
	if f.runs == nil {
		f.runs = map[laneID][]event.Run{}
	}
	id := laneID{judged, partition}
	err := EachVerdict(&f.dec, raw, func(_ int64, v Verdict) error {
		for _, r := range v.Duplicates {
			f.runs[id] = merge(f.runs[id], r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("decode %s/%d: %w", name, partition, err)
	}
	return nil
}

// merge puts a run in; one behind all others costs nothing.
func merge(runs []event.Run, r event.Run) []event.Run {
	i, _ := slices.BinarySearchFunc(runs, r.From, func(a event.Run, at int64) int { return int(min(max(a.To-at, -1), 1)) })
	j := i
	for j < len(runs) && runs[j].From <= r.To {
		r.From, r.To = min(r.From, runs[j].From), max(r.To, runs[j].To)
		j++
	}
	return slices.Replace(runs, i, j, r)
}

// Duplicates are those of a partition of a stream, in order.
func (f *Found) Duplicates(name string, partition int32) []event.Run {
	return f.runs[laneID{name, partition}]
}

// Has tells whether the event at an offset is a duplicate.
func (f *Found) Has(name string, partition int32, offset int64) bool {
	if f == nil || len(f.runs) == 0 {
		return false
	}
	runs := f.Duplicates(name, partition)
	i, _ := slices.BinarySearchFunc(runs, offset+1, func(a event.Run, at int64) int { return int(min(max(a.To-at, -1), 1)) })
	return i < len(runs) && runs[i].From <= offset
}
