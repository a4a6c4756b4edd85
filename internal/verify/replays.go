package verify

import (
	"bytes"
	"encoding/json"
	"strings"

	"naru/internal/event"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
)

// replays holds what pipelines have got again against the states of their rejections:
// each record of such a stream is named by one replayed rejection.
type replays struct {
	inLog map[laneKey]*runs // records that the log has
	named map[laneKey]*runs // where replayed rejections say that their events are
	lost  map[laneKey]*runs // offsets that a repair has given up
	// places are those of the events: a table without rows of its own behind one gets rows
	// of it all the same.
	places map[laneKey]*runs
	moved  int64 // replayed rejections that the log has had
}

func newReplays() replays {
	return replays{inLog: map[laneKey]*runs{}, named: map[laneKey]*runs{}, lost: map[laneKey]*runs{}, places: map[laneKey]*runs{}}
}

// ofReplays tells whether a stream is one of events that a pipeline gets again.
func ofReplays(name string) bool { return strings.HasPrefix(name, stream.ReplayStream) }

// readReplay takes in a batch of such a stream.
func (v *verifier) readReplay(b *seglog.Logged) error {
	k := laneKey{b.Stream, b.Incarnation, b.Partition}
	return v.eachEvent(b, func(e *event.Event) error {
		put(v.states.replays.inLog, k, e.Offset)
		text, _, _ := bytes.Cut(e.Data, []byte{'\n'})
		var head struct {
			Stream string         `json:"stream"`
			At     event.Position `json:"at"`
		}
		if json.Unmarshal(text, &head) == nil {
			put(v.states.replays.places, laneKey{head.Stream, head.At.Incarnation, head.At.Partition}, head.At.Offset)
		}
		return nil
	})
}

// takeReplay takes in the state of a rejection whose event stands there.
func (s *states) takeReplay(at laneKey, offset int64, counted bool) {
	if counted {
		s.replays.moved++
	}
	if put(s.replays.named, at, offset) {
		put(s.shared, at, offset)
	}
}

// checkReplays names what does not agree.
func (v *verifier) checkReplays() {
	x := v.states.replays
	kept, end := map[laneKey]int64{}, map[laneKey]int64{}
	for _, st := range v.log.Streams {
		if ofReplays(st.Stream) {
			for _, r := range st.Ranges {
				k := laneKey{st.Stream, r.Incarnation, r.Partition}
				kept[k], end[k] = r.Start, r.End
			}
		}
	}
	gone, unnamed := map[laneKey]*runs{}, map[laneKey]*runs{}
	for k, set := range x.named {
		for _, r := range *set {
			for o := r.from; o < r.to; o++ {
				if upTo, known := end[k]; !known || o >= upTo || o >= kept[k] && !hasOffset(x.inLog, k, o) && !hasOffset(x.lost, k, o) {
					put(gone, k, o)
				}
			}
		}
	}
	for k, set := range x.inLog {
		for _, r := range *set {
			for o := r.from; o < r.to; o++ {
				if !hasOffset(x.named, k, o) {
					put(unnamed, k, o)
				}
			}
		}
	}
	v.nameAll(gone, "replayed rejections say that their pipeline gets them here, and the log does not have them")
	v.nameAll(unnamed, "a pipeline gets these again, and the stream rejected_states has no rejection that was replayed as one of them")
}
