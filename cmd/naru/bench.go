package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/bench"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

func (c *cli) benchCommand() *cobra.Command {
	var within time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench [DIR]",
		Short: "Measure this machine as naru uses it, and get advice",
		Long: `Measures for about a minute, on the disk of DIR (default: this folder) and with
its settings, and says what to change:

  disk       write + fdatasync of 4 KiB and 1 MiB, over blocks that were written
             before, as the log does, and at the end of a growing file
  ingest     page views of 265 bytes to a server without tables, acknowledged on
             disk: 500 a request, and one a request
  load       the same until every row is committed in its table
  queries    over the rows that were loaded
  freshness  from an acknowledgement until a query has seen the event, at a
             steady 10,000 events a second or a tenth of what can be loaded

Servers are processes of their own on loopback, in a folder that is made in
DIR/data, or in DIR if there is no data, and removed at the end, after Ctrl-C
too; what was left by a bench that was killed goes at the next one. They have
the settings of DIR/naru.yaml, but keep a short log, and commit every second
while loading is measured. Nothing else in DIR is touched. Sender and server
share the cores, and so does a server that runs on DIR.

It needs room: for a minute some 5.5GiB, less with a shorter --duration.`,
		Example: `  naru bench
  naru bench mydata --duration 20s
  naru bench mydata --json | jq '.advice[]'`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			if within < bench.Shortest || within > bench.Longest {
				return asUsage(cmd, fmt.Errorf("--duration %s: want %s to %s", within, bench.Shortest, bench.Longest))
			}
			r, err := c.bench(soft, args, within)
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("bench: %w: nothing was left behind", errInterrupted)
			}
			if err != nil {
				return fmt.Errorf("bench: %w", err)
			}
			if asJSON {
				return c.printJSON(r)
			}
			return c.showBench(r)
		},
	}
	cmd.Flags().DurationVar(&within, "duration", time.Minute, "how long to measure, roughly")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) bench(ctx context.Context, args []string, within time.Duration) (*bench.Report, error) {
	f, err := folder(args)
	if err != nil {
		return nil, err
	}
	fsys := vfs.OS()
	cfg, err := config.Load(fsys, f)
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("read settings of %s:\n%w", f, err), "naru check shows the same")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	beside, err := running(fsys, f)
	if err != nil {
		return nil, err
	}
	if beside {
		fmt.Fprintf(c.err, "a server runs on %s: it and this measurement share the machine\n", f)
	}
	bar := &verifyBar{c: c}
	r, err := bench.Run(ctx, bench.Options{
		Folder: f, Settings: *cfg, Beside: beside, Binary: self, Version: version, Duration: within, FS: fsys,
		Progress: func(step string, done, all time.Duration) { bar.draw(step, int64(done), int64(all)) },
	})
	bar.end()
	return r, err
}

// running tells whether a server, or other work that wants the folder for
// itself, is on it.
func running(fsys vfs.FS, f config.Folder) (bool, error) {
	if _, err := fsys.Stat(filepath.Join(f.Data(), "lock")); errors.Is(err, fs.ErrNotExist) {
		return false, nil // asking would make the file
	}
	lock, err := app.Alone(fsys, f)
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return true, nil
	case err != nil:
		return false, err
	}
	return false, lock.Close()
}

func (c *cli) showBench(r *bench.Report) error {
	m, d := r.Machine, r.Disk
	fmt.Fprintf(c.out, "naru %s on %s (%s), %s; %s\n%s: %s, %s free\n", r.Version, bench.Cores(m.Cores), m.CPU, quantity.Bytes(m.Memory), m.Kernel,
		r.Folder.Dir, d.Name, quantity.Bytes(r.Folder.Free))
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\ndisk\tp50\tp99")
	for _, s := range d.Syncs {
		where := "over written blocks"
		if s.Growing {
			where = "at a growing end"
		}
		fmt.Fprintf(w, "  write + sync %s %s\t%s\t%s\n", quantity.Bytes(s.Bytes), where, bench.ShowMS(s.P50), bench.ShowMS(s.P99))
	}
	fmt.Fprintf(w, "  sequential write\t%s/s\n", quantity.Bytes(d.Sequential))
	fmt.Fprintln(w, "\ningest and load\tevents/s\tp50\tp99\tCPU/event\tmemory\tanswers\tfsyncs\tcores busy")
	showFlow := func(name string, l bench.Flow) {
		fmt.Fprintf(w, "  %s\t%.0f\t%s\t%s\t%.2f µs\t%s\t%d\t%d\t%.0f%%\n", name, l.Rate, bench.ShowMS(l.P50), bench.ShowMS(l.P99), l.ServerCPU,
			quantity.Bytes(l.Memory>>20<<20), l.Requests, l.Syncs, 100*l.Busy)
	}
	showFlow(fmt.Sprintf("%d a request, %d connections", r.Batches.PerRequest, r.Batches.Connections), r.Batches)
	showFlow(fmt.Sprintf("%d a request, %d connections", r.Single.PerRequest, r.Single.Connections), r.Single)
	showFlow(fmt.Sprintf("%d a request, to committed rows", r.Load.PerRequest), r.Load)
	fmt.Fprintf(w, "\nqueries over %d rows\tp50\tslowest\n", r.Load.Events)
	for _, q := range r.Queries {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", q.Name, bench.ShowMS(q.P50), bench.ShowMS(q.Max))
	}
	fmt.Fprintln(w, "\nfreshness\tp50\tp99\tslowest")
	fmt.Fprintf(w, "  acknowledged to seen, %.0f events/s, commits every %s\t%s\t%s\t%s\n", r.Freshness.Rate, r.Freshness.CommitInterval,
		bench.ShowMS(r.Freshness.P50), bench.ShowMS(r.Freshness.P99), bench.ShowMS(r.Freshness.Max))
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "\nadvice (took %.0f s)\n", r.Seconds)
	for _, a := range r.Advice {
		text := a.Text
		if a.Setting != "" {
			text += "; in naru.yaml: " + a.Setting + ": " + a.Value
		}
		fmt.Fprintln(c.out, indent(fmt.Sprintf("%s (%s): %s.", a.Level, a.Rule, text), 100))
	}
	return nil
}

// indent breaks a text at blanks into lines of at most width characters, the
// first behind a dash.
func indent(text string, width int) string {
	var b strings.Builder
	b.WriteString("  -")
	at := 3
	for _, word := range strings.Fields(text) {
		if n := len([]rune(word)); at+1+n > width {
			b.WriteString("\n    " + word)
			at = 4 + n
		} else {
			b.WriteString(" " + word)
			at += 1 + n
		}
	}
	return b.String()
}
