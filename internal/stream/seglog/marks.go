package seglog

import (
	"errors"
	"fmt"
	"io/fs"

	"naru/internal/fault"
	"naru/internal/stream"
	"naru/internal/vfs"
)

// lookTries bounds the looks at a log whose writer is faster than we are.
const lookTries = 20

// Marks are where the readers of a log had got to at one moment, and what the
// log held then.
type Marks struct {
	state *state
	// Bytes is roughly what the segments take.
	Bytes int64
}

// ReadMarks reads the Marks of the log in dir without a lock: naru may be
// running on it. What tables held at that moment or later covers them.
func ReadMarks(fsys vfs.FS, dir string) (*Marks, error) {
	var err error
	for range lookTries {
		var v *viewer
		var t *tail
		if v, t, err = look(fsys, dir); err != nil {
			return nil, fmt.Errorf("read marks of log: %w", err)
		}
		var first *checkpoint
		if first, _, err = v.checkpoint(v.segments[0]); err == nil {
			t.state.setStart(first)
			lost, err := Losses(fsys, dir)
			if err != nil {
				return nil, fmt.Errorf("read marks of log: %w", err)
			}
			t.state.lost = rangesOf(lost)
			m := &Marks{state: t.state, Bytes: t.end}
			for _, s := range v.segments[:len(v.segments)-1] {
				m.Bytes += s.size
			}
			return m, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, fmt.Errorf("read marks of log: %w", err)
}

// look finds the segments that retention has left and reads the last one to its
// end, beside a writer. What seems to be damage may be a frame that was being
// written while we read what stands before it: real damage is there twice.
func look(fsys vfs.FS, dir string) (*viewer, *tail, error) {
	var last error
	var place string
	for range lookTries {
		v, t, err := lookOnce(fsys, dir)
		if err == nil {
			return v, t, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			last, place = err, "" // dropped, or given its name, between two steps
			continue
		}
		var damage *fault.Corrupt
		if !errors.As(err, &damage) || place == err.Error() {
			return nil, nil, err
		}
		last, place = err, err.Error()
	}
	return nil, nil, last
}

func lookOnce(fsys vfs.FS, dir string) (*viewer, *tail, error) {
	// The mark first: what is there later can only be more.
	mark, err := readLast(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	v, err := view(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	if err := (&Log{fs: fsys, dir: dir}).checkLast(mark, v.segments); err != nil {
		return nil, nil, err
	}
	if len(v.segments) == 0 {
		return nil, nil, corrupt(dir+"/"+segmentName(1), -1, "the folder of the log holds no segment")
	}
	s := v.segments[len(v.segments)-1]
	file, err := fsys.Open(s.path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	synced := uint64(0)
	if mark != nil {
		synced = mark.Sequence
	}
	t, err := scanTailUpTo(file, s, synced)
	if err != nil {
		return nil, nil, err
	}
	oldest := t.oldest()
	for len(v.segments) > 1 && v.segments[0].number < oldest {
		v.segments = v.segments[1:] // dropped, and its file is still there
	}
	for i, s := range v.segments {
		if want := oldest + uint64(i); s.number != want {
			return nil, nil, corrupt(dir+"/"+segmentName(want), -1, "the segment is missing, %s is there", segmentName(s.number))
		}
	}
	return v, t, nil
}

func (v *viewer) checkpoint(s *segment) (*checkpoint, head, error) {
	file, err := v.fs.Open(s.path)
	if err != nil {
		return nil, head{}, err
	}
	defer file.Close()
	return readCheckpoint(file, s.path, s.number, s.size)
}

// reach tells whether readers that begin at the marks find all that they need
// in a log that begins at a checkpoint. Readers of end, the state at the end of
// the copy, that were not there at the marks had read nothing then.
func (m *Marks) reach(first *checkpoint, end *state) error {
	for _, p := range first.parts {
		reached := p.end
		for _, at := range m.state.readers {
			if at.Stream == p.stream {
				reached = min(reached, m.state.reached(at, p.id))
			}
		}
		if end != nil {
			for name, at := range end.readers {
				if _, had := m.state.readers[name]; !had && at.Stream == p.stream {
					reached = min(reached, m.state.reached(stream.Progress{}, p.id))
				}
			}
		}
		if reached < p.end {
			return fmt.Errorf("%w: offsets %d to %d of %s/%d", ErrOvertaken, reached, p.end, p.stream, p.partition)
		}
	}
	return nil
}
