package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink"
)

var _ sink.Rewinder = (*Sink)(nil)

// behind tells whether positions reach beyond a place.
func behind(at, from event.Positions) bool {
	for inc, parts := range from {
		for partition, off := range parts {
			if have, ok := at.Get(inc, partition); ok && have > off {
				return true
			}
		}
	}
	return false
}

// back are the publications that go when all from a place on goes: whole ones, since
// files begin and end with them.
func (s *Sink) back(from event.Positions) ([]publication, error) {
	list, reached, err := s.state.history.since(&s.state.stateText, func(at event.Positions) bool { return !behind(at, from) })
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Where != s.to.Place.Where() {
			return nil, fmt.Errorf("%w: files with rows from there on are in %s, this sink now writes to %s", sink.ErrStays, p.Where, s.to.Place.Where())
		}
	}
	if !reached {
		return nil, fault.WithHint(fmt.Errorf("%w: the list of files that have appeared does not go back as far", sink.ErrStays),
			"a later time may do; the list is as long as history of the sink says, and begins anew when the project's folder is moved or copied")
	}
	return list, nil
}

// Rewindable implements sink.Rewinder: the place is where a publication began.
func (s *Sink) Rewindable(_ context.Context, from event.Positions) (event.Positions, error) {
	list, err := s.back(from)
	if err != nil || len(list) == 0 {
		return from, err
	}
	out, first := from.Clone(), list[len(list)-1].Before.Clone()
	for _, p := range list { // each lane begins in one of them at most
		for inc, parts := range p.Begin {
			for partition, off := range parts {
				first.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: off})
			}
		}
	}
	for inc, parts := range s.state.Positions {
		for partition, reached := range parts {
			first, _ := first.Get(inc, partition)
			if asked, ok := out.Get(inc, partition); first < reached && (!ok || first < asked) {
				delete(out[inc], partition) // Advance does not go back
				out.Advance(event.Position{Incarnation: inc, Partition: partition, Offset: first})
			}
		}
	}
	return out, nil
}

// Rewind implements sink.Rewinder. The state is the commit: what is left to be done by
// it, the next start does. Files get other names from then on, since readers may know
// those that go.
func (s *Sink) Rewind(ctx context.Context, from event.Positions, again bool) error {
	next := s.state.stateText
	if !behind(next.Positions, from) {
		return nil
	}
	next.Rewinds++
	if again {
		next.Positions = sink.Lowered(next.Positions, from)
		return s.state.save(next)
	}
	list, err := s.back(from)
	if err != nil {
		return err
	}
	first := list[len(list)-1]
	next.Positions, next.Back = first.Before.Clone(), first.Seq
	if err := s.state.save(next); err != nil {
		return err
	}
	return s.state.takeBack(ctx, s.to)
}

// takeBack removes the files that the state says are to go.
func (s *state) takeBack(ctx context.Context, to Target) error {
	if s.Back == 0 {
		return nil
	}
	if _, err := s.fs.Stat(to.Dir); err != nil {
		return fault.WithHint(fmt.Errorf("take files back: %w", err), "files that are to go may be in %s: is its disk mounted?", to.Dir)
	}
	// Written again before anything is done by it, as for a publication.
	if err := s.save(s.stateText); err != nil {
		return err
	}
	all, err := s.history.from(s.Back)
	if err != nil {
		return err
	}
	folders := map[string]bool{}
	for _, p := range all {
		if p.Where != to.Place.Where() {
			return fault.WithHint(fmt.Errorf("take files back: they are in %s, this sink now writes to %s", p.Where, to.Place.Where()), "let the sink write to %s again until they are gone", p.Where)
		}
	}
	for _, p := range all {
		for _, f := range p.Files {
			if err := to.Place.Remove(ctx, f.Folder, f.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("take file back: %w", err)
			}
			if !to.Flat {
				folders[filepath.Join(to.Dir, f.Folder)] = true
			}
		}
	}
	for dir := range folders {
		if err := s.fs.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("take files back: %w", err)
		}
	}
	if err := s.history.cut(s.Back); err != nil {
		return err
	}
	next := s.stateText
	next.Back = 0
	return s.save(next)
}
