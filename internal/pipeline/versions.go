package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"naru/internal/event"
	"naru/internal/vfs"
)

// version is a form of a pipeline's file that was in force from a place on: an
// event is always treated by the version of its place, also when a sink that lags
// gets to it later, or the process has crashed in between.
type version struct {
	// From is the first place that it holds for; a partition or a life of the log that
	// is not in it belongs to it from its beginning, if no older version names it.
	From event.Positions `json:"from"`
	Hash string          `json:"hash"` // definition.Definition.Hash
	Text string          `json:"text"` // of the file
}

// state is what a pipeline keeps beside its positions, in data/pipelines/NAME.json
// (docs/format/pipelines.md).
type state struct {
	Format   int       `json:"format"` // 1
	Paused   bool      `json:"paused,omitempty"`
	Versions []version `json:"versions"` // oldest first, at least one
	// Rewind is one that was begun: whatever a crash has left undone is done at the
	// next start. Again is what it leaves.
	Rewind *rewinding `json:"rewind,omitempty"`
	Again  *again     `json:"again,omitempty"`
	// Rewound are rewinds of the past, oldest first: replays of what was refused before one
	// and computed again in it would come twice.
	Rewound []pastRewind `json:"rewound,omitempty"`
	// Sinks, by name: where each began.
	Sinks map[string]sinkState `json:"sinks,omitempty"`
	// Backfills are those that go on, at most one of a sink.
	Backfills []backfill `json:"backfills,omitempty"`
}

const stateFormat = 1

// pastRewind is what lasts of a rewind.
type pastRewind struct {
	// Records is where the stream `rejected` ended: rejections before it are meant.
	Records event.Positions `json:"records"`
	// From is, by sink and partition, from where on events were computed again for it;
	// for one that came later, from the lowest of these on. Those that are gone have the
	// empty name.
	From map[string]map[int32]int64 `json:"from,omitempty"`
	// Apart are sinks for which it does not hold.
	Apart []string `json:"apart,omitempty"`
}

// sinkState is where a sink began, by partition: Start is the first offset that it
// reads, Counts the first one that its counts have not as filtered from the beginning.
type sinkState struct {
	Start  map[int32]int64 `json:"start,omitempty"`
	Counts map[int32]int64 `json:"counts,omitempty"`
}

// countFrom notes that a sink reads again from some places, and that its counts begin
// there: it may have begun behind them.
func (s *state) countFrom(name string, places map[int32]int64) {
	s.Sinks = maps.Clone(s.Sinks)
	if s.Sinks == nil {
		s.Sinks = map[string]sinkState{}
	}
	x := s.Sinks[name]
	x.Counts, x.Start = places, maps.Clone(x.Start)
	for partition, at := range x.Start {
		if from, ok := places[partition]; ok {
			x.Start[partition] = min(at, from)
		}
	}
	s.Sinks[name] = x
}

// strangers forgets what rewinds were to sinks of these names.
func (s *state) strangers(names map[string]sinkState) {
	s.Rewound = slices.Clone(s.Rewound)
	for i := range s.Rewound {
		x := &s.Rewound[i]
		from := map[string]map[int32]int64{}
		for name, places := range x.From {
			if _, ok := names[name]; ok {
				name = "" // of one that is gone: those that come later go by it
			}
			if other, ok := from[name]; ok {
				places = lower(places, other)
			}
			from[name] = places
		}
		x.From = from
		x.Apart = slices.DeleteFunc(slices.Clone(x.Apart), func(name string) bool { _, ok := names[name]; return ok })
	}
}

// lower gives the lower one of two places in each partition; one that is not named counts
// from its beginning.
func lower(a, b map[int32]int64) map[int32]int64 {
	out := map[int32]int64{}
	for partition, at := range a {
		if other, ok := b[partition]; ok {
			out[partition] = min(at, other)
		}
	}
	return out
}

// maxRewound bounds the rewinds of the past in the file. The oldest two become one that
// holds for what either held for.
const maxRewound = 256

func (s *state) rewind(r pastRewind) {
	s.Rewound = append(slices.Clone(s.Rewound), r)
	for len(s.Rewound) > maxRewound {
		a, b := s.Rewound[0], s.Rewound[1]
		both := pastRewind{Records: b.Records, From: map[string]map[int32]int64{}}
		for _, x := range []pastRewind{a, b} {
			for name, from := range x.From {
				if other, ok := both.From[name]; ok {
					from = lower(from, other)
				}
				both.From[name] = from
			}
		}
		for _, name := range a.Apart {
			if slices.Contains(b.Apart, name) {
				both.Apart = append(both.Apart, name)
			}
		}
		s.Rewound = append([]pastRewind{both}, s.Rewound[2:]...)
	}
}

// at gives the version of a place, and the first offset that is not its any more; -1
// for none. A version may begin before an older one, which nobody has come to then: the
// process had ended before it wrote down how far it had computed.
func (s *state) at(inc event.Incarnation, partition int32, offset int64) (v int, end int64) {
	end = -1
	for i := len(s.Versions) - 1; i > 0; i-- {
		from, ok := s.Versions[i].From.Get(inc, partition)
		if !ok || offset >= from {
			return i, end
		}
		if end < 0 || from < end {
			end = from
		}
	}
	return 0, end
}

// prune forgets versions that lie below what all sinks have passed.
func (s *state) prune(passed func(lane) int64) bool {
	n := 0
	for n+1 < len(s.Versions) {
		for inc, parts := range s.Versions[n+1].From {
			for partition, off := range parts {
				if passed(lane{inc, partition}) < off {
					s.Versions = s.Versions[n:]
					return n > 0
				}
			}
		}
		n++
	}
	s.Versions = s.Versions[n:]
	return n > 0
}

// maxState bounds the file, in bytes.
const maxState = 64 << 20

// readState reads the file; nil: there is none.
func readState(fsys vfs.FS, name string) (*state, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	s := &state{}
	if err := json.Unmarshal(text, s); err != nil || s.Format != stateFormat || len(s.Versions) == 0 {
		return nil, fmt.Errorf("read %s: not the state of a pipeline (format %d): %v", name, s.Format, err)
	}
	return s, nil
}

// write replaces the file: after a crash the old one is there, or the new one.
func (s *state) write(fsys vfs.FS, name string) (err error) {
	s.Format = stateFormat
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := fsys.MkdirAll(dir); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	fresh := name + ".new"
	f, err := fsys.Create(fresh)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(fresh, name)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
