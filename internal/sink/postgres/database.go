package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"naru/internal/event"
	"naru/internal/sink/relational"
)

// database implements relational.Database.
type database struct {
	conn    *pgconn.PgConn
	set     *Settings
	reader  string
	table   string          // quoted
	states  string          // the table of positions, quoted
	columns map[string]bool // of the table, once known
	staged  []event.Column  // of the temporary table that upserts go through
}

var _ relational.Database = (*database)(nil)

func connect(ctx context.Context, cfg *pgconn.Config, set *Settings, reader string) (*database, error) {
	ctx, cancel := context.WithTimeout(ctx, set.Timeout.Std())
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, classify(fmt.Errorf("connect to PostgreSQL: %w", err))
	}
	d := &database{conn: conn, set: set, reader: reader, table: quoteName(set.Table)}
	d.states = quoteName(set.Beside(relational.PositionsTable))
	return d, nil
}

// quote makes a name safe whatever is in it, reserved words among them.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteName quotes schema.table.
func quoteName(name string) string {
	schema, table, ok := strings.Cut(name, ".")
	if !ok {
		return quote(name)
	}
	return quote(schema) + "." + quote(table)
}

func quoteAll(columns []string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = quote(c)
	}
	return strings.Join(out, ", ")
}

func names(columns []event.Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name
	}
	return out
}

// exec runs statements without parameters.
func (d *database) exec(ctx context.Context, sql string) error {
	_, err := d.conn.Exec(ctx, sql).ReadAll()
	return err
}

// query runs one statement with parameters in text form.
func (d *database) query(ctx context.Context, sql string, params ...string) ([][][]byte, error) {
	args := make([][]byte, len(params))
	for i, p := range params {
		args[i] = []byte(p)
	}
	r := d.conn.ExecParams(ctx, sql, args, nil, nil, nil).Read()
	return r.Rows, r.Err
}

func (d *database) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.set.Timeout.Std())
}

// Load implements relational.Database.
func (d *database) Load(ctx context.Context) (event.Positions, error) {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	if err := d.needStates(ctx); err != nil {
		return nil, err
	}
	rows, err := d.query(ctx, `SELECT incarnation, partition_no, next_offset FROM `+d.states+` WHERE reader = $1`, d.reader)
	if err != nil {
		return nil, classify(fmt.Errorf("read %s: %w", relational.PositionsTable, err))
	}
	return positions(rows)
}

// positions reads rows of incarnation, partition and offset.
func positions(rows [][][]byte) (event.Positions, error) {
	out := event.Positions{}
	for _, r := range rows {
		at, err := position(r)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", relational.PositionsTable, err)
		}
		if at.Offset >= 0 { // what was locked for the first time has none yet
			out.Advance(at)
		}
	}
	return out, nil
}

// position reads incarnation, partition and offset.
func position(r [][]byte) (event.Position, error) {
	inc, err := event.ParseIncarnation(string(r[0]))
	if err != nil {
		return event.Position{}, err
	}
	partition, err := strconv.ParseInt(string(r[1]), 10, 32)
	if err != nil {
		return event.Position{}, err
	}
	off, err := strconv.ParseInt(string(r[2]), 10, 64)
	return event.Position{Incarnation: inc, Partition: int32(partition), Offset: off}, err
}

// arrays gives the places of positions, in order, as array literals of
// incarnations, partitions and offsets: locks are always taken in this order.
func arrays(p event.Positions) (out [3]string) {
	var at []event.Position
	for inc, parts := range p {
		for partition, off := range parts {
			at = append(at, event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	slices.SortFunc(at, func(a, b event.Position) int {
		if c := bytes.Compare(a.Incarnation[:], b.Incarnation[:]); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	var lists [3][]string
	for _, a := range at {
		lists[0] = append(lists[0], a.Incarnation.String())
		lists[1] = append(lists[1], strconv.Itoa(int(a.Partition)))
		lists[2] = append(lists[2], strconv.FormatInt(a.Offset, 10))
	}
	for i, l := range lists {
		out[i] = "{" + strings.Join(l, ",") + "}"
	}
	return out
}

// begin is the head of each transaction. Who is gone without a word frees its locks
// after the timeout, deferred constraints are checked where the row can still be
// found, and a commit is on disk when it is answered.
const begin = `BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = %d;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
SET CONSTRAINTS ALL IMMEDIATE`

// Begin implements relational.Database.
func (d *database) Begin(ctx context.Context, at event.Positions) (event.Positions, error) {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	if err := d.exec(ctx, fmt.Sprintf(begin, d.set.Timeout.Std().Milliseconds())); err != nil {
		return nil, classify(fmt.Errorf("begin transaction: %w", err))
	}
	places := arrays(at)
	// A row for what has none yet: two writers that begin at once wait for each
	// other here.
	_, err := d.query(ctx, `INSERT INTO `+d.states+` (reader, incarnation, partition_no, next_offset)
SELECT $1, i, p, -1 FROM unnest($2::uuid[], $3::int[]) AS v(i, p) ON CONFLICT DO NOTHING`, d.reader, places[0], places[1])
	if err != nil {
		return nil, classify(fmt.Errorf("lock %s: %w", relational.PositionsTable, err))
	}
	rows, err := d.query(ctx, `SELECT incarnation, partition_no, next_offset FROM `+d.states+`
WHERE reader = $1 AND (incarnation, partition_no) IN (SELECT * FROM unnest($2::uuid[], $3::int[]))
ORDER BY 1, 2 FOR UPDATE`, d.reader, places[0], places[1])
	if err != nil {
		return nil, classify(fmt.Errorf("lock %s: %w", relational.PositionsTable, err))
	}
	return positions(rows)
}

// Commit implements relational.Database.
func (d *database) Commit(ctx context.Context, at event.Positions) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	places := arrays(at)
	_, err := d.query(ctx, `UPDATE `+d.states+` AS t SET next_offset = n, written_at = now()
FROM unnest($2::uuid[], $3::int[], $4::bigint[]) AS v(i, p, n)
WHERE reader = $1 AND incarnation = i AND partition_no = p`, d.reader, places[0], places[1], places[2])
	if err != nil {
		return classify(fmt.Errorf("write %s: %w", relational.PositionsTable, err))
	}
	if err := d.exec(ctx, `COMMIT`); err != nil {
		return classify(fmt.Errorf("commit: %w", err))
	}
	return nil
}

// Close implements relational.Database.
func (d *database) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.conn.Close(ctx) // it is closed in any case; the error is that the server was not told
	return nil
}
