package stream

import "naru/internal/event"

// Repairs says what repairs of the log have done to a reader's share of a
// stream, in events. Both are known by offsets, because nothing else is left.
type Repairs struct {
	// Cut events are in the reader's counts, and their offsets lie beyond the end
	// at which a repair has closed an incarnation: the log does not count them as
	// acknowledged any more. What was written of them stays.
	Cut int64
	// Lost events were acknowledged, and the reader has not counted them and
	// never will: a repair has given them up.
	Lost int64
}

// RepairsOf compares a watermark with what repairs have made of the log.
func RepairsOf(st Stat, at Progress) Repairs {
	var all Repairs
	cut := map[int32]int64{}
	for _, r := range st.Ranges {
		if off, ok := at.Positions.Get(r.Incarnation, r.Partition); ok && r.Incarnation != st.Incarnation {
			n := max(off-r.End, 0)
			cut[r.Partition] += n
			all.Cut += n
		}
	}
	below := map[int32]int64{}
	for _, x := range st.Lost {
		reached := Reached(st, at.Positions, x.Partition)
		if n := min(x.To, reached) - x.From; n > 0 {
			below[x.Partition] += n
		}
		all.Lost += max(x.To-max(x.From, reached), 0)
	}
	// Of what is lost below the watermark the reader has counted what it read
	// before that. Every lost offset was an event's, so what its counts lack, up
	// to as many, is what it has passed over.
	for partition, lost := range below {
		off := Reached(st, at.Positions, partition)
		all.Lost += min(max(off-covered(at, partition, off+cut[partition])+cut[partition], 0), lost)
	}
	return all
}

// Left is how many events a reader has still to bring somewhere: what was accepted for
// the stream, less what the reader has counted. Progress is to be read before the
// Stat, or it may be negative.
func Left(st Stat, at Progress) int64 {
	refused := st.Refused
	if st.Stream == event.RejectedStream || st.Stream == event.RejectedStates {
		refused = 0 // what was sent again stays in it
	}
	r := RepairsOf(st, at)
	return st.Acknowledged - refused - (at.Counts.Total() - r.Cut) - r.Lost
}
