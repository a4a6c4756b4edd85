package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// types are what columns of a new table are made as.
var types = map[event.ColumnType]string{
	event.BoolColumn:      "BOOLEAN",
	event.LongColumn:      "BIGINT",
	event.DoubleColumn:    "DOUBLE",
	event.StringColumn:    "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	event.TimestampColumn: "DATETIME(6)",
	event.DateColumn:      "DATE",
	event.JSONColumn:      "JSON",
}

// keyText is a text that an index takes: three of them fit InnoDB's longest key.
const keyText = "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

func (d *database) define(c event.Column) string {
	kind, ok := types[c.Type]
	if !ok || c.Type == event.StringColumn && d.isKey(c.Name) {
		if kind = keyText; !ok {
			kind = types[event.StringColumn]
		}
	}
	return quote(c.Name) + " " + kind
}

func (d *database) isKey(name string) bool {
	return slices.ContainsFunc(d.set.Key, func(k string) bool { return strings.EqualFold(k, name) })
}

// needStates makes the table of positions where it is missing.
func (d *database) needStates(ctx context.Context) error {
	columns, err := d.columnsOf(ctx, d.states)
	if err != nil || len(columns) > 0 {
		return err
	}
	return d.make(ctx, "table "+d.states, `CREATE TABLE IF NOT EXISTS `+d.states+` (
 reader VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, incarnation CHAR(36) CHARACTER SET ascii NOT NULL, partition_no INT NOT NULL,
 next_offset BIGINT NOT NULL, written_at DATETIME(6) NOT NULL, PRIMARY KEY (reader, incarnation, partition_no)) ENGINE = InnoDB`)
}

// columnsOf are the columns of a table in lower case, as the server compares them;
// none: there is no such table.
func (d *database) columnsOf(ctx context.Context, quoted string) (map[string]bool, error) {
	rows, err := d.query(ctx, "SHOW COLUMNS FROM "+quoted)
	if code(err) == 1146 {
		return nil, nil
	}
	if err != nil {
		return nil, classify(fmt.Errorf("read columns of %s: %w", quoted, err))
	}
	out := map[string]bool{}
	for _, r := range rows {
		out[strings.ToLower(r[0])] = true
	}
	return out, nil
}

// make runs a statement that changes tables, or tells it to the operator where the
// settings say that naru is not to.
func (d *database) make(ctx context.Context, what, sql string) error {
	flat := strings.Join(strings.Fields(sql), " ")
	if !d.set.Create {
		return fault.WithHint(fmt.Errorf("write table %s: there is no %s", d.set.Table, what), "set create: true, or run: %s", flat)
	}
	_, err := d.query(ctx, sql)
	switch code(err) {
	case 0:
		if err == nil {
			return nil
		}
	case 1050, 1060: // another connection was quicker
		return fault.Transient(fmt.Errorf("create %s: %w", what, err))
	}
	err = classify(fmt.Errorf("create %s: %w", what, err))
	if fault.IsTransient(err) {
		return err
	}
	return fault.WithHint(err, "allow it to the user of the url, or run: %s", flat)
}

// Shape implements relational.Database.
func (d *database) Shape(ctx context.Context, columns []event.Column) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	for i, c := range columns {
		if err := validName(c.Name); err != nil {
			return fault.WithHint(fmt.Errorf("write table %s: column %w", d.set.Table, err), `give it another name in the last step: SELECT "..." AS shorter`)
		}
		if j := slices.IndexFunc(columns[:i], func(o event.Column) bool { return strings.EqualFold(o.Name, c.Name) }); j >= 0 {
			return fault.WithHint(fmt.Errorf("write table %s: MySQL takes the columns %s and %s for one", d.set.Table, columns[j].Name, c.Name), "give one of them another name in the last step")
		}
	}
	if d.columns != nil && len(d.missing(columns)) == 0 {
		return nil
	}
	have, err := d.columnsOf(ctx, d.table)
	if err != nil {
		return err
	}
	if have == nil {
		if err := d.make(ctx, "table "+d.set.Table, d.createTable(columns)); err != nil {
			return err
		}
		if have, err = d.columnsOf(ctx, d.table); err != nil {
			return err
		}
	}
	d.columns = have
	if missing := d.missing(columns); len(missing) > 0 {
		var adds, called []string
		for _, c := range missing {
			adds, called = append(adds, "ADD COLUMN "+d.define(c)), append(called, c.Name)
		}
		if err := d.make(ctx, "column "+strings.Join(called, ", "), "ALTER TABLE "+d.table+" "+strings.Join(adds, ", ")); err != nil {
			return err
		}
		for _, c := range missing {
			d.columns[strings.ToLower(c.Name)] = true
		}
	}
	return d.fit(ctx, columns)
}

func (d *database) missing(columns []event.Column) (out []event.Column) {
	for _, c := range columns {
		if !d.columns[strings.ToLower(c.Name)] {
			out = append(out, c)
		}
	}
	return out
}

func (d *database) createTable(columns []event.Column) string {
	var defs []string
	for _, c := range columns {
		defs = append(defs, d.define(c))
	}
	if len(d.set.Key) > 0 {
		defs = append(defs, "PRIMARY KEY ("+quoteAll(d.set.Key)+")")
	}
	return "CREATE TABLE IF NOT EXISTS " + d.table + " (" + strings.Join(defs, ", ") + ") ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
}

// fit checks what a table must have beside its columns: transactions, and for an
// upsert one unique index, over the key, that the rows can collide with. The server
// replaces by whichever it finds.
func (d *database) fit(ctx context.Context, columns []event.Column) error {
	db, name, ok := strings.Cut(d.set.Table, ".")
	where := "TABLE_SCHEMA = " + text(db)
	if !ok {
		where, name = "TABLE_SCHEMA = DATABASE()", d.set.Table
	}
	where += " AND TABLE_NAME = " + text(name)
	rows, err := d.query(ctx, "SELECT e.TRANSACTIONS FROM information_schema.TABLES t JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE WHERE t."+strings.Replace(where, "TABLE_NAME", "t.TABLE_NAME", 1))
	if err != nil {
		return classify(fmt.Errorf("read engine of table %s: %w", d.set.Table, err))
	}
	if len(rows) > 0 && rows[0][0] == "NO" {
		return d.hintEngine()
	}
	if len(d.set.Key) == 0 {
		return nil
	}
	rows, err = d.query(ctx, "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND "+where)
	if err != nil {
		return classify(fmt.Errorf("read indexes of table %s: %w", d.set.Table, err))
	}
	indexes := map[string][]string{}
	for _, r := range rows {
		indexes[r[0]] = append(indexes[r[0]], r[1])
	}
	found := false
	for index, over := range indexes {
		switch {
		case len(over) == len(d.set.Key) && !slices.ContainsFunc(over, func(c string) bool { return !d.isKey(c) }):
			found = true
		case !slices.ContainsFunc(over, func(c string) bool {
			return !slices.ContainsFunc(columns, func(o event.Column) bool { return strings.EqualFold(o.Name, c) })
		}):
			return fault.WithHint(fmt.Errorf("write table %s: a row would also replace another one by the unique index %s (%s)", d.set.Table, index, strings.Join(over, ", ")),
				"drop that index, make it the key, or leave one of its columns out of the last step")
		}
	}
	if !found {
		return fault.WithHint(fmt.Errorf("write table %s: it has no unique index over its key", d.set.Table), "ALTER TABLE %s ADD UNIQUE (%s)", d.table, quoteAll(d.set.Key))
	}
	return nil
}
