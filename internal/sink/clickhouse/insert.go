package clickhouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// putDown writes the marks of what is inserted next, unless another writer has
// written some since this sink has read them.
func (s *Sink) putDown(ctx context.Context, lives []life, marks map[life]mark) error {
	if err := s.alone(ctx, lives, s.marks, ""); err != nil {
		return err
	}
	if err := s.writeMarks(ctx, lives, marks); err != nil {
		return err
	}
	// Two may have looked at the same moment: the one whose mark is gone stops here.
	return s.alone(ctx, lives, marks, s.writer)
}

// alone checks that the marks in the database are these, and those of one writer.
func (s *Sink) alone(ctx context.Context, lives []life, want map[life]mark, writer string) error {
	rows, err := s.client.query(ctx, "SELECT toString(incarnation), partition_no, from_offset, to_offset, done, seq, writer FROM "+s.states+" FINAL WHERE reader = "+text(s.env.Reader), nil)
	if err != nil {
		return classify(fmt.Errorf("read %s: %w", positionsTable, err))
	}
	have := map[life]mark{}
	writers := map[life]string{}
	for _, r := range rows {
		l, m, err := parseMark(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", positionsTable, err)
		}
		have[l] = m
		writers[l] = r[len(r)-1]
	}
	for _, l := range lives {
		if have[l].seq != want[l].seq || writer != "" && writers[l] != writer {
			return fault.WithHint(fault.Transient(fmt.Errorf("insert into table %s: another writer has written partition %d up to %d", s.set.Table, l.partition, have[l].to)),
				"see that only one server runs this pipeline on this log; reading goes on from where the table is")
		}
	}
	return nil
}

func (s *Sink) writeMarks(ctx context.Context, lives []life, marks map[life]mark) error {
	var b strings.Builder
	for _, l := range lives {
		m := marks[l]
		done := 0
		if m.done {
			done = 1
		}
		fmt.Fprintf(&b, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", escape(s.env.Reader), l.inc, l.partition, m.from, m.to, done, m.seq, s.writer)
	}
	_, err := s.client.query(ctx, "INSERT INTO "+s.states+" (reader, incarnation, partition_no, from_offset, to_offset, done, seq, writer) SETTINGS async_insert = 0 FORMAT TabSeparated", []byte(b.String()))
	if err != nil {
		return classify(fmt.Errorf("write %s: %w", positionsTable, err))
	}
	return nil
}

// escape is a text as TabSeparated has it.
func escape(s string) string {
	return strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n").Replace(s)
}

// block are the settings of an INSERT. It is one block, however large: a block is
// there as a whole or not at all, and has one name. What is not sent is the column's
// default; a null is a null, or an error.
const block = `async_insert = 0, max_insert_block_size = 1073741824, min_insert_block_size_rows = 1073741824, min_insert_block_size_bytes = 68719476736,
 input_format_parallel_parsing = 0, input_format_allow_errors_num = 0, input_format_allow_errors_ratio = 0,
 input_format_null_as_default = 0, input_format_defaults_for_omitted_fields = 1, date_time_input_format = 'best_effort'`

// insert inserts the first n rows of a queue but for those that are refused. The name
// of the insert is the range of offsets: inserted again, the rows of that range are
// the same, and so the table passes over what it has.
func (s *Sink) insert(ctx context.Context, l life, m mark, n int) error {
	q := s.queues[l]
	data := q.text(0, n)
	if len(data) == 0 {
		return nil
	}
	if err := s.shape(ctx, q.columns); err != nil {
		return err
	}
	name := s.blockName(l, m)
	into := func(data []byte) error {
		_, err := s.client.query(ctx, "INSERT INTO "+s.table+" ("+s.insertColumns(q)+") SETTINGS insert_deduplicate = 1, insert_deduplication_token = "+text(name)+", "+block+" FORMAT JSONEachRow", data)
		return err
	}
	err := into(data)
	if err == nil {
		return nil
	}
	if !refuses(err) {
		return classify(fmt.Errorf("insert into table %s: %w", s.set.Table, err))
	}
	bad := 0
	if err := s.find(ctx, q, 0, n, &bad); err != nil {
		return err
	}
	if bad == 0 {
		return fault.WithHint(fmt.Errorf("insert into table %s: the server refuses rows together that it takes one by one: %w", s.set.Table, err),
			"look at the materialized views of the table")
	}
	if data = q.text(0, n); len(data) == 0 {
		return nil
	}
	if err := into(data); err != nil {
		return classify(fmt.Errorf("insert into table %s: %w", s.set.Table, err))
	}
	return nil
}

func (s *Sink) insertColumns(q *queue) string {
	names := make([]string, 0, len(q.columns)+1)
	for _, c := range q.columns {
		names = append(names, c.Name)
	}
	if s.set.RowKey != "" {
		names = append(names, s.set.RowKey)
	}
	return quoteAll(names)
}

// find marks those of the rows [from, to) that are refused, by halves, on a table
// that keeps nothing.
func (s *Sink) find(ctx context.Context, q *queue, from, to int, bad *int) error {
	data := q.text(from, to)
	if len(data) == 0 {
		return nil
	}
	if err := s.needCheck(ctx); err != nil {
		return err
	}
	_, err := s.client.query(ctx, "INSERT INTO "+s.checkTable()+" ("+s.insertColumns(q)+") SETTINGS "+block+" FORMAT JSONEachRow", bytes.Clone(data))
	var said *serverError
	switch {
	case err == nil:
		return nil
	case !refuses(err) || !errors.As(err, &said):
		return classify(fmt.Errorf("check rows for table %s: %w", s.set.Table, err))
	case to-from == 1:
		q.lines[from].refused = said.text + " (" + strconv.Itoa(said.code) + ")"
		*bad++
		return nil
	}
	half := (from + to) / 2
	if err := s.find(ctx, q, from, half, bad); err != nil {
		return err
	}
	return s.find(ctx, q, half, to, bad)
}

// types are what columns of a new table are made as.
var types = map[event.ColumnType]string{
	event.BoolColumn:      "Bool",
	event.LongColumn:      "Int64",
	event.DoubleColumn:    "Float64",
	event.StringColumn:    "String",
	event.TimestampColumn: "DateTime64(6, 'UTC')",
	event.DateColumn:      "Date32",
	event.JSONColumn:      "String",
}
