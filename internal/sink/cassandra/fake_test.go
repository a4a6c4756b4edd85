package cassandra

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
)

// fake is a keyspace in memory that does with the sink's own statements what
// Cassandra does: cells are kept by primary key, and the later timestamp wins. The
// tests run against Apache Cassandra too (make test-world).
type fake struct {
	// insert may fail a request, before (done false) or behind what it does.
	insert func(rows [][]any) (err error, done bool)
	refuse map[string]bool // by any text among the values

	mu     sync.Mutex
	tables map[string][]column
	cells  map[string]map[string]map[string]cell // table, primary key, column
	clocks map[string]int64
}

type cell struct {
	value any
	at    int64
}

func newFake() *fake {
	return &fake{tables: map[string][]column{}, cells: map[string]map[string]map[string]cell{}, clocks: map[string]int64{}, refuse: map[string]bool{}}
}

func (f *fake) Close() {}

func (f *fake) Columns(_ context.Context, table string) ([]column, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.tables[table])
	slices.SortFunc(out, func(a, b column) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

var (
	createText = regexp.MustCompile(`^CREATE TABLE IF NOT EXISTS "\w+"\."?(\w+)"? \((.*?)(?:, PRIMARY KEY \(\((.*?)\)(.*)\))?\)$`)
	alterText  = regexp.MustCompile(`^ALTER TABLE "\w+"\."(\w+)" ADD "(.*)" (\w+)$`)
	insertText = regexp.MustCompile(`^INSERT INTO "\w+"\."(\w+)" \((.*?)\) VALUES \([?, ]*\) USING TIMESTAMP \?( AND TTL \d+)?$`)
	nameText   = regexp.MustCompile(`"((?:[^"]|"")+)"`)
)

func (f *fake) Define(_ context.Context, statement string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := alterText.FindStringSubmatch(statement); m != nil {
		f.tables[m[1]] = append(f.tables[m[1]], column{name: m[2], kind: "regular", cql: m[3]})
		return nil
	}
	m := createText.FindStringSubmatch(statement)
	if m == nil {
		return fmt.Errorf("not understood: %s", statement)
	}
	if m[1] == clocks {
		f.tables[clocks] = []column{{name: "writer", kind: "partition_key", cql: "text"}}
		return nil
	}
	for _, def := range strings.Split(m[2], ", ") {
		i := strings.LastIndex(def, " ")
		c := column{name: strings.Trim(def[:i], `"`), kind: "regular", cql: def[i+1:]}
		switch q := quote(c.name); {
		case strings.Contains(m[3], q):
			c.kind = "partition_key"
		case strings.Contains(m[4], q):
			c.kind = "clustering"
		}
		f.tables[m[1]] = append(f.tables[m[1]], c)
	}
	return nil
}

func (f *fake) Clock(_ context.Context, key string, base int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.clocks[key]; ok {
		return have, nil
	}
	f.clocks[key] = base
	return base, nil
}

func (f *fake) Insert(ctx context.Context, statement string, rows [][]any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var lost error
	if f.insert != nil {
		err, done := f.insert(rows)
		if err != nil && !done {
			return err
		}
		lost = err
	}
	m := insertText.FindStringSubmatch(statement)
	if m == nil {
		return fmt.Errorf("not understood: %s", statement)
	}
	table := f.tables[m[1]]
	var names []string
	for _, n := range nameText.FindAllStringSubmatch(m[2], -1) {
		names = append(names, n[1])
	}
	for _, row := range rows {
		if len(row) != len(names)+1 {
			return errors.New("the number of values is not that of the columns")
		}
		for i, v := range row[:len(names)] {
			if text, ok := v.(string); ok && f.refuse[text] {
				return &errInvalid{text: "no " + text + " here"}
			}
			if !slices.ContainsFunc(table, func(c column) bool { return c.name == names[i] }) {
				return &errInvalid{text: "Undefined column name " + names[i]}
			}
		}
	}
	for _, row := range rows {
		at, key := row[len(names)].(int64), ""
		for i, n := range names {
			if slices.ContainsFunc(table, func(c column) bool { return c.name == n && c.kind != "regular" }) {
				key += fmt.Sprintf("%v,", row[i])
			}
		}
		if f.cells[m[1]] == nil {
			f.cells[m[1]] = map[string]map[string]cell{}
		}
		if f.cells[m[1]][key] == nil {
			f.cells[m[1]][key] = map[string]cell{}
		}
		for i, n := range names {
			if have, ok := f.cells[m[1]][key][n]; row[i] != gocql.UnsetValue && (!ok || at >= have.at) {
				f.cells[m[1]][key][n] = cell{value: row[i], at: at}
			}
		}
	}
	return lost
}

// rows are those of a table: the values of some columns, as text.
func (f *fake) rows(table string, columns ...string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, cells := range f.cells[table] {
		var texts []string
		for _, c := range columns {
			texts = append(texts, fmt.Sprint(cells[c].value))
		}
		out = append(out, strings.Join(texts, " "))
	}
	slices.Sort(out)
	return out
}
