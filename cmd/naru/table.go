package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

func (c *cli) tableCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "table",
		Short: "Look at the tables of a folder, check and reload them",
		Long: `Looks at the tables of a folder, read-only, without a server: it works while one
runs and when none does, because a table's state is one row of the catalog and
files that never change. Only reload changes anything.`,
	}, c.tableLs(), c.tableShow(), c.tableFsck(), c.tableReload())
}

func (c *cli) tableLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [DIR]",
		Short: "List the tables",
		Long:  "Lists the tables of DIR (default: this folder) with rows, files, size and last commit.",
		Example: `  naru table ls
  naru table ls mydata --json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			infos, err := tables(cmd.Context(), args, "")
			if err != nil {
				return fmt.Errorf("list tables: %w", err)
			}
			if asJSON {
				return c.printJSON(infos)
			}
			w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TABLE\tROWS\tCOLUMNS\tFILES\tSIZE\tLAST COMMIT")
			for _, t := range infos {
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", t.Ident, t.Rows, len(t.Columns), t.Files, quantity.Bytes(t.Bytes), when(t.LastCommit))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) tableShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show TABLE [DIR]",
		Short: "Show a table's columns, place and positions",
		Long: `Shows one table of DIR (default: this folder): where its files are, its columns
with Iceberg field ids and types, up to which offsets it covers its stream, and
the JSON paths whose values most often did not fit a column (_rescued).

TABLE is STREAM.TYPE, or the type alone: then the stream events goes first.`,
		Example: `  naru table show page_view
  naru table show shop.order_paid mydata --json`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			infos, err := tables(cmd.Context(), args[1:], args[0])
			if err != nil {
				return swapped(args, fmt.Errorf("show table %s: %w", args[0], err))
			}
			if asJSON {
				return c.printJSON(infos[0])
			}
			return c.showTable(infos[0])
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// swapped explains err when a folder stands where the table is expected.
func swapped(args []string, err error) error {
	f, bad := config.OpenFolder(args[0])
	if bad != nil {
		return err
	}
	if info, bad := os.Stat(f.Data()); bad != nil || !info.IsDir() {
		return err
	}
	table := "TABLE"
	if len(args) > 1 {
		table = args[1]
	}
	return fault.WithHint(usageError{fmt.Errorf("show table: %s is a folder", args[0])}, "the table comes first: naru table show %s %s", table, args[0])
}

func (c *cli) showTable(t *lake.Info) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "table\t%s\nlocation\t%s\nsnapshot\t%d\nrows\t%d\nfiles\t%d\nsize\t%s\nlast commit\t%s\npositions\t%s\n",
		t.Ident, t.Location, t.SnapshotID, t.Rows, t.Files, quantity.Bytes(t.Bytes), when(t.LastCommit), t.Positions)
	partition := lake.None
	if len(t.Partition) > 0 {
		partition = strings.Join(t.Partition, ", ")
	}
	fmt.Fprintf(w, "partition\t%s\n", partition)
	if len(t.Sort) > 0 {
		fmt.Fprintf(w, "sort\t%s\n", strings.Join(t.Sort, ", "))
	}
	fmt.Fprintln(w, "\nFIELD\tCOLUMN\tTYPE")
	for _, col := range t.Columns {
		fmt.Fprintf(w, "%d\t%s\t%s\n", col.FieldID, col.Name, col.Type)
	}
	if len(t.Rescued) > 0 {
		fmt.Fprintln(w, "\nRESCUED\tPATH")
		for _, p := range t.Rescued {
			fmt.Fprintf(w, "%d\t%s\n", p.Count, p.Path)
		}
	}
	return w.Flush()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// openTables opens the tables of the folder that is named for reading.
func openTables(ctx context.Context, args []string) (*iceberg.Lake, error) {
	f, err := folder(args)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(vfs.OS(), f)
	if err != nil {
		return nil, err
	}
	l, err := app.OpenTables(ctx, f, cfg.Lake)
	if err != nil {
		return nil, noTables(f, err)
	}
	return l, nil
}

// tables describes the tables of a folder, or the one that is named.
func tables(ctx context.Context, args []string, name string) (infos []*lake.Info, err error) {
	l, err := openTables(ctx, args)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	idents, err := l.List(ctx)
	if err != nil {
		return nil, err
	}
	if name != "" {
		one, err := pick(idents, name)
		if err != nil {
			return nil, err
		}
		idents = []lake.Ident{one}
	}
	infos = []*lake.Info{}
	for _, id := range idents {
		info, err := l.Info(ctx, id)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// pick finds a table by its whole name, or by its bare one, for which the
// stream events goes first.
func pick(idents []lake.Ident, name string) (lake.Ident, error) {
	var found []lake.Ident
	for _, id := range idents {
		if strings.EqualFold(id.String(), name) {
			return id, nil
		}
		if strings.EqualFold(id.Name, name) {
			found = append(found, id)
		}
	}
	if i := slices.IndexFunc(found, func(id lake.Ident) bool { return id.Namespace == event.DefaultStream }); i >= 0 {
		return found[i], nil
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return lake.Ident{}, fault.WithHint(lake.ErrNoTable, "naru table ls lists them")
	}
	var names []string
	for _, id := range found {
		names = append(names, id.String())
	}
	return lake.Ident{}, fmt.Errorf("there are several: %s", strings.Join(names, ", "))
}
