package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// types are what columns of a new table are made as.
var types = map[event.ColumnType]string{
	event.BoolColumn:      "boolean",
	event.LongColumn:      "bigint",
	event.DoubleColumn:    "double precision",
	event.StringColumn:    "text",
	event.TimestampColumn: "timestamp with time zone",
	event.DateColumn:      "date",
	event.JSONColumn:      "jsonb",
}

func typeOf(c event.Column) string {
	if t, ok := types[c.Type]; ok {
		return t
	}
	return "text"
}

// needStates makes the table of positions where it is missing.
func (d *database) needStates(ctx context.Context) error {
	if _, ok, err := d.columnsOf(ctx, d.states); err != nil || ok {
		return err
	}
	return d.make(ctx, "table "+d.states, `CREATE TABLE IF NOT EXISTS `+d.states+` (
  reader text NOT NULL, incarnation uuid NOT NULL, partition_no integer NOT NULL,
  next_offset bigint NOT NULL, written_at timestamp with time zone NOT NULL DEFAULT now(),
  PRIMARY KEY (reader, incarnation, partition_no))`)
}

// columnsOf are the columns of a table; false: there is no such table.
func (d *database) columnsOf(ctx context.Context, quoted string) (map[string]bool, bool, error) {
	rows, err := d.query(ctx, `SELECT a.attname FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = to_regclass($1)`, quoted)
	if err != nil {
		return nil, false, classify(fmt.Errorf("read columns of %s: %w", quoted, err))
	}
	out := map[string]bool{}
	for _, r := range rows {
		out[string(r[0])] = true
	}
	return out, len(rows) > 0, nil
}

// make runs a statement that changes tables, or tells it to the operator where the
// settings say that naru is not to. It waits a few seconds for readers of the table
// and no longer: whoever comes later would wait behind it.
func (d *database) make(ctx context.Context, what, sql string) error {
	if !d.set.Create {
		return fault.WithHint(fmt.Errorf("write table %s: there is no %s", d.set.Table, what),
			"set create: true, or run: %s", strings.Join(strings.Fields(sql), " "))
	}
	err := d.exec(ctx, `BEGIN; SET LOCAL lock_timeout = '5s'; `+sql+`; COMMIT`)
	if err == nil {
		return nil
	}
	if d.conn.TxStatus() != 'I' && !d.conn.IsClosed() {
		err = errors.Join(err, d.exec(ctx, `ROLLBACK`))
	}
	switch code(err) {
	case "23505", "42P07", "42701": // another connection was quicker
		return fault.Transient(fmt.Errorf("create %s: %w", what, err))
	}
	err = classify(fmt.Errorf("create %s: %w", what, err))
	if fault.IsTransient(err) {
		return err
	}
	return fault.WithHint(err, "allow it to the user of the url, or run: %s", strings.Join(strings.Fields(sql), " "))
}

// Shape implements relational.Database.
func (d *database) Shape(ctx context.Context, columns []event.Column) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	for _, c := range columns {
		if err := validName(c.Name); err != nil {
			return fault.WithHint(fmt.Errorf("write table %s: column %w", d.set.Table, err), `give it another name in the last step: SELECT "..." AS shorter`)
		}
	}
	missing := d.missing(columns)
	if d.columns != nil && len(missing) == 0 {
		return nil
	}
	have, ok, err := d.columnsOf(ctx, d.table)
	if err != nil {
		return err
	}
	if !ok {
		if err := d.make(ctx, "table "+d.set.Table, d.createTable(columns)); err != nil {
			return err
		}
		if have, _, err = d.columnsOf(ctx, d.table); err != nil {
			return err
		}
	}
	d.columns = have
	if missing = d.missing(columns); len(missing) == 0 {
		return nil
	}
	var adds []string
	for _, c := range missing {
		adds = append(adds, `ADD COLUMN IF NOT EXISTS `+quote(c.Name)+` `+typeOf(c))
	}
	if err := d.make(ctx, "column "+strings.Join(names(missing), ", "), `ALTER TABLE `+d.table+` `+strings.Join(adds, ", ")); err != nil {
		return err
	}
	for _, c := range missing {
		d.columns[c.Name] = true
	}
	return nil
}

func (d *database) missing(columns []event.Column) (out []event.Column) {
	for _, c := range columns {
		if !d.columns[c.Name] {
			out = append(out, c)
		}
	}
	return out
}

func (d *database) createTable(columns []event.Column) string {
	var defs []string
	for _, c := range columns {
		defs = append(defs, quote(c.Name)+" "+typeOf(c))
	}
	if len(d.set.Key) > 0 {
		defs = append(defs, "PRIMARY KEY ("+quoteAll(d.set.Key)+")")
	}
	return `CREATE TABLE IF NOT EXISTS ` + d.table + ` (` + strings.Join(defs, ", ") + `)`
}
