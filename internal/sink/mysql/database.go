package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/sink/relational"
)

// database implements relational.Database.
type database struct {
	conn    *client.Conn
	set     *Settings
	reader  string
	table   string // quoted
	states  string // the table of positions, quoted
	packet  int    // the largest statement that the server takes, in bytes
	columns map[string]bool
}

var _ relational.Database = (*database)(nil)

// session is how the connection is set: what does not fit is an error and is not cut
// off, times are UTC, texts are UTF-8 with backslashes as escapes.
const session = `SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',
 time_zone = '+00:00', foreign_key_checks = 1, unique_checks = 1, autocommit = 1, innodb_lock_wait_timeout = %d, lock_wait_timeout = %d`

func connect(ctx context.Context, at server, password string, set *Settings, reader string) (*database, error) {
	ctx, cancel := context.WithTimeout(ctx, set.Timeout.Std())
	defer cancel()
	d := &database{set: set, reader: reader, table: quoteName(set.Table), states: quoteName(set.Beside(relational.PositionsTable))}
	var dialer net.Dialer
	var secure []client.Option
	if mode := set.encryption(at.host); mode != tlsOff {
		secure = append(secure, func(c *client.Conn) error {
			c.SetTLSConfig(&tls.Config{ServerName: at.host, InsecureSkipVerify: mode == tlsInsecure, MinVersion: tls.VersionTLS12}) //nolint:gosec // it is called insecure
			return nil
		})
	}
	conn, err := client.ConnectWithDialer(ctx, "tcp", net.JoinHostPort(at.host, at.port), at.user, password, at.database,
		func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err == nil {
				deadline, _ := ctx.Deadline()
				err = c.SetDeadline(deadline)
			}
			return c, err
		}, secure...)
	if err != nil {
		return nil, classify(fmt.Errorf("connect to MySQL: %w", err))
	}
	d.conn = conn
	seconds := max(int(set.Timeout.Std()/time.Second), 1)
	for _, sql := range []string{"SET NAMES utf8mb4", fmt.Sprintf(session, seconds, seconds)} {
		if _, err := d.query(ctx, sql); err != nil {
			return nil, errors.Join(classify(fmt.Errorf("connect to MySQL: %w", err)), d.Close())
		}
	}
	rows, err := d.query(ctx, "SELECT @@max_allowed_packet")
	if err == nil {
		d.packet, err = strconv.Atoi(rows[0][0])
	}
	if err != nil {
		return nil, errors.Join(classify(fmt.Errorf("connect to MySQL: %w", err)), d.Close())
	}
	return d, nil
}

