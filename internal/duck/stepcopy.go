package duck

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"naru/internal/lake"
)

// copySchema holds the copies of tables in an instance for steps.
const copySchema = "_naru_tables"

// copies are tables of the lake in the memory of an instance, those that steps join
// and that are small enough: DuckDB would open all their files for each batch. All
// steps that read the same columns of the same snapshot share one.
type copies struct {
	mu struct {
		sync.Mutex
		last int
		by   map[string]*tableCopy // by the statement that reads the table
	}
}

type tableCopy struct {
	made  chan struct{} // closed once it is there, or err says why not
	err   error
	name  string
	users int
}

// copied gives the name of a copy of what a statement reads, which is made by conn if
// there is none. It is to be let go.
func (in *instance) copied(ctx context.Context, c *conn, sql string) (name string, letGo func(), err error) {
	x := &in.copies
	x.mu.Lock()
	t := x.mu.by[sql]
	first := t == nil
	if first {
		x.mu.last++
		t = &tableCopy{made: make(chan struct{}), name: fmt.Sprintf("memory.%s.t%d", copySchema, x.mu.last)}
		if x.mu.by == nil {
			x.mu.by = map[string]*tableCopy{}
		}
		x.mu.by[sql] = t
	}
	t.users++
	x.mu.Unlock()
	if first {
		calm := c.interruptOn(ctx)
		t.err = c.exec("CREATE TABLE " + t.name + " AS " + sql)
		calm()
		close(t.made)
	}
	letGo = func() { in.letGo(sql, t) }
	select {
	case <-t.made:
	case <-ctx.Done():
		letGo()
		return "", nil, context.Cause(ctx)
	}
	if t.err != nil {
		letGo()
		return "", nil, t.err
	}
	return t.name, letGo, nil
}

func (in *instance) letGo(sql string, t *tableCopy) {
	x := &in.copies
	x.mu.Lock()
	t.users--
	last := t.users == 0
	if x.mu.by[sql] == t && (last || t.err != nil) {
		delete(x.mu.by, sql)
	}
	x.mu.Unlock()
	if !last || t.err != nil {
		return
	}
	in.mu.Lock() // DuckDB call under the lock: the admin connection takes one at a time
	defer in.mu.Unlock()
	if !in.mu.broken {
		_ = in.mu.admin.exec("DROP TABLE " + t.name) // what stays is dropped with the instance
	}
}

// body is what a table's name stands for in the statement of steps: its files, or a
// copy in memory.
func (g *segment) body(ctx context.Context, v *lake.View) (body string, letGo func(), err error) {
	body, err = viewSQL(v)
	if err != nil {
		v.Release()
		return "", nil, err
	}
	files := v.Files
	if v.Hot != nil {
		files = append(files[:len(files):len(files)], v.Hot.Files...)
	}
	size := int64(0)
	for _, f := range files {
		size += f.Bytes
	}
	if size > int64(min(g.s.cfg.Table, g.s.cfg.Memory/8)) {
		return body, v.Release, nil
	}
	name, letGo, err := g.inst.copied(ctx, g.conn, "SELECT "+g.columnsOf(v)+" FROM ("+body+")")
	if err != nil && strings.HasPrefix(err.Error(), "Out of Memory") {
		return body, v.Release, nil
	}
	v.Release() // the copy needs no files
	if err != nil {
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		return "", nil, fmt.Errorf("read table %s: %w", v.Ident, g.trouble(err.Error()))
	}
	return "SELECT * FROM " + name, letGo, nil
}

// columnsOf are the columns of a table that the steps may read.
func (g *segment) columnsOf(v *lake.View) string {
	columns, err := viewColumns(v)
	if err != nil || g.plan.all {
		return "*"
	}
	var names []string
	for _, c := range columns {
		if g.plan.names[foldName(c.name)] {
			names = append(names, ident(c.name))
		}
	}
	if len(names) == 0 {
		return ident(columns[0].name) // its rows count
	}
	return strings.Join(names, ", ")
}
