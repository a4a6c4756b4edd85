package stream

import "naru/internal/event"

// Gap is what retention has dropped of one partition before the watermark had
// passed it.
type Gap struct {
	From   int64          // first offset not covered
	To     event.Position // the oldest that is left
	Events int64          // between them, whatever a sink has of them already
	Spans  []event.Span   // between them, by life of the log
}

// Gaps compares a watermark with what the log has left. Offsets run on through
// the lives of a log. How many events went is the difference of two counts, the
// log's and the reader's, because offsets may have gaps of their own.
func Gaps(st Stat, at Progress) []Gap {
	var out []Gap
	for partition, trimmed := range st.Trimmed {
		left, ok := oldest(st, partition)
		reached := Reached(st, at.Positions, partition)
		if !ok || reached >= left.Offset {
			continue
		}
		g := Gap{From: reached, To: left, Events: max(trimmed-covered(at, partition, reached), 0)}
		begin := int64(0)
		for _, r := range st.Ranges {
			if r.Partition != partition {
				continue
			}
			if from, to := max(begin, reached), min(r.End, left.Offset); from < to {
				g.Spans = append(g.Spans, event.Span{Incarnation: r.Incarnation, Partition: partition, From: from, To: to})
			}
			begin = r.End
		}
		out = append(out, g)
	}
	return out
}

// oldest is the first place that the log still has of a partition.
func oldest(st Stat, partition int32) (event.Position, bool) {
	for _, r := range st.Ranges {
		if r.Partition == partition && (r.End > r.Start || r.Incarnation == st.Incarnation) {
			return event.Position{Incarnation: r.Incarnation, Partition: partition, Offset: r.Start}, true
		}
	}
	return event.Position{}, false
}

// Reached is the first offset of a partition that positions do not cover.
func Reached(st Stat, at event.Positions, partition int32) int64 {
	reached := int64(0)
	for _, r := range st.Ranges { // the last life known decides
		if off, ok := at.Get(r.Incarnation, partition); ok && r.Partition == partition {
			reached = min(off, r.End)
		}
	}
	return reached
}

// covered is how many events of a partition the counts have.
func covered(at Progress, partition int32, offset int64) int64 {
	if n, ok := at.Events[partition]; ok {
		return n
	}
	return offset // see Progress.Events
}
