package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/backup"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/verify"
	"naru/internal/vfs"
)

func (c *cli) backupCommand() *cobra.Command {
	var o app.BackupOptions
	var rate string
	var check, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup TO [DIR]",
		Short: "Copy a folder, also while a server works on it",
		Long: `Copies the folder DIR (default: this folder) to the new folder TO: settings, log
and tables, so that nothing is lost or doubled when TO takes its place. It works
beside a running server and without one. TO appears when it is whole and on disk;
until then it is called TO.partial.

The backup holds everything that was acknowledged before it began, and of what
came meanwhile nothing or a part. It is a naru folder itself. Iceberg tables hold
absolute paths, so a server refuses to start on it where it is: restore it by
copying it to where the original was. With --root PATH the copy is made to be
used at PATH instead; so a folder is moved: stop the server, make a copy with
--root, start the server on the copy.

--check proves that the backup TO is whole, as naru verify --deep does for a
folder in use: every event once in log and tables, every file as it was written.`,
		Example: `  naru backup /backups/$(date +%F) mydata
  naru backup /backups/2026-11-21 --check
  naru backup /srv/new mydata --root /srv/new
  naru backup /backups/today mydata --rate 50MiB --json`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			if check {
				return c.checkBackup(soft, args[0], asJSON)
			}
			o.To = args[0]
			if rate != "" {
				var err error
				if o.Rate, err = quantity.ParseBytes(rate); err != nil || o.Rate <= 0 {
					return asUsage(cmd, fmt.Errorf("--rate %q: want bytes a second, as in 50MiB", rate))
				}
			}
			f, err := folder(args[1:])
			if err != nil {
				return err
			}
			bar := &byteBar{c: c, began: time.Now()}
			o.Progress = bar.draw
			r, err := app.Backup(soft, f, o)
			bar.end()
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("back up: %w: nothing was left at %s", errInterrupted, o.To)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return c.printJSON(r)
			}
			return c.showBackup(r)
		},
	}
	cmd.Flags().StringVar(&o.Root, "root", "", "folder as which the copy is to be used (default: the original's place)")
	cmd.Flags().StringVar(&rate, "rate", "", "bytes a second at most, as in 50MiB (default: no limit)")
	cmd.Flags().BoolVar(&check, "check", false, "check the backup TO instead of making it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showBackup(r backup.Report) error {
	took := time.Duration(r.Seconds * float64(time.Second)).Round(10 * time.Millisecond)
	fmt.Fprintf(c.out, "made %s: %s, %s in %s\nit can be used as %s\n", r.To, plural(r.Files, "file"), quantity.Bytes(r.Bytes), took, r.Root)
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if r.Log != nil {
		for _, s := range r.Log.Streams {
			fmt.Fprintf(w, "stream %s/%d\tto offset %d\n", s.Stream, s.Partition, s.End)
		}
	}
	for _, t := range r.Lake.Tables {
		fmt.Fprintf(w, "table %s\t%s\n", t.Table, plural(int(t.Rows), "row"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Lake.Strangers) > 0 {
		fmt.Fprintf(c.err, "not in the backup: files of what other engines have in the catalog: %s\n", strings.Join(r.Lake.Strangers, ", "))
	}
	if len(r.LeftOut) > 0 {
		fmt.Fprintf(c.err, "not in the backup: %s\n", strings.Join(r.LeftOut, ", "))
	}
	return nil
}

// checkBackup is verify over a folder that stands elsewhere than its tables say.
func (c *cli) checkBackup(ctx context.Context, dir string, asJSON bool) (err error) {
	f, err := config.OpenFolder(dir)
	if err != nil {
		return err
	}
	cfg, err := config.Load(vfs.OS(), f)
	if err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	tables, fsys, root, err := app.OpenBackup(ctx, f)
	if err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	if tables != nil {
		defer func() { err = errors.Join(err, tables.Close()) }()
	}
	bar := &verifyBar{c: c}
	r, err := verify.Run(ctx, verify.Folder{FS: fsys, LogDir: f.Log(), Lake: tables}, verify.Options{Deep: true, DropUnread: cfg.Log.DropUnread, Progress: bar.draw})
	bar.end()
	if err != nil {
		return fmt.Errorf("check backup %s: %w", f, err)
	}
	r.Folder = string(f)
	nameHere(r, root, string(f))
	if asJSON {
		err = c.printJSON(r)
	} else {
		err = c.showVerified(r)
	}
	if err == nil && !r.Clean {
		err = fault.WithHint(fmt.Errorf("check backup %s: %s", f, plural(len(r.Differences), "difference")), "take another backup, and check the original with naru verify --deep")
	}
	return err
}

// nameHere has the differences name the files of the backup in dir: its tables
// say that they are below root, and there the original may stand.
func nameHere(r *verify.Report, root, dir string) {
	if root == dir {
		return
	}
	here := func(s string) string { return strings.ReplaceAll(s, root+"/", dir+"/") }
	for _, all := range [][]verify.Difference{r.Differences, r.Explained} {
		for i := range all {
			d := &all[i]
			d.Detail = here(d.Detail)
			for k, f := range d.Files {
				d.Files[k] = here(f)
			}
		}
	}
}

// byteBar draws on a terminal how much is copied.
type byteBar struct {
	c     *cli
	began time.Time
	open  bool
}

func (b *byteBar) draw(done, total int64) {
	if !b.c.terminal {
		return
	}
	b.open = true
	text := fmt.Sprintf("%s  %s/s", quantity.Bytes(done), quantity.Bytes(float64(done)/max(time.Since(b.began).Seconds(), 1e-3)))
	if total > 0 {
		const width = 30
		part := min(float64(done)/float64(total), 1)
		full := int(part * width)
		text = fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("#", full), strings.Repeat("-", width-full), 100*part, text)
	}
	fmt.Fprint(b.c.err, "\r\x1b[K"+text)
}

func (b *byteBar) end() {
	if b.open {
		fmt.Fprint(b.c.err, "\r\x1b[K")
		b.open = false
	}
}
