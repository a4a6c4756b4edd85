package iceberg

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"naru/internal/event"
)

// MarksFile has, by stream, up to where the tables have everything. It is
// written before the watermark in the log moves as far, so it is never behind the
// watermark: a lake in which it is, is an older copy of the one with which the
// watermark was reached, and what it lacks begins there.
const MarksFile = "marks.json"

type markLine struct {
	Stream    string          `json:"stream"`
	Positions event.Positions `json:"positions"`
}

type marks struct {
	sync.Mutex
	known map[string]event.Positions // nil until it is read
}

// Mark tells up to where the tables of a stream have everything. A lake that
// does not know takes the watermark's word: it was made before it kept the file,
// or is new to the stream, which is then loaded again (Reload).
func (l *Lake) Mark(stream string, watermark event.Positions) (event.Positions, error) {
	m := &l.marks
	m.Lock()
	defer m.Unlock()
	if err := l.readMarks(); err != nil {
		return nil, err
	}
	if at, ok := m.known[stream]; ok {
		return at.Clone(), nil
	}
	return watermark.Clone(), l.writeMark(stream, watermark.Clone())
}

// MoveMark notes, durably, that the tables of a stream have everything up to at.
func (l *Lake) MoveMark(stream string, at event.Positions) error {
	m := &l.marks
	m.Lock()
	defer m.Unlock()
	if err := l.readMarks(); err != nil {
		return err
	}
	next, moved := m.known[stream].Clone(), false
	for inc, parts := range at {
		for partition, off := range parts {
			if next.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off}) {
				moved = true
			}
		}
	}
	if !moved {
		return nil
	}
	return l.writeMark(stream, next)
}

func (l *Lake) readMarks() error {
	if l.marks.known != nil {
		return nil
	}
	lines, err := readLines[markLine](l, MarksFile)
	if err != nil {
		return fmt.Errorf("read marks of streams in %s: %w", filepath.Join(l.root, MarksFile), err)
	}
	l.marks.known = map[string]event.Positions{}
	for _, one := range lines {
		l.marks.known[one.Stream] = one.Positions.Clone()
	}
	return nil
}

func (l *Lake) writeMark(stream string, at event.Positions) error {
	lines := []markLine{{stream, at}}
	for name, other := range l.marks.known {
		if name != stream {
			lines = append(lines, markLine{name, other})
		}
	}
	if err := writeLines(l, MarksFile, lines); err != nil {
		return fmt.Errorf("write marks of streams: %w", err)
	}
	l.marks.known[stream] = at
	return nil
}

// copyMarks comes before the catalog is copied, because marks change with every
// commit: those of before say of the copied tables at most what is true.
func (c *lakeCopier) copyMarks() error {
	b, err := c.lake.io.ReadFile(filepath.Join(c.lake.root, MarksFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.write(filepath.Join(c.to, MarksFile), b)
}
