// Package verify proves that every acknowledged event is in its place once: in
// the log, and as one row of the right table, or behind what that table covers.
// It reads a folder from outside, by what is on disk alone. How, and what it
// needs in memory: docs/design/0007-verify.md.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"naru/internal/dedupe"
	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/recordbatch"
	"naru/internal/stream"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

// Options say what to look at.
type Options struct {
	// Deep compares the content of rows with their events too, and the files of
	// the lake with their checksums.
	Deep bool
	// Beside tells that a server may be at work on the folder.
	Beside bool
	// DropUnread tells that retention may drop what was not read (log.drop_unread).
	DropUnread bool
	// Progress, if set, is called from time to time: done of all bytes of a step.
	Progress func(step string, done, all int64)
}

// Folder is what is verified.
type Folder struct {
	FS     vfs.FS
	LogDir string        // folder of the segments
	Lake   *iceberg.Lake // nil: there are no tables yet
}

// maxTries bounds how often a run begins anew because files went away under it.
const maxTries = 3

// errMoved: a file that was listed is gone.
var errMoved = errors.New("files went away while they were read")

// Run verifies a folder. The error is one of running; what is wrong with the
// folder is in the report.
func Run(ctx context.Context, f Folder, o Options) (*Report, error) {
	began := time.Now()
	for try := 1; ; try++ {
		v := &verifier{Folder: f, Options: o, seed: rand.Uint64(), hash: newHasher(), streams: map[string]*streamState{}, lanes: map[laneKey]*lane{}, states: newStates()}
		r, err := v.run(ctx)
		v.release()
		if errors.Is(err, errMoved) && try < maxTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.Took = time.Since(began)
		r.Seconds = r.Took.Seconds()
		return r, nil
	}
}

// verifier is one run.
type verifier struct {
	Folder
	Options
	seed uint64

	before  *seglog.Survey             // the watermarks, read before the tables
	loading map[string]iceberg.Loading // streams that are loaded again
	log     *seglog.Survey
	events  int64
	// byPipelines are the rejections in the log that pipelines have made.
	byPipelines int64
	streams     map[string]*streamState
	lanes       map[laneKey]*lane
	judged      *dedupe.Found
	states      *states
	files       []dataFile
	filled      []*filled // tables of pipelines
	dec         recordbatch.Decoder
	hash        *hasher

	wrong     findings
	explained findings
}

// streamState is one stream with its tables.
type streamState struct {
	name     string
	tables   []*pinned
	byName   map[string]*pinned
	types    map[string]*pinned                // by type; a cache
	shape    func(contract []byte) *lake.Shape // nil: there is no lake
	progress stream.Progress
	inLog    int64
	notYet   int64
	unread   int64
	doubles  int64 // duplicates in the log below the watermark
	written  int64 // rows within the log's offsets; those doubled are taken off
}

// dataFile is one file of a pinned snapshot.
type dataFile struct {
	table *pinned
	lake.File
}

func (v *verifier) run(ctx context.Context) (*Report, error) {
	// The watermarks first, the tables next, the log last: what is read later can
	// only be further on, so nothing that a table covers is missing in the log,
	// and no watermark is ahead of a table only because it was read later.
	var err error
	if v.before, err = seglog.Peek(v.FS, v.LogDir); err != nil {
		return nil, fmt.Errorf("read the end of the log: %w", err)
	}
	if err := v.pin(ctx); err != nil {
		return nil, err
	}
	// Verdicts behind the tables: what a table covers was judged before.
	if err := v.readVerdicts(ctx); err != nil {
		return nil, err
	}
	if err := v.readLog(ctx); err != nil {
		return nil, err
	}
	if err := v.readRows(ctx); err != nil {
		return nil, err
	}
	if err := v.readStates(ctx); err != nil {
		return nil, err
	}
	v.checkStates()
	if err := v.oneByOne(ctx, v.compare()); err != nil {
		return nil, err
	}
	if err := v.readFilled(ctx); err != nil {
		return nil, err
	}
	if v.Deep {
		if err := v.checkFiles(ctx); err != nil {
			return nil, err
		}
	}
	return v.report(), nil
}

func (v *verifier) tell(step string, done, all int64) {
	if v.Progress != nil {
		v.Progress(step, done, all)
	}
}

func (v *verifier) stream(name string) *streamState {
	s := v.streams[name]
	if s == nil {
		s = &streamState{name: name, byName: map[string]*pinned{}, types: map[string]*pinned{}, shape: v.shape()}
		for reader, p := range v.before.Readers {
			if p.Stream == name && stream.Loads(reader) {
				s.progress = p
			}
		}
		v.streams[name] = s
	}
	return s
}

// lane gives a lane; it is made when it is first met.
func (v *verifier) lane(k laneKey) *lane {
	l := v.lanes[k]
	if l != nil {
		return l
	}
	s := v.stream(k.stream)
	l = &lane{laneKey: k, floor: make([]int64, len(s.tables)), start: make([]int64, len(s.tables))}
	for i, t := range s.tables {
		if t.audit != nil {
			l.floor[i], _ = t.audit.Positions.Get(k.inc, k.partition)
		}
		l.start[i], _ = t.start.Get(k.inc, k.partition)
	}
	l.mark = markOf(v.before, s.progress.Positions, k)
	v.lanes[k] = l
	return l
}

// markOf is the watermark of a lane: in the newest incarnation that it names it
// is an offset; earlier ones the pipeline has left behind.
func markOf(log *seglog.Survey, at event.Positions, k laneKey) int64 {
	mark, passed := int64(0), false
	for _, st := range log.Streams {
		if st.Stream != k.stream {
			continue
		}
		for _, r := range st.Ranges { // oldest first
			if r.Partition != k.partition {
				continue
			}
			off, ok := at.Get(r.Incarnation, r.Partition)
			switch {
			case r.Incarnation == k.inc:
				mark, passed = off, true
			case ok && passed:
				mark = endless
			}
		}
	}
	return mark
}

// gone tells whether an error is that of a file that went away meanwhile.
func (v *verifier) gone(err error) bool { return v.Beside && errors.Is(err, fs.ErrNotExist) }

// release lets the tables' files go.
func (v *verifier) release() {
	for _, t := range v.filled {
		t.audit.Release()
	}
	for _, s := range v.streams {
		for _, t := range s.tables {
			if t.audit != nil && t.audit.Release != nil {
				t.audit.Release()
			}
		}
	}
}
