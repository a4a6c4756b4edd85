package app

import (
	"fmt"
	"log/slog"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/serve/status"
	"naru/internal/vfs"
)

// openContracts reads the folder's contracts and shows their state in metrics.
func openContracts(fsys vfs.FS, f config.Folder, keys *contract.Keys, l *iceberg.Lake, reg *obs.Registry, logger *slog.Logger) (*contract.Folder, error) {
	contracts, err := contract.OpenFolder(fsys, f.Contracts(), func(set *contract.Set) error {
		if err := keys.Allow(set); err != nil {
			return err
		}
		// Before any event is judged by them: its record names the contract alone.
		return l.KeepShapes(shapesOf(set))
	}, logger)
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("read contracts of %s:\n%w", f, err), "%s; nothing was touched, and no event was taken", contract.CureOf(err))
	}
	reg.Collect([]obs.Desc{
		{Name: "naru_contracts", Help: "Contracts in force."},
		{Name: "naru_contracts_broken", Help: "1 while what is in contracts/ is not in force because it is broken, else 0."},
		{Name: "naru_contracts_changes_total", Help: "Changes of contracts/, by what became of them: taken or refused.", Labels: []string{"result"}, Counter: true},
	}, func(emit obs.Emit) {
		s := contracts.State()
		broken := 0.0
		if s.Broken != nil {
			broken = 1
		}
		emit("naru_contracts", float64(s.Contracts))
		emit("naru_contracts_broken", broken)
		emit("naru_contracts_changes_total", float64(s.Taken), "taken")
		emit("naru_contracts_changes_total", float64(s.Refused), "refused")
	})
	return contracts, nil
}

// shapesOf gives the shapes of the contracts in force, by their hashes.
func shapesOf(set *contract.Set) map[string]*lake.Shape {
	out := map[string]*lake.Shape{}
	for _, c := range set.Contracts {
		if c.InForce() && c.Shape() != nil {
			out[c.Hash] = c.Shape()
		}
	}
	return out
}

// contractStatus is what /v1/status says of the contracts.
func contractStatus(f *contract.Folder) status.Contracts {
	s := f.State()
	out := status.Contracts{InForce: s.Contracts, Loaded: s.Loaded, Tables: map[string]string{}}
	for _, c := range f.Set().Contracts {
		if c.InForce() && c.Table != "" {
			out.Tables[c.Type] = c.Table
		}
	}
	if s.Broken != nil {
		out.Error, out.Cure, out.Since = s.Broken.Error(), contract.CureOf(s.Broken), s.Since
	}
	return out
}
