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
	types  map[home]place
}

// place is what is known of a type: from where its rows are in this table, or,
// for _other, up to where.
type place struct {
	mine  bool
	start event.Positions
}

func newRoute(h *Tail, t lake.Ident) *route {
	return &route{tables: h, table: t, types: map[home]place{}}
}

// renew looks again at where types belong: since the last query they may have
// got tables, or one that was to get a table came too late. It tells whether rows
// that were read by then may be in the wrong place.
func (r *route) renew(ctx context.Context) (changed bool, err error) {
	for h, was := range r.types {
		p, err := r.place(ctx, h)
		if err != nil {
			return false, err
		}
		changed = changed || p.mine != was.mine || !p.start.Equal(was.start)
		r.types[h] = p
	}
	return changed, nil
}

func (r *route) has(ctx context.Context, e *event.Event, inc event.Incarnation, partition int32) (bool, error) {
	if r.table.Namespace == event.RejectedStream {
		return r.table.Name == event.RejectedStream, nil
	}
	asked := r.tables.lake.Shape(e.Contract.Hash).Name()
	p, ok := r.types[home{string(e.Type), asked}]
	if !ok {
		h := home{string(e.Type), asked}
		var err error
		if p, err = r.place(ctx, h); err != nil {
			return false, err
		}
		if len(r.types) >= maxTypes {
			clear(r.types)
		}
		r.types[h] = p
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

// home is what says where an event belongs: its type, and the table that its
// contract asks for, if any.
type home struct{ typ, asked string }

func (h home) table() string {
	if h.asked != "" {
		return h.asked
	}
	return lake.TableName(h.typ)
}

func (r *route) place(ctx context.Context, h home) (place, error) {
	name := lake.Ident{Namespace: r.table.Namespace, Name: h.table()}
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
