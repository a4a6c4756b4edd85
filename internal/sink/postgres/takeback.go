package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// Keyed implements relational.Database.
func (d *database) Keyed(ctx context.Context, column string) (bool, error) {
	have, ok, err := d.columnsOf(ctx, d.table)
	if err != nil || !ok {
		return !ok, err
	}
	where := ""
	if have[column] {
		where = ` WHERE ` + quote(column) + ` IS NULL`
	}
	rows, err := d.query(ctx, `SELECT 1 FROM `+d.table+where+` LIMIT 1`)
	if err != nil {
		return false, classify(fmt.Errorf("look for rows without %s in table %s: %w", column, d.set.Table, err))
	}
	return len(rows) == 0, nil
}

// Delete implements relational.Database.
func (d *database) Delete(ctx context.Context, column string, from event.Positions) error {
	if have, ok, err := d.columnsOf(ctx, d.table); err != nil || !ok || !have[column] {
		return err
	}
	key := quote(column) + `::text`
	for inc, parts := range from {
		for partition, off := range parts {
			life := strings.ReplaceAll(inc.String(), "-", "")
			// What looks like a key, and only that, has a number there.
			_, err := d.query(ctx, `DELETE FROM `+d.table+` WHERE CASE WHEN `+key+` ~ $1 THEN split_part(`+key+`, '/', 3)::numeric >= $2::numeric ELSE false END`,
				fmt.Sprintf("^%s/%d/[0-9]+/[0-9]+$", life, partition), strconv.FormatInt(off, 10))
			if bad := refusal(err); bad != nil {
				return bad
			}
			if code(err) == "42501" {
				return fault.WithHint(fmt.Errorf("delete rows of table %s: %w", d.set.Table, err), "GRANT the user of the url DELETE on the table: a rewind takes its rows away")
			}
			if err != nil {
				return classify(fmt.Errorf("delete rows of table %s: %w", d.set.Table, err))
			}
		}
	}
	return nil
}
