package duck

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/query"
)

// session is what one query holds: leases, a catalog, a connection, a result.
type session struct {
	e       *Engine
	in      *instance
	catalog string
	conn    *conn
	calm    func() // stops interrupts
	leases  []func()
	result  *result
}

// close gives everything back, in the reverse order.
func (s *session) close() {
	if s.result != nil {
		s.result.close()
	}
	if s.calm != nil {
		s.calm()
	}
	if s.conn != nil {
		s.conn.close()
	}
	if s.in != nil {
		if s.catalog != "" {
			s.in.detach(s.catalog, s.e.log)
		}
		if s.in.leave() {
			s.in.close()
		}
	}
	for _, release := range slices.Backward(s.leases) {
		release()
	}
	*s = session{e: s.e}
}

func (s *session) run(ctx context.Context, st *query.Statement, maxRows int64) (*rows, error) {
	tables, err := s.resolve(ctx, st)
	if err != nil {
		return nil, s.e.ended(ctx, err)
	}
	setup, err := s.views(ctx, st, tables)
	if err != nil {
		return nil, s.e.ended(ctx, err)
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	for _, sql := range setup {
		if err := s.conn.exec(strings.ReplaceAll(sql, catalogMark, ident(s.catalog))); err != nil {
			return nil, s.trouble(ctx, "prepare query", err)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if s.result, err = s.conn.stream(st.Executable()); err != nil {
		return nil, s.fault(ctx, err)
	}
	return s.open(ctx, st, maxRows)
}

// connect makes the session's catalog and connection, once.
func (s *session) connect(ctx context.Context) (err error) {
	if s.conn != nil {
		return nil
	}
	if s.in, err = s.e.instance(); err != nil {
		return err
	}
	catalog := fmt.Sprintf("_naru_%d", s.e.ids.Add(1))
	if err := s.in.attach(catalog); err != nil {
		return s.trouble(ctx, "prepare query", err)
	}
	s.catalog = catalog
	if s.conn, err = s.in.db.connect(); err != nil {
		return err
	}
	s.calm = s.conn.interruptOn(ctx)
	return nil
}

// catalogMark stands for the session's catalog. A NUL occurs in no name.
const catalogMark = "\x00"

// resolve finds the table of each of the statement's references, in their order.
// A name that no table has may be of one that the log alone knows.
func (s *session) resolve(ctx context.Context, st *query.Statement) (tables []lake.Ident, err error) {
	for _, list := range []func(context.Context) ([]lake.Ident, error){s.e.lake.List, s.e.lake.Newest} {
		known, lerr := list(ctx)
		if lerr != nil {
			return nil, fmt.Errorf("list tables: %w", lerr)
		}
		names := query.NewNames(known)
		tables = tables[:0]
		err = nil
		for _, ref := range st.Refs {
			table, rerr := names.Resolve(st, ref)
			if rerr != nil {
				err = rerr
				break
			}
			tables = append(tables, table)
		}
		if err == nil {
			return tables, nil
		}
	}
	return nil, err
}

// views cuts the tables of the statement's references and gives the statements
// that make them visible under the names that it uses: `ns.name`, and a bare name
// in the default schema.
func (s *session) views(ctx context.Context, st *query.Statement, tables []lake.Ident) ([]string, error) {
	bodies, err := s.cut(ctx, st, tables)
	if err != nil {
		return nil, err
	}
	schemas := map[string]bool{event.DefaultStream: true}
	made := map[lake.Ident]bool{}
	var views []string
	for i, ref := range st.Refs {
		table := tables[i]
		as := table
		if ref.Schema == "" {
			as.Namespace = event.DefaultStream
		}
		if made[as] {
			continue
		}
		made[as], schemas[as.Namespace] = true, true
		views = append(views, "CREATE VIEW "+catalogMark+"."+ident(as.Namespace)+"."+ident(as.Name)+" AS "+bodies[table])
	}
	var setup []string
	for schema := range schemas {
		if reserved[strings.ToLower(schema)] {
			return nil, &query.Error{Class: query.ErrSQL, Text: fmt.Sprintf("Binder Error: DuckDB keeps the name %s for itself: write tables of this stream without the stream's name", schema)}
		}
		setup = append(setup, "CREATE SCHEMA IF NOT EXISTS "+catalogMark+"."+ident(schema))
	}
	setup = append(setup, views...)
	for _, name := range st.Guarded {
		setup = append(setup, guardSQL(catalogMark+"."+ident(event.DefaultStream), name))
	}
	return append(setup, "USE "+catalogMark+"."+ident(event.DefaultStream)), nil
}

// reserved are names of catalogs and schemas that a query cannot get past.
var reserved = map[string]bool{"memory": true, "system": true, "temp": true, "information_schema": true, "pg_catalog": true}

// cut cuts the tables, keeps their files until the session is closed, and gives
// what each table's name stands for.
func (s *session) cut(ctx context.Context, st *query.Statement, tables []lake.Ident) (map[lake.Ident]string, error) {
	bodies := make(map[lake.Ident]string, len(tables))
	var once []lake.Ident
	for _, t := range tables {
		if _, ok := bodies[t]; !ok {
			bodies[t] = ""
			once = append(once, t)
		}
	}
	views, err := s.e.lake.Cut(ctx, once)
	if err != nil {
		var which *lake.CutError
		if errors.Is(err, lake.ErrNoTable) && errors.As(err, &which) {
			at := st.Refs[slices.Index(tables, which.Table)].At
			return nil, st.ErrorAt(query.ErrSQL, at, fmt.Sprintf("Catalog Error: table %s was dropped a moment ago", which.Table))
		}
		return nil, err
	}
	for _, v := range views {
		s.leases = append(s.leases, v.Release)
	}
	if err := s.prune(ctx, st, tables, views); err != nil {
		return nil, err
	}
	sql := viewSQL
	if st.CountsRows {
		sql = countSQL
	}
	for i, v := range views {
		if bodies[once[i]], err = sql(v); err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

// trouble is an error of our own statements.
func (s *session) trouble(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if broken(err.Error()) {
		s.in.spoil()
	}
	return fmt.Errorf("%s: %s", what, s.clean(err.Error()))
}

// diskPause is how soon a query may be worth asking again after the disk failed.
const diskPause = 10 * time.Second

// fault turns DuckDB's error into one of the seam's.
func (s *session) fault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := s.clean(err.Error())
	kind, _, _ := strings.Cut(text, " Error:")
	switch kind {
	case "INTERNAL", "FATAL":
		s.in.spoil()
		first, _, _ := strings.Cut(text, "\n")
		return fmt.Errorf("run query: %s", first)
	case "IO": // the disk is full, a file system is away: not the statement's fault
		return fault.WithHint(&fault.RetryAfter{Err: fmt.Errorf("run query: %s", text), After: diskPause}, "ask again later; if it stays: naru table fsck names files that are missing or damaged, with the cure; and look whether the disk that holds the data has room")
	case "Permission":
		return &query.Error{Class: query.ErrRefused, Text: text}
	case "Out of Memory":
		text, _, _ = strings.Cut(text, "\n") // DuckDB's own advice is to SET what is locked here
		return fault.WithHint(&query.Error{Class: query.ErrSQL, Text: text}, "read fewer rows or columns at once, or raise query.memory or query.temp_size")
	}
	if broken(text) {
		s.in.spoil()
		return fmt.Errorf("run query: %s", text)
	}
	return &query.Error{Class: query.ErrSQL, Text: query.WithoutAdvice(text)}
}

var ownCatalog = regexp.MustCompile(`"?_naru_[0-9]+"?\.`)

// clean takes out what is nobody's business: where the files lie.
func (s *session) clean(text string) string {
	return ownCatalog.ReplaceAllString(s.paths(text), "")
}

// explained cleans a text of an EXPLAIN's answer.
func (s *session) explained(text string) string { return s.clean(hideFiles(text)) }

func (s *session) paths(text string) string {
	for _, dir := range s.e.cfg.roots() {
		text = strings.ReplaceAll(text, dir, "<warehouse>")
	}
	return strings.ReplaceAll(text, s.e.cfg.Temp, "<temp>")
}
