package columnar

import (
	"context"

	"naru/internal/vfs"
)

// Rewrite gives the file at src, written under the schema from or an earlier
// one, the schema to, as a new file at dst made by create. Values of a long
// column that became double go to the new field id; those that a double cannot
// hold exactly go to _rescued of their row. src stays as it is. Its rows keep their
// order, and with it what is known of their partition. It holds about one row
// group in memory.
func Rewrite(ctx context.Context, fs vfs.FS, create func(path string) (Output, error), src, dst string, from, to *Schema) (DataFile, error) {
	f, _, err := merge(ctx, fs, create, []source{{path: src, schema: from}}, dst, nil, to)
	return f, err
}
