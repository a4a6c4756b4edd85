package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/vfs"
)

// errLoss: the table was left as it is, because rows would be lost.
var errLoss = errors.New("nothing was changed")

// reloaded is what naru table reload prints.
type reloaded struct {
	app.ReloadCount
	Reloaded bool `json:"reloaded"` // or left as it was
}

func (c *cli) tableReload() *cobra.Command {
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "reload TABLE [DIR]",
		Short: "Load a table anew from what the log still has",
		Long: `Drops TABLE of DIR (default: this folder) and has the next naru serve load it anew
from all the events that the log still has, each once. Other tables are not
changed: they skip what they have. It is the cure for a table with lost files, or
that is ahead of the log.

First it counts, by the place in the log that every row names, how many rows the
log still has and how many it has no longer: those would be lost. If there are
any, or if that cannot be found out, it asks on a terminal, and else does nothing
without --yes.

No server may be running on the folder. The old table's files stay on the disk;
its folder below data/lake may be removed once the new table has what you need,
if it is not the one that naru table show names.`,
		Example: `  naru table fsck mydata
  naru table reload page_view mydata && naru serve mydata
  naru table reload page_view mydata --yes --json`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			agreed := func(r app.ReloadCount) (bool, error) {
				if !asJSON {
					c.showReload(r)
				}
				if yes || r.Harmless() {
					return true, nil
				}
				if !c.asks || asJSON {
					return false, nil
				}
				return c.ask("Drop it, and lose what the log does not have? [y/N] ")
			}
			r, err := reloadTable(soft, args, agreed)
			if err != nil && !errors.Is(err, errLoss) {
				return fmt.Errorf("reload table %s: %w", args[0], err)
			}
			if asJSON {
				if bad := c.printJSON(r); bad != nil {
					return bad
				}
			}
			if err != nil {
				return fault.WithHint(fmt.Errorf("reload table %s: %s: %w", r.Table, r.loss(), err), "add --yes to load it anew all the same")
			}
			if !asJSON {
				_, err = fmt.Fprintf(c.out, "%s was dropped; the next start loads it anew from what the log still has\n", r.Table)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it although rows are lost for good")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; asks nothing")
	return cmd
}

// loss names what would not come back.
func (r reloaded) loss() string {
	switch {
	case r.Unread != "":
		return "its rows cannot be counted, so any number may be lost"
	case r.Unknown > 0:
		return fmt.Sprintf("%s would be lost, and maybe %d of files that cannot be read", plural(int(r.Lost), "row"), r.Unknown)
	}
	return plural(int(r.Lost), "row") + " would be lost"
}

func (c *cli) showReload(r app.ReloadCount) {
	if r.Unread != "" {
		fmt.Fprintf(c.out, "%s cannot be read: %s\n  in the log, will come back     %d\n", r.Table, r.Unread, r.Returns)
		return
	}
	fmt.Fprintf(c.out, "%s has %s\n  in the log, will come back     %d\n  not in the log, will be lost   %d\n", r.Table, plural(int(r.Rows), "row"), r.Returns, r.Lost)
	if r.Unknown > 0 {
		fmt.Fprintf(c.out, "  in files that cannot be read   %d\n", r.Unknown)
	}
}

// ask puts a question; anything but y or yes is no.
func (c *cli) ask(question string) (bool, error) {
	if _, err := fmt.Fprint(c.err, question); err != nil {
		return false, err
	}
	answer, _ := bufio.NewReader(c.in).ReadString('\n') // the end of the input is no
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

func reloadTable(ctx context.Context, args []string, agreed func(app.ReloadCount) (bool, error)) (r reloaded, err error) {
	f, err := folder(args[1:])
	if err != nil {
		return r, err
	}
	cfg, err := config.Load(vfs.OS(), f)
	if err != nil {
		return r, err
	}
	// First only a look: a folder without tables must not get any files.
	looker, err := app.OpenTables(ctx, f, cfg.Lake)
	if err != nil {
		return r, noTables(f, err)
	}
	defer func() { err = errors.Join(err, looker.Close()) }()
	idents, err := looker.List(ctx)
	if err != nil {
		return r, err
	}
	if r.Table, err = pick(idents, args[0]); err != nil {
		return r, err
	}
	lock, err := app.Alone(vfs.OS(), f)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if r.ReloadCount, err = app.CountReload(ctx, f, looker, r.Table); err != nil {
		return r, err
	}
	if ok, err := agreed(r.ReloadCount); err != nil {
		return r, err
	} else if !ok {
		return r, errLoss
	}
	l, err := iceberg.Open(ctx, cfg.Lake, vfs.OS(), f.Data(), obs.Discard())
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.ReloadTable(ctx, r.Table); err != nil {
		return r, err
	}
	r.Reloaded = true
	return r, nil
}
