package app

import (
	"context"
	"errors"
	"io/fs"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/duck"
	"naru/internal/lake"
	"naru/internal/obs"
	"naru/internal/vfs"
)

// noTables is a lake that there is not.
type noTables struct{}

func (noTables) List(context.Context) ([]lake.Ident, error)   { return nil, nil }
func (noTables) Newest(context.Context) ([]lake.Ident, error) { return nil, nil }
func (noTables) Cut(context.Context, []lake.Ident) ([]*lake.View, error) {
	return nil, nil // nobody has a table to name
}

// OpenSteps makes what computes the steps of pipelines beside a running server or
// without one: over the tables of the folder as they are committed. known says whether
// the columns of events are those of their tables, as in the server; else they are
// those that the events themselves have, wherever that is. close releases both.
func OpenSteps(ctx context.Context, f config.Folder, cfg config.Config, known bool) (steps *duck.Steps, closed func() error, err error) {
	rec, err := Whereabouts(vfs.OS(), f)
	if err != nil {
		return nil, nil, err
	}
	if rec != nil {
		f = config.Folder(rec.Root)
	}
	cfg.Place(f)
	tables, err := OpenTables(ctx, f, cfg.Lake)
	if errors.Is(err, fs.ErrNotExist) {
		steps, err = duck.NewSteps(cfg.Steps, duck.StepsDeps{Lake: noTables{}, Logger: obs.Discard()})
		if err != nil {
			return nil, nil, err
		}
		return steps, steps.Close, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if known {
		// Of contracts that cannot be read, others tell.
		var set *contract.Set
		if files, err := contract.Load(vfs.OS(), f.Contracts()); err == nil {
			set, _ = contract.Compile(files)
		}
		steps, err = openSteps(cfg.Steps, tables, lake.Snapshots{Reader: tables}, func() *contract.Set { return set }, obs.Discard())
	} else {
		steps, err = duck.NewSteps(cfg.Steps, duck.StepsDeps{Lake: lake.Snapshots{Reader: tables}, Shape: tables.Shape, Logger: obs.Discard()})
	}
	if err != nil {
		return nil, nil, errors.Join(err, tables.Close())
	}
	return steps, func() error { return errors.Join(steps.Close(), tables.Close()) }, nil
}
