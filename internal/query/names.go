package query

import (
	"fmt"
	"strings"

	"naru/internal/event"
	"naru/internal/lake"
)

// Names resolves what a statement calls a table (EXACTNESS 5): bare names in
// the namespace `events` first, then in whichever namespace has them uniquely;
// an ambiguous one is an error that names them all; `ns.name` always works. The
// case of ASCII letters matters only where two tables differ by nothing else; that
// of others always does, because DuckDB, which gets the text unchanged, folds no
// more.
type Names struct {
	exact  map[lake.Ident]bool
	folded map[lake.Ident][]lake.Ident // by lower-case namespace and name
	bare   map[string][]lake.Ident     // by lower-case name
	all    []lake.Ident
}

// NewNames takes the lake's list of tables.
func NewNames(tables []lake.Ident) *Names {
	n := &Names{exact: map[lake.Ident]bool{}, folded: map[lake.Ident][]lake.Ident{}, bare: map[string][]lake.Ident{}, all: tables}
	for _, t := range tables {
		n.exact[t] = true
		f := lake.Ident{Namespace: lower(t.Namespace), Name: lower(t.Name)}
		n.folded[f] = append(n.folded[f], t)
		n.bare[f.Name] = append(n.bare[f.Name], t)
	}
	return n
}

// Resolve finds the table that r means. The error is one of s, at r's place.
func (n *Names) Resolve(s *Statement, r Ref) (lake.Ident, error) {
	if r.Schema != "" {
		return n.qualified(s, r)
	}
	if t := (lake.Ident{Namespace: event.DefaultStream, Name: r.Name}); n.exact[t] {
		return t, nil
	}
	found := n.bare[lower(r.Name)]
	if exact := sameName(found, r.Name); len(exact) > 0 {
		found = exact
	}
	for _, t := range found {
		if t.Namespace == event.DefaultStream {
			return n.one(s, r, n.folded[lake.Ident{Namespace: event.DefaultStream, Name: lower(r.Name)}])
		}
	}
	return n.one(s, r, found)
}

func (n *Names) qualified(s *Statement, r Ref) (lake.Ident, error) {
	if t := (lake.Ident{Namespace: r.Schema, Name: r.Name}); n.exact[t] {
		return t, nil
	}
	return n.one(s, r, n.folded[lake.Ident{Namespace: lower(r.Schema), Name: lower(r.Name)}])
}

func (n *Names) one(s *Statement, r Ref, found []lake.Ident) (lake.Ident, error) {
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if err := forbidden(s, r); err != nil {
			return lake.Ident{}, err
		}
		text := fmt.Sprintf("Catalog Error: there is no table %s", r)
		if near := n.near(r); len(near) > 0 {
			text += "; did you mean " + strings.Join(near, " or ") + "?"
		} else if len(n.all) == 0 {
			text += ": the lake has no tables yet; one appears with its first event"
		} else {
			text += "; SHOW TABLES lists all"
		}
		return lake.Ident{}, s.ErrorAt(ErrSQL, r.At, text)
	}
	names := make([]string, len(found))
	for i, t := range found {
		names[i] = t.String()
	}
	return lake.Ident{}, s.ErrorAt(ErrSQL, r.At, fmt.Sprintf("Binder Error: the name %s is ambiguous: it may be %s; write one of these", r, strings.Join(names, " or ")))
}

// forbidden tells a file and a system table from a misspelt name.
func forbidden(s *Statement, r Ref) error {
	schema, name := lower(r.Schema), lower(r.Name)
	switch {
	case strings.ContainsAny(r.String(), `/\:*?[]`) || strings.Contains(r.Name, "."):
		return s.ErrorAt(ErrRefused, r.At, fmt.Sprintf("the table %q is refused: it looks like a file, and a query reads tables only", r))
	case systemSchemas[schema], strings.HasPrefix(schema, "_naru"),
		schema == "" && (strings.HasPrefix(name, "sqlite_") || strings.HasPrefix(name, "duckdb_") || strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "pragma_")):
		return s.ErrorAt(ErrRefused, r.At, fmt.Sprintf("the table %s is refused: it is DuckDB's own; SHOW TABLES and DESCRIBE tell what there is to read", r))
	}
	return nil
}

var systemSchemas = map[string]bool{"information_schema": true, "pg_catalog": true, "main": true, "system": true, "temp": true, "memory": true}

// near lists up to three tables with a name like r's, bare where that suffices.
func (n *Names) near(r Ref) []string {
	known := make([]string, 0, len(n.all))
	for _, t := range n.all {
		if r.Schema == "" && (t.Namespace == event.DefaultStream || len(n.bare[lower(t.Name)]) == 1) {
			known = append(known, t.Name)
		} else {
			known = append(known, t.String())
		}
	}
	near := nearest(r.String(), known, 3)
	if r.Schema != "" && len(near) == 0 {
		for _, t := range n.bare[lower(r.Name)] { // right name, wrong stream
			near = append(near, t.String())
		}
	}
	return near[:min(3, len(near))]
}

func sameName(tables []lake.Ident, name string) []lake.Ident {
	var same []lake.Ident
	for _, t := range tables {
		if t.Name == name {
			same = append(same, t)
		}
	}
	return same
}
