package mysql

import (
	"context"
	"fmt"
	"strings"

	"naru/internal/event"
	"naru/internal/fault"
)

// Keyed implements relational.Database.
func (d *database) Keyed(ctx context.Context, column string) (bool, error) {
	have, err := d.columnsOf(ctx, d.table)
	if err != nil || have == nil {
		return have == nil, err
	}
	where := ""
	if have[strings.ToLower(column)] {
		where = " WHERE " + quote(column) + " IS NULL"
	}
	rows, err := d.query(ctx, "SELECT 1 FROM "+d.table+where+" LIMIT 1")
	if err != nil {
		return false, classify(fmt.Errorf("look for rows without %s in table %s: %w", column, d.set.Table, err))
	}
	return len(rows) == 0, nil
}

// Delete implements relational.Database.
func (d *database) Delete(ctx context.Context, column string, from event.Positions) error {
	if have, err := d.columnsOf(ctx, d.table); err != nil || !have[strings.ToLower(column)] {
		return err
	}
	key := quote(column)
	for inc, parts := range from {
		for partition, off := range parts {
			life := strings.ReplaceAll(inc.String(), "-", "")
			// What looks like a key, and only that, has a number there.
			_, err := d.query(ctx, fmt.Sprintf("DELETE FROM %s WHERE CASE WHEN %s REGEXP '^%s/%d/[0-9]+/[0-9]+$' THEN CAST(SUBSTRING_INDEX(SUBSTRING_INDEX(%s, '/', 3), '/', -1) AS UNSIGNED) >= %d ELSE FALSE END",
				d.table, key, life, partition, key, off))
			if bad := refusal(err); bad != nil {
				return bad
			}
			if code(err) == 1142 {
				return fault.WithHint(fmt.Errorf("delete rows of table %s: %w", d.set.Table, err), "GRANT the user of the url DELETE on the table: a rewind takes its rows away")
			}
			if err != nil {
				return classify(fmt.Errorf("delete rows of table %s: %w", d.set.Table, err))
			}
		}
	}
	return nil
}
