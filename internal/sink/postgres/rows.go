package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/row"
	"naru/internal/sink/relational"
)

// AppendRow implements relational.Database: a line of COPY's text format, which the
// server reads as whatever type its column has.
func (d *database) AppendRow(dst []byte, columns []event.Column, values []any) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, '\t')
		}
		switch v := v.(type) {
		case nil:
			dst = append(dst, '\\', 'N')
		case bool:
			dst = strconv.AppendBool(dst, v)
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case float64:
			format := byte('f') // whole numbers fit columns of whole numbers
			if a := math.Abs(v); a >= 1e21 || a != 0 && a < 1e-6 {
				format = 'e'
			}
			dst = strconv.AppendFloat(dst, v, format, -1, 64)
		case string:
			dst = appendText(dst, v)
		case json.RawMessage:
			dst = appendText(dst, v)
		case time.Time:
			layout := row.TimeLayout
			if columns[i].Type == event.DateColumn {
				layout = time.DateOnly
			}
			dst = v.UTC().AppendFormat(dst, layout)
		}
	}
	return append(dst, '\n')
}

// appendText appends a text as COPY wants it, valid UTF-8 in any case.
func appendText[T string | json.RawMessage](dst []byte, text T) []byte {
	if !utf8.ValidString(string(text)) {
		text = T(strings.ToValidUTF8(string(text), "\uFFFD"))
	}
	for i := range len(text) {
		switch c := text[i]; c {
		case '\\':
			dst = append(dst, '\\', '\\')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// stage is the temporary table of an upsert: it has the types of the table and none
// of its constraints.
const stage = `pg_temp.naru_stage`

// Insert implements relational.Database.
func (d *database) Insert(ctx context.Context, columns []event.Column, rows []byte, _ int) error {
	ctx, cancel := d.timeout(ctx)
	defer cancel()
	upsert := d.set.Mode == relational.Upsert
	if upsert && !slices.Equal(d.staged, columns) {
		list := quoteAll(names(columns))
		err := d.exec(ctx, `DROP TABLE IF EXISTS `+stage+`;
CREATE TEMPORARY TABLE naru_stage ON COMMIT DELETE ROWS AS SELECT `+list+` FROM `+d.table+` WITH NO DATA;
ALTER TABLE `+stage+` ADD COLUMN naru_row bigserial`)
		if err != nil {
			return classify(fmt.Errorf("make temporary table: %w", err))
		}
		d.staged = slices.Clone(columns)
	}
	if err := d.exec(ctx, `SAVEPOINT naru`); err != nil {
		return classify(fmt.Errorf("write table %s: %w", d.set.Table, err))
	}
	into := d.table
	if upsert {
		into = stage
	}
	_, err := d.conn.CopyFrom(ctx, bytes.NewReader(rows), `COPY `+into+` (`+quoteAll(names(columns))+`) FROM STDIN`)
	if err == nil && upsert {
		err = d.exec(ctx, d.merge(columns))
	}
	if err == nil {
		if err := d.exec(ctx, `RELEASE SAVEPOINT naru`); err != nil {
			return classify(fmt.Errorf("write table %s: %w", d.set.Table, err))
		}
		return nil
	}
	bad := refusal(err)
	if bad == nil {
		return classify(fmt.Errorf("write table %s: %w", d.set.Table, err))
	}
	if err := d.exec(ctx, `ROLLBACK TO SAVEPOINT naru; RELEASE SAVEPOINT naru`); err != nil {
		return classify(fmt.Errorf("write table %s: %w", d.set.Table, err))
	}
	return bad
}

// merge moves the rows of the stage into the table: of those with the same key the
// last one, by what the table takes for the same.
func (d *database) merge(columns []event.Column) string {
	list, keys := quoteAll(names(columns)), quoteAll(d.set.Key)
	var sets []string
	for _, c := range columns {
		if !slices.Contains(d.set.Key, c.Name) {
			sets = append(sets, quote(c.Name)+" = excluded."+quote(c.Name))
		}
	}
	do := "NOTHING"
	if len(sets) > 0 {
		do = "UPDATE SET " + strings.Join(sets, ", ")
	}
	return `INSERT INTO ` + d.table + ` (` + list + `)
SELECT DISTINCT ON (` + keys + `) ` + list + ` FROM ` + stage + ` ORDER BY ` + keys + `, naru_row DESC
ON CONFLICT (` + keys + `) DO ` + do + `; DELETE FROM ` + stage
}
