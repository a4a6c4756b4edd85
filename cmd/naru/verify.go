package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/quantity"
	"naru/internal/verify"
	"naru/internal/vfs"
)

func (c *cli) verifyCommand() *cobra.Command {
	var deep, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Prove that no event is missing and none doubled",
		Long: `Reads the log and all tables of DIR (default: this folder) and proves, by the
place in the log that every row names (_log, _partition, _offset), that every
event is in the right table once, or still to be written; it counts the terms of

  acknowledged = written + rejections + duplicates + filtered + not yet written

from what is there, and names every event and row that does not fit. What is
accounted for (rows that a repair of the log cut off, or that another engine
removed) is named too, and is no difference.

With --deep it compares every row with its event, and every file of the lake
with its checksum.

It changes nothing, and works beside a running server; without one it keeps
others from starting meanwhile.

The exit code is 1 if there is any difference, or if it could not be found out.`,
		Example: `  naru verify
  naru verify mydata --deep
  naru verify mydata --json | jq '.differences[]'`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			f, dir, err := logDir(args)
			if err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			r, err := c.verify(soft, f, dir, deep)
			if err != nil {
				return fmt.Errorf("verify %s: %w", f, err)
			}
			if asJSON {
				err = c.printJSON(r)
			} else {
				err = c.showVerified(r)
			}
			if err == nil && !r.Clean {
				err = fmt.Errorf("verify %s: %s", f, plural(len(r.Differences), "difference"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "compare the content of rows and files too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) verify(ctx context.Context, f config.Folder, dir string, deep bool) (_ *verify.Report, err error) {
	fsys := vfs.OS()
	cfg, err := config.Load(fsys, f)
	if err != nil {
		return nil, err
	}
	o := verify.Options{Deep: deep, DropUnread: cfg.Log.DropUnread}
	bar := &verifyBar{c: c}
	o.Progress = bar.draw
	defer bar.end()
	lock, err := app.Alone(fsys, f)
	switch {
	case errors.Is(err, vfs.ErrLocked):
		o.Beside = true
	case err != nil:
		return nil, err
	default:
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	tables, err := app.OpenTables(ctx, f, cfg.Lake)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tables = nil // no server has run on the folder with tables yet
	case err != nil:
		return nil, err
	default:
		defer func() { err = errors.Join(err, tables.Close()) }()
	}
	r, err := verify.Run(ctx, verify.Folder{FS: fsys, LogDir: dir, Lake: tables}, o)
	if err != nil {
		return nil, err
	}
	r.Folder = string(f)
	return r, nil
}

// verifyBar draws on a terminal how far it is.
type verifyBar struct {
	c     *cli
	drawn time.Time
	open  bool
}

func (b *verifyBar) draw(step string, done, all int64) {
	if !b.c.terminal || time.Since(b.drawn) < drawEvery {
		return
	}
	b.drawn, b.open = time.Now(), true
	text := step
	if all > 0 {
		const width = 30
		full := int(width * float64(done) / float64(all))
		text = fmt.Sprintf("[%s%s] %3d%%  %s", strings.Repeat("#", full), strings.Repeat("-", width-full), 100*done/all, step)
	}
	fmt.Fprint(b.c.err, "\r\x1b[K"+text)
}

func (b *verifyBar) end() {
	if b.open {
		fmt.Fprint(b.c.err, "\r\x1b[K")
		b.open = false
	}
}

// showVerified prints one block for each stream and one for the tables of pipelines,
// then what is wrong elsewhere.
func (c *cli) showVerified(r *verify.Report) error {
	for _, s := range r.Streams {
		fmt.Fprintf(c.out, "stream %s\n", s.Stream)
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		holds := ""
		if !s.Balanced {
			holds = "\tDOES NOT ADD UP"
		}
		fmt.Fprintf(w, "  acknowledged\t%d%s\n", s.Acknowledged, holds)
		terms := []struct {
			name   string
			n      int64
			always bool
		}{
			{"= written", s.Written, true}, {"+ rejections", s.Rejections, true}, {"+ duplicates", s.Duplicates, true},
			{"+ filtered", s.Filtered, true}, {"+ not yet written", s.NotYetWritten, true},
			{"+ explained below", s.Explained, false}, {"+ in tables that cannot be read", s.Unread, false},
		}
		for _, t := range terms {
			if t.always || t.n != 0 {
				fmt.Fprintf(w, "  %s\t%d\n", t.name, t.n)
			}
		}
		if st := s.States; st != nil {
			fmt.Fprintf(w, "  of these rejections\t%d open, %d replayed, %d discarded\n", st.Open, st.Replayed, st.Discarded)
		}
		if err := c.showTables(w, s.Tables); err != nil {
			return err
		}
		c.showFound(r, func(d verify.Difference) bool { return d.Stream == s.Stream })
	}
	if len(r.Pipelines) > 0 {
		fmt.Fprintln(c.out, "pipelines")
		if err := c.showTables(tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0), r.Pipelines); err != nil {
			return err
		}
		c.showFound(r, func(d verify.Difference) bool {
			return slices.ContainsFunc(r.Pipelines, func(t verify.Table) bool { return t.Table == d.Table })
		})
	}
	for _, d := range r.Differences {
		if d.Stream == "" {
			c.showDifference(d)
		}
	}
	if len(r.Streams) == 0 {
		fmt.Fprintln(c.out, "no events yet")
	}
	how := ""
	if r.Deep {
		how = ", with their content"
	}
	beside := ""
	if r.Beside {
		beside = ", beside a running server"
	}
	verdict := "clean"
	if !r.Clean {
		verdict = "NOT CLEAN: " + plural(len(r.Differences), "difference")
	}
	fmt.Fprintf(c.out, "%s: %d events in %s of log and all rows of the tables%s, in %s%s\n", verdict, r.Log.Events, quantity.Bytes(r.Log.Bytes),
		how, r.Took.Round(time.Millisecond), beside)
	return nil
}

func (c *cli) showTables(w *tabwriter.Writer, tables []verify.Table) error {
	for _, t := range tables {
		note := t.Note
		if t.Foreign > 0 {
			note = strings.TrimPrefix(note+"; "+plural(int(t.Foreign), "row")+" of other writers", "; ")
		}
		fmt.Fprintf(w, "  table %s\t%s in %s\t%s\n", t.Table, plural(int(t.Rows), "row"), plural(t.Files, "file"), note)
	}
	return w.Flush()
}

// showFound prints what was found of a stream, or of pipelines' tables.
func (c *cli) showFound(r *verify.Report, of func(verify.Difference) bool) {
	wrong := 0
	for _, d := range r.Differences {
		if of(d) {
			wrong++
			c.showDifference(d)
		}
	}
	for _, d := range r.Explained {
		if of(d) {
			c.showDifference(d)
		}
	}
	if wrong == 0 {
		fmt.Fprintln(c.out, "  verified: nothing missing, nothing doubled")
	}
	fmt.Fprintln(c.out)
}

// showDifference prints one of them, indented.
func (c *cli) showDifference(d verify.Difference) {
	head := "  " + string(d.Kind)
	if d.Count != 0 {
		head += fmt.Sprintf(" (%d)", d.Count)
	}
	if d.Table != "" {
		head += " " + d.Table
	}
	fmt.Fprintf(c.out, "%s: %s\n", head, d.Detail)
	if d.Log != nil && len(d.Offsets) > 0 {
		var runs []string
		for i, o := range d.Offsets {
			if i == showSpans {
				runs = append(runs, "...")
				break
			}
			if o.First == o.Last {
				runs = append(runs, fmt.Sprint(o.First))
			} else {
				runs = append(runs, fmt.Sprintf("%d to %d", o.First, o.Last))
			}
		}
		fmt.Fprintf(c.out, "    log %s, partition %d, offsets %s\n", d.Log, d.Partition, strings.Join(runs, ", "))
	}
	for _, p := range d.Files {
		fmt.Fprintf(c.out, "    file %s\n", p)
	}
	if d.Hint != "" {
		fmt.Fprintf(c.out, "    hint: %s\n", d.Hint)
	}
}

// showSpans is how many runs of offsets are printed; --json has more.
const showSpans = 20
