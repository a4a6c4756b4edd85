package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/quantity"
	"naru/internal/serve/status"
)

func (c *cli) statusCommand() *cobra.Command {
	var server *server
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what every stream and table has and lacks",
		Long: `Shows, for every stream, what became of the events that were acknowledged:

  acknowledged = written + rejections + duplicates + filtered + not yet written

and whether that holds. Where log.drop_unread has let retention drop events that
were not read, one more term stands beside these: dropped unread; where a repair
of the log could not save events that were not read, another: lost. What a repair
cut off the log after it had been written is shown beside them (cut off the log)
and is no term. Counts are of input events, since the stream was made. Events of
the stream rejected were acknowledged for other streams and are counted there.
Below stand the tables, with the rows that wait for their commit (pending; lag is
the age of the oldest), the values that did not fit their columns (rescued), and
what needs somebody's attention.

The exit code is 1 if the equation does not hold for some stream.`,
		Example: `  naru status
  naru status --json | jq '.streams[] | {stream, not_yet_written}'`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			remote, err := server.client()
			if err != nil {
				return err
			}
			text, err := remote.Status(soft)
			if err != nil {
				return fmt.Errorf("ask status: %w", err)
			}
			var r status.Report
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Errorf("read status: %w", err)
			}
			if asJSON {
				_, err = c.out.Write(text)
			} else {
				err = c.showStatus(&r, time.Now())
			}
			if err == nil && !r.Balanced {
				err = fmt.Errorf("the counts of a stream do not add up")
			}
			return err
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showStatus(r *status.Report, now time.Time) error {
	fmt.Fprintf(c.out, "naru %s, folder %s, up %s, %s free\n\n", r.Version, r.Folder.Root, now.Sub(r.Started).Round(time.Second), quantity.Bytes(r.Folder.Free))
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	// Terms that hardly anybody has: a column only where there is something in it.
	rare := func(title string, of func(s status.Stream) int64) (head string, cell func(s status.Stream) string) {
		if !slices.ContainsFunc(r.Streams, func(s status.Stream) bool { return of(s) > 0 }) {
			return "", func(status.Stream) string { return "" }
		}
		return title + "\t", func(s status.Stream) string { return fmt.Sprintf("%d\t", of(s)) }
	}
	droppedHead, dropped := rare("+ dropped unread", func(s status.Stream) int64 { return s.DroppedUnread })
	lostHead, lost := rare("+ lost", func(s status.Stream) int64 { return s.Lost })
	cutHead, cut := rare("cut off the log", func(s status.Stream) int64 { return s.Cut })
	fmt.Fprintln(w, "stream\tacknowledged\t= written\t+ rejections\t+ duplicates\t+ filtered\t+ not yet written\t"+droppedHead+lostHead+"adds up\t"+cutHead+"lag\tlast commit\tin the log")
	for _, s := range r.Streams {
		holds := "yes"
		if !s.Balanced {
			holds = "NO"
		}
		if s.Kept > 0 { // rejected: see above
			fmt.Fprintf(w, "%s\t(%d)\t(%d)\t\t\t\t%d\t%s%s\t%s%s\t%s\t%s\n", s.Stream, s.Kept, s.KeptInTable, s.NotYetWritten, dropped(s)+lost(s), holds, cut(s), lag(s.Lag), ago(s.LastCommit, now), quantity.Bytes(s.Bytes))
			continue
		}
		name := s.Stream
		if to, configured := strings.CutPrefix(s.Pipeline, "pipeline/"); configured {
			name += " → " + to
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s%s\t%s%s\t%s\t%s\n", name, s.Acknowledged, s.Written, s.Rejections, s.Duplicates,
			s.Filtered, s.NotYetWritten, dropped(s)+lost(s), holds, cut(s), lag(s.Lag), ago(s.LastCommit, now), quantity.Bytes(s.Bytes))
	}
	if len(r.Streams) == 0 {
		fmt.Fprintln(w, "(no events yet)")
	}
	showIDs(w, r.Streams)
	fmt.Fprintln(w)
	fmt.Fprintln(w, "table\trows\tpending\tlag\trescued\tfiles\tsize\tlast commit")
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%s\t%s\n", t.Table, t.Rows, t.Pending, lag(t.Lag), t.Rescued, t.Files, quantity.Bytes(t.Bytes), ago(t.LastCommit, now))
	}
	if len(r.Tables) == 0 {
		fmt.Fprintln(w, "(no tables yet)")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, p := range r.Problems {
		if i == 0 {
			fmt.Fprintln(c.out)
		}
		fmt.Fprintln(c.out, "problem: "+p)
	}
	return nil
}

// showIDs tells of the judges of duplicates, where there are ids.
func showIDs(w io.Writer, streams []status.Stream) {
	head, last := "\nids of stream\tremembered\tfor\tduplicates\tid conflicts\ton disk\tin memory\n", ""
	for _, s := range streams {
		d := s.Dedupe
		if d == nil || s.Stream == last || d.IDs+d.Found+d.Conflicts == 0 {
			continue
		}
		last = s.Stream
		fmt.Fprintf(w, "%s%s\t%d\t%s\t%d\t%d\t%s\t%s\n", head, s.Stream, d.IDs, time.Duration(d.Window*float64(time.Second)).Round(time.Second),
			d.Found, d.Conflicts, quantity.Bytes(d.Disk), quantity.Bytes(d.Memory))
		head = ""
	}
}

// lag shows seconds.
func lag(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// ago says how long a moment is past.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String() + " ago"
	case d < 48*time.Hour:
		return d.Round(time.Minute).String() + " ago"
	}
	return quantity.Duration(d.Round(24*time.Hour)).String() + " ago"
}