// query runs a statement and gives the rows of its result as texts, null as "".
func (d *database) query(ctx context.Context, sql string) ([][]string, error) {
	deadline, _ := ctx.Deadline() // none: no limit
	if err := d.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// A call that is given up leaves an answer on its way: the connection is of no use.
	stop := context.AfterFunc(ctx, func() { _ = d.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := d.conn.Execute(sql)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Resultset == nil {
		return nil, nil
	}
	out := make([][]string, r.RowNumber())
	for i := range out {
		for j := range r.ColumnNumber() {
			v, err := r.GetString(i, j)
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], strings.Clone(v)) // it is of a buffer that is used again
		}
	}
	return out, nil
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
	out := event.Positions{}
	rows, err := d.query(ctx, "SELECT incarnation, partition_no, next_offset FROM "+d.states+" WHERE reader = "+text(d.reader))
	if err != nil {
		return nil, classify(fmt.Errorf("read %s: %w", relational.PositionsTable, err))
	}
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
func position(r []string) (event.Position, error) {
	inc, err := event.ParseIncarnation(r[0])
	if err != nil {
		return event.Position{}, err
	}
	partition, err := strconv.ParseInt(r[1], 10, 32)
	if err != nil {
		return event.Position{}, err
	}
	off, err := strconv.ParseInt(r[2], 10, 64)
	return event.Position{Incarnation: inc, Partition: int32(partition), Offset: off}, err
}

// ordered gives the places of positions in the order in which they are always locked.
func ordered(p event.Positions) (out []event.Position) {
	for inc, parts := range p {
		for partition, off := range parts {
			out = append(out, event.Position{Incarnation: inc, Partition: partition, Offset: off})
		}
	}
	slices.SortFunc(out, func(a, b event.Position) int {
		if c := slices.Compare(a.Incarnation[:], b.Incarnation[:]); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	return out
}

// Begin implements relational.Database.
func (d *database) Begin(ctx context.Context, at event.Positions) (event.Positions, error) {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	// Who is gone without a word frees its locks when the server ends the connection.
	for _, sql := range []string{
		fmt.Sprintf("SET SESSION wait_timeout = %d", max(int(d.set.Timeout.Std()/time.Second), 1)),
		"SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"START TRANSACTION",
	} {
		if _, err := d.query(ctx, sql); err != nil {
			return nil, classify(fmt.Errorf("begin transaction: %w", err))
		}
	}
	have := event.Positions{}
	for _, p := range ordered(at) {
		// A row for what has none yet; it is locked from here on, by this statement.
		_, err := d.query(ctx, fmt.Sprintf("INSERT INTO %s (reader, incarnation, partition_no, next_offset, written_at) VALUES (%s, '%s', %d, -1, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE reader = reader",
			d.states, text(d.reader), p.Incarnation, p.Partition))
		if err != nil {
			return nil, classify(fmt.Errorf("lock %s: %w", relational.PositionsTable, err))
		}
		rows, err := d.query(ctx, "SELECT incarnation, partition_no, next_offset FROM "+d.states+d.where(p)+" FOR UPDATE")
		if err != nil {
			return nil, classify(fmt.Errorf("lock %s: %w", relational.PositionsTable, err))
		}
		for _, r := range rows {
			at, err := position(r)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", relational.PositionsTable, err)
			}
			if at.Offset >= 0 {
				have.Advance(at)
			}
		}
	}
	return have, nil
}

func (d *database) where(p event.Position) string {
	return fmt.Sprintf(" WHERE reader = %s AND incarnation = '%s' AND partition_no = %d", text(d.reader), p.Incarnation, p.Partition)
}

// Commit implements relational.Database.
func (d *database) Commit(ctx context.Context, at event.Positions) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	for _, p := range ordered(at) {
		if _, err := d.query(ctx, fmt.Sprintf("UPDATE %s SET next_offset = %d, written_at = UTC_TIMESTAMP(6)%s", d.states, p.Offset, d.where(p))); err != nil {
			return classify(fmt.Errorf("write %s: %w", relational.PositionsTable, err))
		}
	}
	if _, err := d.query(ctx, "COMMIT"); err != nil {
		return classify(fmt.Errorf("commit: %w", err))
	}
	// Between transactions nothing is locked, and a quiet pipeline keeps its connection.
	if _, err := d.query(ctx, "SET SESSION wait_timeout = DEFAULT"); err != nil {
		return classify(fmt.Errorf("after commit: %w", err))
	}
	return nil
}

// Insert implements relational.Database. A statement that fails changes nothing
// (InnoDB), and the transaction goes on.
func (d *database) Insert(ctx context.Context, columns []event.Column, rows []byte, n int) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	sql := d.insert(columns, rows)
	if len(sql) > d.packet-packetHead {
		return &relational.RowError{Err: fmt.Errorf("as a statement it has %d bytes, and the server's max_allowed_packet is %d", len(sql), d.packet)}
	}
	_, err := d.query(ctx, sql)
	if err == nil {
		return nil
	}
	if bad := refusal(err); bad != nil {
		return bad
	}
	return classify(fmt.Errorf("write table %s: %w", d.set.Table, err))
}

// packetHead is what a packet has beside the statement, with room to spare.
const packetHead = 64

func (d *database) insert(columns []event.Column, rows []byte) string {
	var b strings.Builder
	b.Grow(len(rows) + 64*len(columns))
	b.WriteString("INSERT INTO " + d.table + " (" + quoteAll(names(columns)) + ") VALUES ")
	b.Write(rows[:len(rows)-1]) // without the comma behind the last row
	if d.set.Mode != relational.Upsert {
		return b.String()
	}
	// Of rows with the same key the server takes one after the other: the last wins.
	var sets []string
	for _, c := range columns {
		if !slices.ContainsFunc(d.set.Key, func(k string) bool { return strings.EqualFold(k, c.Name) }) {
			sets = append(sets, quote(c.Name)+" = VALUES("+quote(c.Name)+")")
		}
	}
	if len(sets) == 0 {
		sets = []string{quote(d.set.Key[0]) + " = " + quote(d.set.Key[0])}
	}
	b.WriteString(" ON DUPLICATE KEY UPDATE " + strings.Join(sets, ", "))
	return b.String()
}

// Close implements relational.Database.
func (d *database) Close() error {
	_ = d.conn.Close() // it is closed in any case
	return nil
}

var errNoTransactions = errors.New("its engine has no transactions")

// hintEngine is the cure of errNoTransactions.
func (d *database) hintEngine() error {
	return fault.WithHint(fmt.Errorf("write table %s: %w", d.set.Table, errNoTransactions), "ALTER TABLE %s ENGINE = InnoDB", d.table)
}
