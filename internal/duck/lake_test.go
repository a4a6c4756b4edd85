package duck

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"

	"naru/internal/lake"
	"naru/internal/query"
)

// testLake is a lake.Reader over Parquet files that DuckDB itself has written
// with field ids. It counts the leases that are out.
type testLake struct {
	dir    string
	tables map[lake.Ident]*lake.View
	leases atomic.Int64
	// block, when set, stops View until it is closed; blocked gets a token by then.
	block, blocked chan struct{}
	// viewed, when set, gets a token for each lease.
	viewed chan struct{}
}

func newLake(t *testing.T) *testLake {
	t.Helper()
	return &testLake{dir: t.TempDir(), tables: map[lake.Ident]*lake.View{}}
}

func (l *testLake) List(context.Context) ([]lake.Ident, error) {
	var all []lake.Ident
	for t := range l.tables {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b lake.Ident) int { return strings.Compare(a.String(), b.String()) })
	return all, nil
}

func (l *testLake) View(ctx context.Context, t lake.Ident) (*lake.View, error) {
	if l.block != nil {
		l.blocked <- struct{}{}
		<-l.block // heeds no context, as a bad driver would
	}
	v, ok := l.tables[t]
	if !ok {
		return nil, lake.ErrNoTable
	}
	l.leases.Add(1)
	if l.viewed != nil {
		l.viewed <- struct{}{}
	}
	released := atomic.Bool{}
	view := *v
	view.Release = func() {
		if !released.Swap(true) {
			l.leases.Add(-1)
		}
	}
	return &view, nil
}

func (l *testLake) Info(context.Context, lake.Ident) (*lake.Info, error) {
	return nil, lake.ErrNoTable
}

// table adds a table with columns in the form "id name type".
func (l *testLake) table(name string, columns ...string) *lake.View {
	ns, n, _ := strings.Cut(name, ".")
	v := &lake.View{Ident: lake.Ident{Namespace: ns, Name: n}}
	for _, c := range columns {
		var col lake.Column
		f := strings.SplitN(c, " ", 3)
		fmt.Sscan(f[0], &col.FieldID)
		col.Name, col.Type = f[1], f[2]
		v.Columns = append(v.Columns, col)
	}
	l.tables[v.Ident] = v
	return v
}

// file writes the rows of sql as a data file of v. fields is the FIELD_IDS
// option of COPY.
func (l *testLake) file(t *testing.T, v *lake.View, sql, fields string) {
	t.Helper()
	dir := filepath.Join(l.dir, v.Ident.Namespace, v.Ident.Name, "data", "_time_day=2024-01-02")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%05d.parquet", len(v.Files)))
	writer, err := openDatabase()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.close()
	c, err := writer.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.exec("SET TimeZone = 'Asia/Seoul'"); err != nil {
		t.Fatal(err)
	}
	if err := c.exec("COPY (" + sql + ") TO " + literal(path) + " (FORMAT parquet, FIELD_IDS {" + fields + "})"); err != nil {
		t.Fatal(err)
	}
	written, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	v.Files = append(v.Files, lake.File{Path: path, Rows: written.NumRows()})
	if err := written.Close(); err != nil {
		t.Fatal(err)
	}
}

// shop is a small lake: two streams, one ambiguous name, a table without files.
func shop(t *testing.T) *testLake {
	t.Helper()
	l := newLake(t)
	columns := []string{"1 _id string", "2 _time timestamptz", "3 page string", "4 n long", "5 tags list<string>", "6 price double"}
	pv := l.table("events.page_view", columns...)
	l.file(t, pv, `SELECT 'e' || i AS _id, TIMESTAMPTZ '2024-01-02 03:00:00+00' + to_minutes(i) AS _time, 'p' || i % 3 AS page, i AS n, ['a', NULL, 'b' || i] AS tags, i / 4 AS price FROM range(10) t(i)`,
		`_id: 1, _time: 2, page: 3, n: 4, tags: {__duckdb_field_id: 5, element: 7}, price: 6`)
	l.table("events.empty", columns...)
	click := l.table("events.click", "1 _id string", "2 x int")
	l.file(t, click, `SELECT 'c' || i AS _id, i::INT AS x FROM range(3) t(i)`, `_id: 1, x: 2`)
	order := l.table("shop.order", "1 _id string", "2 total decimal(18, 2)")
	l.file(t, order, `SELECT 'o1' AS _id, 12345678901234.50::DECIMAL(18,2) AS total`, `_id: 1, total: 2`)
	shopClick := l.table("shop.click", "1 _id string")
	l.file(t, shopClick, `SELECT 's1' AS _id`, `_id: 1`)
	l.table("a.twin", "1 _id string")
	l.table("b.twin", "1 _id string")
	rejected := l.table("rejected.rejected", "1 reason string", "2 original binary")
	l.file(t, rejected, `SELECT 'not_json' AS reason, '{"a":'::BLOB AS original`, `reason: 1, original: 2`)
	return l
}

func open(t *testing.T, l lake.Reader, dir string, change ...func(*Config)) *Engine {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Warehouse, cfg.Temp, cfg.Threads = dir, t.TempDir(), 2
	for _, f := range change {
		f(&cfg)
	}
	e, err := New(cfg, lake.Snapshots{Reader: l}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// ask runs a query and gives its answer as CSV without the header.
func ask(e *Engine, sql string) (string, error) {
	rows, err := e.Query(context.Background(), query.Query{SQL: sql})
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b strings.Builder
	if err := query.Copy(query.NewWriter(query.CSV, &b), rows); err != nil {
		return "", err
	}
	_, body, _ := strings.Cut(b.String(), "\n")
	return strings.TrimSuffix(body, "\n"), nil
}
