package hottail

import (
	"context"

	"naru/internal/event"
	"naru/internal/lake"
)

// maxTypes bounds what a route remembers.
const maxTypes = 10_000

// route tells which events are rows of a table, as the loader will decide
// (internal/sink/table): the type's own table, unless the number of tables is
// limited and the type came too late or had rows in _other before.
type route struct {
	tables *Tail
	table  lake.Ident
	types  map[string]place
}

// place is what is known of a type: from where its rows are in this table, or,
// for _other, up to where.
type place struct {
	mine  bool
	start event.Positions
}

func newRoute(h *Tail, t lake.Ident) *route {
	return &route{tables: h, table: t, types: map[string]place{}}
}

// renew looks again at where types belong: since the last query they may have
// got tables, or one that was to get a table came too late. It tells whether rows
// that were read by then may be in the wrong place.
func (r *route) renew(ctx context.Context) (changed bool, err error) {
	for typ, was := range r.types {
		p, err := r.place(ctx, typ)
		if err != nil {
			return false, err
		}
		changed = changed || p.mine != was.mine || !p.start.Equal(was.start)
		r.types[typ] = p
	}
	return changed, nil
}

func (r *route) has(ctx context.Context, e *event.Event, inc event.Incarnation, partition int32) (bool, error) {
	if r.table.Namespace == event.RejectedStream {
		return r.table.Name == event.RejectedStream, nil
	}
	p, ok := r.types[string(e.Type)]
	if !ok {
		var err error
		if p, err = r.place(ctx, string(e.Type)); err != nil {
			return false, err
		}
		if len(r.types) >= maxTypes {
			clear(r.types)
		}
		r.types[string(e.Type)] = p
	}
	if len(p.start) == 0 {
		return p.mine, nil
	}
	first, _ := p.start.Get(inc, partition)
	if r.table.Name == lake.OtherTable && !p.mine {
		return e.Offset < first, nil
	}
	return p.mine && e.Offset >= first, nil
}

func (r *route) place(ctx context.Context, typ string) (place, error) {
	name := lake.Ident{Namespace: r.table.Namespace, Name: lake.TableName(typ)}
	if name == r.table && name.Name == lake.OtherTable {
		return place{mine: true}, nil
	}
	if name != r.table && r.table.Name != lake.OtherTable {
		return place{}, nil
	}
	own, claimed, start, err := r.tables.lake.Owns(ctx, name)
	if err == nil && own && !claimed {
		// The loader will claim it in a moment; what _other has by then stays there.
		var covered event.Positions
		if covered, err = r.tables.covered(ctx, lake.Ident{Namespace: name.Namespace, Name: lake.OtherTable}); err != nil {
			return place{}, err
		}
		// Unless it has just done so: then what _other has got since is no measure.
		if own, claimed, start, err = r.tables.lake.Owns(ctx, name); own && !claimed {
			start = covered
		}
	}
	if err != nil {
		return place{}, err
	}
	if r.table.Name == lake.OtherTable {
		return place{mine: !own, start: start}, nil
	}
	return place{mine: own, start: start}, nil
}
