package pipeline

import (
	"slices"

	"naru/internal/event"
	"naru/internal/recordbatch"
	"naru/internal/transform"
)

// program is what is computed for a sink at a place.
type program struct {
	key    string // names it: sinks with the same one share rows
	types  []string
	steps  []transform.Step // and routes; empty: events pass as they are
	routes []string         // sinks that choose their rows, by bit of event.Event.To
	end    int64            // the first offset of another program; -1: none
	// asTheyAre: there are no steps, so routes choose among events as they came.
	asTheyAre bool
	// late: the sink is newer than the version, and so what its `where` says of an event
	// is no verdict on it.
	late bool
}

// program gives what is computed at a place: by the version in force there. With f.mu
// held.
func (t tap) program(k lane, offset int64) program {
	s := t.mu.state
	i, end := s.at(k.inc, k.partition, offset)
	v := s.Versions[i]
	def := t.mu.defs[v.Hash]
	p := program{key: v.Hash, types: def.From.Types, steps: def.Steps, end: end}
	own, routes := def.Sink(t.sink), def.Routes()
	// Before the oldest version is what all sinks of then have passed.
	begin, ok := v.From.Get(k.inc, k.partition)
	early := ok && offset < begin
	if early && (p.end < 0 || begin < p.end) {
		p.end = begin
	}
	if early || own == nil {
		for j := i + 1; own == nil && j < len(s.Versions); j++ {
			own = t.mu.defs[s.Versions[j].Hash].Sink(t.sink) // as it first was
		}
		where := ""
		if own != nil {
			where = own.Where
		}
		if p.late = where != "" || len(routes) > 0; p.late {
			routes = nil
			p.key += " late"
		}
		if where != "" {
			routes = []transform.Step{transform.Where(t.sink, where, 0)}
			p.key += " " + t.sink + "\x00" + where
		}
	}
	switch {
	case len(p.steps) > 0:
	case t.tabular:
		p.steps = transform.Everything
		p.key += "+"
	default:
		p.asTheyAre = len(routes) > 0
	}
	for _, r := range routes {
		p.routes = append(p.routes, r.To)
	}
	p.steps = append(slices.Clone(p.steps), routes...)
	return p
}

// of is what one sink gets of a portion.
func (x *portion) of(sink string) *portion {
	bit := slices.Index(x.routes, sink)
	if bit < 0 {
		return x
	}
	mine, out := *x, *x.out
	out.Rows = x.out.Rows.Only(func(r *event.Row) bool { return r.To&(1<<bit) != 0 })
	mine.out = &out
	return &mine
}

// asTheyCame is a batch with the events of rows as they came, each with the marks of its
// row.
func asTheyCame(in *event.Batch, of *event.Rows) (*event.Batch, error) {
	out := *in
	rows, events := of.List, make([]event.Event, 0, of.Len())
	var dec recordbatch.Decoder
	err := dec.EachIn(in, func(e *event.Event) error {
		if len(rows) > 0 && rows[0].Offset == e.Offset {
			c := clone(e)
			c.To, rows = rows[0].To, rows[1:]
			events = append(events, c)
		}
		return nil
	})
	out.Raw, out.Without, out.Rows = nil, nil, event.RowsOf(events...)
	return &out, err
}
