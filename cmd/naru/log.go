package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/quantity"
	"naru/internal/recordbatch"
	"naru/internal/serve/tail"
	"naru/internal/stream/seglog"
	"naru/internal/vfs"
)

func (c *cli) logCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "log",
		Short: "Look at the log of a folder, and mend it",
		Long: `Looks at the log of a folder. ls, cat and frames are read-only, take no lock and
ask no server: they work beside a running naru, and on a log that does not open.`,
	}, c.logLs(), c.logCat(), c.logFrames(), c.logFsck())
}

// logDir is the folder of the log, which must be there.
func logDir(args []string) (config.Folder, string, error) {
	f, err := folder(args)
	if err != nil {
		return f, "", err
	}
	if _, err := vfs.OS().Stat(f.Log()); errors.Is(err, fs.ErrNotExist) {
		return f, "", fault.WithHint(fmt.Errorf("%s holds no log", f), "name the folder of a project: its log is in %s", filepath.Join("DIR", "data", "log"))
	} else if err != nil {
		return f, "", err
	}
	return f, f.Log(), nil
}

func (c *cli) logLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [DIR]",
		Short: "List the segments and what they hold",
		Long: `Lists the segments of the log of DIR (default: this folder), oldest first: the
sequences of their frames, and the offsets of every stream in them, from the
first up to but without the last.`,
		Example: `  naru log ls
  naru log ls mydata --json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			_, dir, err := logDir(args)
			if err != nil {
				return fmt.Errorf("list log: %w", err)
			}
			segments, err := seglog.List(vfs.OS(), dir)
			if err != nil {
				return err
			}
			if asJSON {
				return c.printJSON(segments)
			}
			return c.showSegments(segments)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showSegments(segments []seglog.SegmentInfo) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SEGMENT\tCREATED\tUSED\tSTATE\tFRAMES\tSTREAM\tOFFSETS\tBYTES")
	for _, s := range segments {
		state := "open"
		switch {
		case s.Err != "":
			state = "DAMAGED"
		case s.Sealed:
			state = "sealed"
		}
		head := fmt.Sprintf("%s\t%s\t%s\t%s\t%d-%d", s.Name, when(s.Created), quantity.Bytes(s.Used), state, s.First, s.Last)
		for _, in := range s.Streams {
			fmt.Fprintf(w, "%s\t%s/%d\t%d-%d\t%s\n", head, in.Stream, in.Partition, in.First, in.End, quantity.Bytes(in.Bytes))
			head = "\t\t\t\t"
		}
		if len(s.Streams) == 0 {
			fmt.Fprintln(w, head+"\t\t\t")
		}
		if s.Err != "" {
			fmt.Fprintf(w, "\t%s\n", s.Err)
		}
	}
	return w.Flush()
}

func (c *cli) logCat() *cobra.Command {
	return &cobra.Command{
		Use:   "cat STREAM [DIR]",
		Short: "Print all events of a stream",
		Long: `Prints all events of STREAM that the log of DIR (default: this folder) holds, as
NDJSON in the form of naru tail. Beside a running server it may show events that
are not yet on disk, and so not yet acknowledged; naru tail never does.`,
		Example: `  naru log cat events
  naru log cat rejected mydata | jq ._reason`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, args []string) error {
			_, dir, err := logDir(args[1:])
			if err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			out := bufio.NewWriter(c.out)
			var dec recordbatch.Decoder
			var line []byte
			err = seglog.Records(vfs.OS(), dir, args[0], func(b *event.Batch) error {
				return dec.EachIn(b, func(e *event.Event) error {
					line = tail.AppendEvent(line[:0], b.Stream, b.Partition, b.Incarnation, e)
					_, err := out.Write(line)
					return err
				})
			})
			return errors.Join(err, out.Flush())
		},
	}
}

func (c *cli) logFrames() *cobra.Command {
	return &cobra.Command{
		Use:   "frames SEGMENT [DIR]",
		Short: "Print the frames of a segment",
		Long: `Prints every valid frame of one segment file of DIR (default: this folder), one
JSON object a line: where it stands, its kind, sequence and checksum, and what
its sections say. docs/format/log.md explains them. naru log ls names the segments.`,
		Example: `  naru log frames 0000000000000001.seg mydata`,
		Args:    usage(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, args []string) error {
			_, dir, err := logDir(args[1:])
			if err != nil {
				return fmt.Errorf("read frames: %w", err)
			}
			out := bufio.NewWriter(c.out)
			e := json.NewEncoder(out)
			e.SetEscapeHTML(false)
			err = seglog.Frames(vfs.OS(), filepath.Join(dir, filepath.Base(args[0])), func(f seglog.FrameInfo) error { return e.Encode(f) })
			return errors.Join(err, out.Flush())
		},
	}
}

func (c *cli) logFsck() *cobra.Command {
	var repair, asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck [DIR]",
		Short: "Check the whole log, and mend it on request",
		Long: `Reads the whole log of DIR (default: this folder), checks every frame, and lists
