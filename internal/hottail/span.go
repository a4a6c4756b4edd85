package hottail

import (
	"naru/internal/event"
	"naru/internal/stream"
)

// spans are the offsets that the log has and a table's snapshot may have not:
// behind the watermark, below which all rows are committed, and behind the
// table's own positions, up to the end of what is synced. trimmed: retention has
// taken some of them.
func spans(st stream.Stat, watermark, table event.Positions) (out []event.Span, trimmed bool) {
	// The watermark's reader goes on in the latest life of the log that it knows:
	// what lies in earlier ones is behind it.
	last := map[int32]int{}
	for i, r := range st.Ranges {
		if _, ok := watermark.Get(r.Incarnation, r.Partition); ok {
			last[r.Partition] = i
		}
	}
	began := map[int32]int64{}    // where a life goes on when nothing of it is gone
	for i, r := range st.Ranges { // closed lives first
		from := began[r.Partition]
		began[r.Partition] = r.End
		if at, ok := last[r.Partition]; ok && i < at {
			continue
		}
		for _, p := range []event.Positions{watermark, table} {
			if off, ok := p.Get(r.Incarnation, r.Partition); ok {
				from = max(from, off)
			}
		}
		trimmed = trimmed || from < r.Start
		from = max(from, r.Start)
		to := readable(st.Lost, r)
		if from < to {
			out = append(out, event.Span{Incarnation: r.Incarnation, Partition: r.Partition, From: from, To: to})
		}
	}
	return out, trimmed
}

// readable is the end of a range without what a repair has lost there: a reader
// would wait behind it for the next event.
func readable(lost []event.Span, r stream.Range) int64 {
	end := r.End
	for again := true; again; {
		again = false
		for _, l := range lost {
			if l.Incarnation == r.Incarnation && l.Partition == r.Partition && l.From < end && end <= l.To {
				end, again = l.From, true
			}
		}
	}
	return end
}

// length is the number of offsets in the spans.
func length(spans []event.Span) (n int64) {
	for _, s := range spans {
		n += s.To - s.From
	}
	return n
}
