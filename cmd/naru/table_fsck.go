package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/quantity"
)

func (c *cli) tableFsck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck [TABLE...] [DIR]",
		Short: "Check every file of the tables",
		Long: `Reads every file that the tables of DIR (default: this folder) lead to: the
catalog, metadata files, manifest lists, manifests and data files of all
snapshots. Each must be there, whole, and what it should be: the names of naru's
files carry a checksum of their content. Damage is named with file and cure, and
makes the exit code 1.

Files of other engines, and of naru before it had checksums, are read through as
far as their format tells, and listed as without checksum; files that no table
needs are listed as orphans. Neither is damage. With TABLE only these tables are
looked at. It changes nothing, and works beside a running server.

The exit code is 0 only when there is no damage.`,
		Example: `  naru table fsck
  naru table fsck page_view mydata
  naru table fsck mydata --json | jq '.damage[].path'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			names, dir := splitFolder(args)
			r, err := fsckTables(soft, dir, names)
			if err != nil {
				return fmt.Errorf("check tables: %w", err)
			}
			if asJSON {
				err = c.printJSON(r)
			} else {
				err = c.showFsck(r)
			}
			if err == nil && !r.Clean {
				err = fmt.Errorf("check tables: %s damaged or missing", plural(len(r.Damage), "file"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// splitFolder takes the last argument for DIR when it is the folder of a project.
func splitFolder(args []string) (names, dir []string) {
	if len(args) == 0 {
		return nil, nil
	}
	last := args[len(args)-1]
	if f, err := config.OpenFolder(last); err == nil {
		if info, err := os.Stat(f.Data()); err == nil && info.IsDir() {
			return args[:len(args)-1], []string{last}
		}
	}
	return args, nil
}

// fsckReport is what naru table fsck prints.
type fsckReport struct {
	Clean  bool  `json:"clean"`
	Files  int   `json:"files"`
	Bytes  int64 `json:"bytes"`
	Whole  int   `json:"whole"`
	Tables int   `json:"tables"`
	// Damage are the files that are damaged or missing.
	Damage   []iceberg.CheckedFile `json:"damage"`
	Unsummed []iceberg.CheckedFile `json:"without_checksum"`
	Orphans  []iceberg.CheckedFile `json:"orphans"`
}

func fsckTables(ctx context.Context, dir, names []string) (r *fsckReport, err error) {
	l, err := openTables(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var opt iceberg.CheckOptions
	if len(names) > 0 {
		idents, err := l.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			one, err := pick(idents, name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			opt.Tables = append(opt.Tables, one)
		}
	}
	r = &fsckReport{Damage: []iceberg.CheckedFile{}, Unsummed: []iceberg.CheckedFile{}, Orphans: []iceberg.CheckedFile{}}
	tables := map[lake.Ident]bool{}
	err = l.Check(ctx, opt, func(file iceberg.CheckedFile) error {
		switch {
		case file.Verdict == iceberg.Orphan:
			r.Orphans = append(r.Orphans, file)
			return nil
		case file.Bad():
			r.Damage = append(r.Damage, file)
		case file.Verdict == iceberg.Unsummed && file.Kind != iceberg.KindCatalog:
			r.Unsummed = append(r.Unsummed, file)
		default:
			r.Whole++
		}
		r.Files++
		r.Bytes += file.Bytes
		if file.Table != (lake.Ident{}) {
			tables[file.Table] = true
		}
		return nil
	})
	r.Tables, r.Clean = len(tables), len(r.Damage) == 0
	return r, err
}

func (c *cli) showFsck(r *fsckReport) error {
	for _, f := range r.Damage {
		where := ""
		if f.Offset >= 0 {
			where = fmt.Sprintf(" at byte %d", f.Offset)
		}
		fmt.Fprintf(c.out, "%s: %s%s\n  %s", f.Verdict, f.Path, where, f.Kind)
		if f.Table != (lake.Ident{}) {
			fmt.Fprintf(c.out, " of %s", f.Table)
			if !f.Current {
				fmt.Fprint(c.out, ", of older snapshots only")
			}
		}
		fmt.Fprintf(c.out, ": %s\n", f.Reason)
		if f.Kind == iceberg.KindData && f.FirstOffset >= 0 {
			fmt.Fprintf(c.out, "  it has %s, of the offsets %d to %d\n", plural(int(f.Rows), "row"), f.FirstOffset, f.LastOffset)
		}
		fmt.Fprintf(c.out, "  cure: %s\n", f.Cure)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, f := range r.Unsummed {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Verdict, quantity.Bytes(f.Bytes), f.Path)
	}
	for _, f := range r.Orphans {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Verdict, quantity.Bytes(f.Bytes), f.Path)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	state := "the tables are well"
	if !r.Clean {
		state = fmt.Sprintf("%s damaged or missing", plural(len(r.Damage), "file"))
	}
	_, err := fmt.Fprintf(c.out, "%s: %s, %s, %s; %d without checksum, %s\n", state, plural(r.Tables, "table"),
		plural(r.Files, "file"), quantity.Bytes(r.Bytes), len(r.Unsummed), plural(len(r.Orphans), "orphan"))
	return err
}

// noTables gives an error of a folder without a lake its hint.
func noTables(f config.Folder, err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fault.WithHint(fmt.Errorf("%s holds no tables", f), "name the folder of a project: its tables are in %s", "DIR/data")
}