all damage with file, byte, and the offsets that cannot be read because of it. No
server may be running on the folder. The exit code is 0 only when the log is well.
A torn tail of a crash is no damage; the next start deals with it by itself.

With --repair all that can be read is saved: of a damaged segment just the damaged
frames are lost. Damaged bytes are kept in torn-*.bin files beside the segments,
and what is lost is put on record in losses.ndjson, which naru verify counts.
Where the damage reaches the end of the log, the log goes on in a new incarnation,
so that no offset is given twice. Keep a copy of the folder first: with a backup
there may be more to save. A repair that was broken off is made again by the same
command.`,
		Example: `  naru log fsck mydata
  cp -a mydata/data/log log.before && naru log fsck mydata --repair
  naru log fsck mydata --json | jq '.damage[]'`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			f, dir, err := logDir(args)
			if err != nil {
				return fmt.Errorf("check log: %w", err)
			}
			lock, err := app.Alone(vfs.OS(), f)
			if err != nil {
				return fmt.Errorf("check log: %w", err)
			}
			defer lock.Close()
			if repair {
				return c.repair(f, dir, asJSON)
			}
			return c.fsck(f, dir, asJSON)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "save what can be read, and put on record what cannot")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) fsck(f config.Folder, dir string, asJSON bool) error {
	r, err := seglog.Check(vfs.OS(), dir)
	if err != nil {
		return err
	}
	if asJSON {
		r.Damage, r.Losses = listed(r.Damage), listed(r.Losses)
		if err := c.printJSON(struct {
			Clean bool `json:"clean"`
			*seglog.Report
		}{len(r.Damage) == 0, r}); err != nil {
			return err
		}
		return damaged(f, r.Damage)
	}
	c.showDamage(r.Damage)
	for _, n := range r.Notes {
		fmt.Fprintln(c.out, "note:", n)
	}
	for _, l := range r.Losses {
		fmt.Fprintf(c.out, "lost in an earlier repair: %s\n", l)
	}
	if err := damaged(f, r.Damage); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the log is well: %s, %s of frames\n", plural(r.Segments, "segment"), quantity.Bytes(r.Bytes))
	return nil
}

func damaged(f config.Folder, all []*seglog.Damage) error {
	if len(all) == 0 {
		return nil
	}
	return fault.WithHint(fmt.Errorf("the log is damaged in %s", plural(len(all), "place")),
		"keep a copy of the folder; `naru log fsck %s --repair` saves what can be read", f)
}

func (c *cli) showDamage(all []*seglog.Damage) {
	for _, d := range all {
		fmt.Fprintf(c.out, "%s: %s\n", placeOf(d), d.Reason)
		for _, l := range d.Lost {
			fmt.Fprintf(c.out, "    cannot be read: %s\n", l)
		}
	}
}

// listed makes a list that is not there an empty one, which is [] in JSON.
func listed[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// placeOf is file and byte, or the file alone when all of it is meant.
func placeOf(d *seglog.Damage) string {
	if d.Offset < 0 {
		return d.File
	}
	return fmt.Sprintf("%s at byte %d", d.File, d.Offset)
}

func (c *cli) repair(f config.Folder, dir string, asJSON bool) error {
	cfg, err := config.Load(vfs.OS(), f)
	if err != nil {
		return fmt.Errorf("read settings of %s:\n%w", f, err)
	}
	logger, err := obs.NewLogger(c.err, cfg.Logging)
	if err != nil {
		return err
	}
	r, err := seglog.Repair(vfs.OS(), dir, cfg.Log, logger)
	if err != nil {
		return err
	}
	if asJSON {
		r.Damage, r.Lost, r.Segments, r.Kept = listed(r.Damage), listed(r.Lost), listed(r.Segments), listed(r.Kept)
		return c.printJSON(r)
	}
	if len(r.Damage) == 0 {
		fmt.Fprintln(c.out, "nothing to repair")
		return nil
	}
	for _, d := range r.Damage {
		fmt.Fprintf(c.out, "found: %s: %s\n", placeOf(d), d.Reason)
	}
	for _, s := range r.Segments {
		fmt.Fprintln(c.out, "written anew:", s)
	}
	for _, k := range r.Kept {
		fmt.Fprintln(c.out, "kept aside:", k)
	}
	for _, l := range r.Lost {
		fmt.Fprintln(c.out, "lost:", l)
	}
	if len(r.Lost) == 0 {
		fmt.Fprintln(c.out, "nothing is lost")
	}
	if r.Cut {
		fmt.Fprintf(c.out, "incarnation %s ends here, %s goes on\n", r.Closed, r.Begun)
	}
	return nil
}
