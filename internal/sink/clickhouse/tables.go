package clickhouse

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// window is how many inserts a new table remembers.
const window = 1000

// needStates makes the table of marks where it is missing. Of the marks of a life the
// newest counts, and merges keep no other.
func (s *Sink) needStates(ctx context.Context) error {
	if have, err := s.columnsOf(ctx, s.states); err != nil || len(have) > 0 {
		return err
	}
	return s.make(ctx, "table "+s.states, "CREATE TABLE IF NOT EXISTS "+s.states+` (reader String, incarnation UUID, partition_no Int32,
 from_offset Int64, to_offset Int64, done UInt8, seq UInt64, writer String, written_at DateTime64(3, 'UTC') DEFAULT now64(3))
 ENGINE = ReplacingMergeTree(seq) ORDER BY (reader, incarnation, partition_no)`)
}

// columnsOf are the columns of a table; none: there is no such table.
func (s *Sink) columnsOf(ctx context.Context, quoted string) (map[string]bool, error) {
	rows, err := s.client.query(ctx, "DESCRIBE TABLE "+quoted, nil)
	if codeOf(err) == 60 {
		return nil, nil
	}
	if err != nil {
		return nil, classify(fmt.Errorf("read columns of %s: %w", quoted, err))
	}
	out := map[string]bool{}
	for _, r := range rows {
		out[unescape(r[0])] = true
	}
	return out, nil
}

// unescape reads a text of TabSeparated.
func unescape(s string) string {
	return strings.NewReplacer("\\\\", "\\", "\\t", "\t", "\\n", "\n", "\\'", "'", "\\b", "\b", "\\f", "\f", "\\r", "\r", "\\0", "\x00").Replace(s)
}

// make runs a statement that changes tables, or tells it to the operator where the
// settings say that naru is not to.
func (s *Sink) make(ctx context.Context, what, sql string) error {
	flat := strings.Join(strings.Fields(sql), " ")
	if !s.set.Create {
		return fault.WithHint(fmt.Errorf("write table %s: there is no %s", s.set.Table, what), "set create: true, or run: %s", flat)
	}
	_, err := s.client.query(ctx, sql, nil)
	if err == nil {
		return nil
	}
	err = classify(fmt.Errorf("create %s: %w", what, err))
	if fault.IsTransient(err) || cures[codeOf(err)] != "" && codeOf(err) != 497 {
		return err
	}
	return fault.WithHint(err, "allow it to the user, or run: %s", flat)
}

// shape makes the table take these columns.
func (s *Sink) shape(ctx context.Context, columns []event.Column) error {
	if s.set.RowKey != "" {
		columns = append(slices.Clone(columns), event.Column{Name: s.set.RowKey, Type: event.StringColumn})
	}
	missing := func() (out []event.Column) {
		for _, c := range columns {
			if !s.columns[c.Name] {
				out = append(out, c)
			}
		}
		return out
	}
	if s.columns != nil && len(missing()) == 0 {
		return nil
	}
	s.checked = false
	have, err := s.columnsOf(ctx, s.table)
	if err != nil {
		return err
	}
	if have == nil {
		if err := s.make(ctx, "table "+s.set.Table, s.createTable(columns)); err != nil {
			return err
		}
		if have, err = s.columnsOf(ctx, s.table); err != nil {
			return err
		}
	}
	s.columns = have
	if add := missing(); len(add) > 0 {
		var parts, called []string
		for _, c := range add {
			parts, called = append(parts, "ADD COLUMN IF NOT EXISTS "+s.define(c)), append(called, c.Name)
		}
		if err := s.make(ctx, "column "+strings.Join(called, ", "), "ALTER TABLE "+s.table+" "+strings.Join(parts, ", ")); err != nil {
			return err
		}
		for _, c := range add {
			s.columns[c.Name] = true
		}
	}
	return s.remembers(ctx)
}

func (s *Sink) define(c event.Column) string {
	kind, ok := types[c.Type]
	if !ok {
		kind = "String"
	}
	if c.Name != s.set.RowKey && !slices.Contains(s.set.OrderBy, c.Name) {
		kind = "Nullable(" + kind + ")"
	}
	return quote(c.Name) + " " + kind
}

func (s *Sink) createTable(columns []event.Column) string {
	var defs []string
	for _, c := range columns {
		defs = append(defs, s.define(c))
	}
	order := "tuple()"
	if len(s.set.OrderBy) > 0 {
		order = "(" + quoteAll(s.set.OrderBy) + ")"
	}
	settings := ""
	if !replicated(s.set.Engine) {
		settings = fmt.Sprintf(" SETTINGS non_replicated_deduplication_window = %d", window)
	}
	return "CREATE TABLE IF NOT EXISTS " + s.table + " (" + strings.Join(defs, ", ") + ") ENGINE = " + s.set.Engine + " ORDER BY " + order + settings
}

func replicated(engine string) bool {
	return strings.HasPrefix(engine, "Replicated") || strings.HasPrefix(engine, "Shared")
}

var (
	ownWindow   = regexp.MustCompile(`\bnon_replicated_deduplication_window = [1-9]`)
	otherWindow = regexp.MustCompile(`\breplicated_deduplication_window = 0\b`)
)

// remembers says in the log when the table does not remember its inserts.
func (s *Sink) remembers(ctx context.Context) error {
	db, name, ok := strings.Cut(s.set.Table, ".")
	where := "database = " + text(db)
	if !ok {
		where, name = "database = currentDatabase()", s.set.Table
	}
	rows, err := s.client.query(ctx, "SELECT engine, replaceAll(engine_full, '\\n', ' ') FROM system.tables WHERE "+where+" AND name = "+text(name), nil)
	if err != nil || len(rows) == 0 || len(rows[0]) < 2 {
		return classifyOrNil(err)
	}
	engine, full := rows[0][0], rows[0][1]
	if replicated(engine) && !otherWindow.MatchString(full) || strings.HasSuffix(engine, "MergeTree") && ownWindow.MatchString(full) {
		return nil
	}
	s.env.Logger.Warn("the table does not remember its inserts: after a failure rows may be there twice, with the same key",
		slog.String("table", s.set.Table), slog.String("engine", engine),
		slog.String("hint", fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", s.table, window)))
	return nil
}

func classifyOrNil(err error) error {
	if err == nil {
		return nil
	}
	return classify(fmt.Errorf("read system.tables: %w", err))
}

// checkTable is the table by which rows that are refused are found: it has the columns
// and constraints of the table, and keeps nothing.
func (s *Sink) checkTable() string {
	h := fnv.New64a()
	h.Write([]byte(s.env.Reader + "\x00" + s.set.Table)) //nolint:errcheck // it never fails
	name := "naru_check_" + hex.EncodeToString(h.Sum(nil))
	if db, _, ok := strings.Cut(s.set.Table, "."); ok {
		name = db + "." + name
	}
	return quoteName(name)
}

func (s *Sink) needCheck(ctx context.Context) error {
	if s.checked {
		return nil
	}
	for _, sql := range []string{"DROP TABLE IF EXISTS " + s.checkTable(), "CREATE TABLE " + s.checkTable() + " AS " + s.table + " ENGINE = Null"} {
		if _, err := s.client.query(ctx, sql, nil); err != nil {
			return fault.WithHint(classify(fmt.Errorf("find rows that table %s refuses: %w", s.set.Table, err)),
				"GRANT the user CREATE TABLE and DROP TABLE on %s: rows that are refused are tried there", s.checkTable())
		}
	}
	s.checked = true
	return nil
}
