package file

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/rowfile"
	"naru/internal/sink"
	"naru/internal/vfs"
)

// Sink writes files under temporary names in the folders where they will be. All
// that are written appear together: they are synced, the state says which they are
// and up to where they go, and then they are renamed.
type Sink struct {
	cfg   Files
	fs    vfs.FS
	to    Target
	path  *rowfile.Path
	state *state
	dec   recordbatch.Decoder

	of      *rowfile.Of // folders of rows with columns
	columns []event.Column
	folder  []byte

	first     event.Positions // where the sink began in lanes that the state does not have
	end       event.Positions // of everything written so far
	published event.Positions // of what has appeared
	handed    bool            // the state may tell of the files: they must stay

	// Since the last publication.
	open  map[string]*file // by folder
	done  []*file          // finished
	full  int              // of them: those that have reached roll.bytes
	count int              // of files begun
	rows  int64
	since time.Time // of the first row
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Resumer = (*Sink)(nil)
	_ sink.Drainer = (*Sink)(nil)
	_ sink.Pending = (*Sink)(nil)
)

// file is one that is being written, or is finished and has not appeared.
type file struct {
	Published
	out  vfs.File
	w    *rowfile.Writer
	used int64 // number of its last row
}

// mostFiles bounds those of one publication: they stand in the state.
const mostFiles = 4096

// begin forgets what the last publication was made of.
func (s *Sink) begin() {
	s.open, s.done, s.full, s.count, s.rows, s.handed = map[string]*file{}, nil, 0, 0, 0, false
	if s.end == nil {
		s.first, s.end, s.published = event.Positions{}, event.Positions{}, event.Positions{}
	}
}

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if stream != s.state.Stream || len(s.state.Positions) == 0 {
		return nil, nil
	}
	return s.state.Positions.Clone(), nil
}

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	if s.of == nil || (s.columns == nil) != (b.Columns == nil) || !slices.Equal(s.columns, b.Columns) {
		of, err := s.path.Of(b.Columns)
		if err != nil {
			return fault.WithHint(err, "correct path of the sink, or the steps before it")
		}
		s.of, s.columns = of, b.Columns
	}
	err := s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		if s.state.Positions.Covers(at) || s.end.Covers(at) {
			return nil
		}
		return s.append(e, at)
	})
	if err != nil {
		return err
	}
	if _, ok := s.end.Get(b.Incarnation, b.Partition); !ok {
		s.first.Advance(event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: b.From})
	}
	s.end.Advance(b.End())
	return s.spare()
}

func (s *Sink) append(e *event.Event, at event.Position) error {
	s.folder = s.of.Append(s.folder[:0], e, at.Partition)
	f := s.open[string(s.folder)]
	if f != nil && s.cfg.options().Tabular() && !slices.Equal(f.w.Columns(), s.columns) {
		if err := s.finish(f); err != nil {
			return err
		}
		f = nil
	}
	if f == nil {
		var err error
		if f, err = s.create(string(s.folder), e, at); err != nil {
			return err
		}
	}
	if s.rows++; s.rows == 1 {
		s.since = s.cfg.now()
	}
	f.used = s.rows
	if err := f.w.Append(e, at.Partition); err != nil {
		return fmt.Errorf("write %s: %w", f.Temp, err)
	}
	if f.w.Size() >= int64(s.cfg.Roll.Bytes) {
		s.full++
		return s.finish(f)
	}
	if s.rows%spareEvery == 0 {
		return s.spare()
	}
	return nil
}

// create begins a file, named after its first row: no other file has that one.
func (s *Sink) create(folder string, e *event.Event, at event.Position) (_ *file, err error) {
	if len(s.open) >= s.cfg.OpenFiles {
		oldest := slices.MinFunc(slices.Collect(maps.Values(s.open)), func(a, b *file) int { return int(a.used - b.used) })
		if err := s.finish(oldest); err != nil {
			return nil, err
		}
	}
	f := &file{Published: Published{Folder: folder, Temp: s.state.temp(s.count),
		Name: fmt.Sprintf("%s-%x-%d-%020d", s.cfg.Prefix, at.Incarnation[:4], at.Partition, e.Offset)}}
	if e.Row > 0 {
		f.Name += fmt.Sprintf("-%d", e.Row)
	}
	if s.state.Rewinds > 0 {
		f.Name += fmt.Sprintf("-r%d", s.state.Rewinds)
	}
	f.Name += s.cfg.options().Extension()
	s.count++
	temp := s.to.temp(f.Published)
	if err := s.fs.MkdirAll(filepath.Dir(temp)); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if f.out, err = s.fs.Create(temp); err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	s.open[folder] = f
	if f.w, err = rowfile.New(f.out, s.cfg.options(), s.columns); err != nil {
		return nil, err
	}
	return f, nil
}

// finish makes a file whole and durable.
func (s *Sink) finish(f *file) error {
	delete(s.open, f.Folder)
	s.done = append(s.done, f)
	err := f.w.Finish()
	if err == nil {
		err = f.out.Sync()
	}
	if err = errors.Join(err, f.out.Close()); err != nil {
		return fmt.Errorf("finish %s: %w", filepath.Join(f.Folder, f.Temp), err)
	}
	f.out, f.w = nil, nil
	return nil
}

// spareEvery is after how many rows the memory of open files is looked at.
const spareEvery = 128

// spare keeps what open files gather below cfg.Memory: those that have gathered the
// most write it.
func (s *Sink) spare() error {
	held := int64(0)
	for _, f := range s.open {
		held += f.w.Held()
	}
	for held > int64(s.cfg.Memory) {
		most := slices.MaxFunc(slices.Collect(maps.Values(s.open)), func(a, b *file) int { return int(a.w.Held() - b.w.Held()) })
		held -= most.w.Held()
		if err := most.w.Flush(); err != nil {
			return fmt.Errorf("write %s: %w", most.Temp, err)
		}
	}
	return nil
}

// due tells whether what is written is to appear now: it has waited long enough, or
// at least as many files are full as are not, so that few are small.
func (s *Sink) due() bool {
	return s.rows > 0 && (s.full > 0 && s.full >= len(s.open) || s.count >= mostFiles || s.cfg.now().Sub(s.since) >= s.cfg.Roll.Every.Std())
}

// Commit implements sink.Sink. Until files are due it holds back everything.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if s.rows > 0 && !s.due() {
		return s.published.Clone(), ctx.Err()
	}
	return s.Drain(ctx)
}

// Drain implements sink.Drainer.
func (s *Sink) Drain(ctx context.Context) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.rows > 0 {
		if err := s.publish(ctx); err != nil {
			return nil, err
		}
		s.begin()
	}
	s.published = s.end.Clone()
	return s.end.Clone(), nil
}

// publish makes all files appear.
func (s *Sink) publish(ctx context.Context) error {
	for _, f := range s.open {
		if err := s.finish(f); err != nil {
			return err
		}
	}
	next := s.state.stateText
	next.Seq++
	next.Publish = make([]Published, len(s.done))
	folders := map[string]bool{}
	for i, f := range s.done {
		if taken, err := s.to.Place.Taken(ctx, f.Published); err != nil {
			return fmt.Errorf("publish file: %w", err)
		} else if taken {
			return fault.WithHint(fmt.Errorf("publish %s: it is there already", filepath.Join(f.Folder, f.Name)),
				"another sink writes to this place, or this one has lost its state: give it another prefix or place, or move the file away")
		}
		temp := s.to.temp(f.Published)
		dir := filepath.Dir(temp)
		// One that is not there would count as having appeared.
		if _, err := s.fs.Stat(temp); err != nil {
			return fault.WithHint(fmt.Errorf("publish file: %w", err), "something removes files from %s while they are written", dir)
		}
		next.Publish[i] = f.Published
		folders[dir] = true
	}
	for dir := range folders { // before the state: it says that they are there
		if err := s.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("publish files: %w", err)
		}
	}
	next.Positions = next.Positions.Clone()
	for inc, parts := range s.end {
		for partition, off := range parts {
			next.Positions.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	done := publication{Seq: next.Seq, Where: s.to.Place.Where(), Before: s.state.Positions, Begin: event.Positions{}, After: next.Positions}
	for inc, parts := range s.first {
		for partition, off := range parts {
			if _, ok := done.Before.Get(inc, partition); !ok {
				done.Begin.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	for _, p := range next.Publish {
		done.Files = append(done.Files, named{p.Folder, p.Name})
	}
	if err := s.state.history.add(done); err != nil {
		return err
	}
	s.handed = true
	if err := s.state.save(next); err != nil {
		return err
	}
	return s.state.publish(ctx, s.to)
}

// PendingBytes implements sink.Pending: a commit of what is not due would make
// nothing appear, so only what is due asks for one.
func (s *Sink) PendingBytes() int64 {
	switch {
	case s.rows == 0:
		return 0
	case s.due():
		return math.MaxInt64
	}
	return 1
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	for _, f := range s.open {
		_ = f.out.Close() // nothing of it is kept
	}
	if !s.handed {
		for _, f := range append(slices.Collect(maps.Values(s.open)), s.done...) {
			_ = s.fs.Remove(s.to.temp(f.Published)) // else the next start does it
		}
	}
	s.open, s.done = nil, nil
	return nil
}
