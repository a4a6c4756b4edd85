package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/pipeline"
	"naru/internal/pipeline/definition"
)

func (c *cli) pipelineRewind() *cobra.Command {
	var server *server
	var ask pipeline.Rewind
	var to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rewind NAME --to TIME|earliest",
		Short: "Have sinks of a pipeline read the past again",
		Long: `Sinks of the pipeline read again from the first event that was received at the time
on, by the steps that the file has now. A table is filled anew beside the one that
there is, and replaced when it has caught up, so that readers see the old rows or
the new ones; its rows of events before that time stay. Files go and come anew, and so
do rows of postgres and mysql that have a row_key. A target that cannot give back what
it has (kafka, stream, http, redis, ...) is refused, unless --again is given: it then
keeps what it has, and gets the rows again beside it, with the same keys.

An event that the steps refuse again is in the rejections once. The rejection of one
that passes now stays open: naru rejected discard.`,
		Example: `  naru pipeline rewind edits --to earliest
  naru pipeline rewind edits --to 2026-01-31T00:00:00Z --sink hook --again`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if ask.To, err = startOf("to", to); err != nil {
				return err
			}
			var out pipeline.Rereading
			post := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
				return remote.AskPipeline(ctx, args[0], pipeline.RewindAction, ask)
			}
			if err := c.askPipelines(cmd, server, "rewind pipeline "+args[0], post, asJSON, &out); err != nil || asJSON {
				return err
			}
			c.showRereading(&out)
			return nil
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "a time of receipt, as in 2026-01-31T00:00:00Z, a date, or earliest")
	cmd.Flags().StringVar(&ask.Sink, "sink", "", "only this sink; all if not given")
	cmd.Flags().BoolVar(&ask.Again, "again", false, "send rows again to targets that cannot give back what they have")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// startOf reads a flag that says where to begin.
func startOf(flag, text string) (at definition.Start, err error) {
	if text == "" {
		return at, usageError{fmt.Errorf("--%s is missing: a time of receipt, as in 2026-01-31T00:00:00Z, a date, or earliest", flag)}
	}
	if err := at.UnmarshalText([]byte(text)); err != nil {
		return at, usageError{fmt.Errorf("--%s: %w", flag, err)}
	}
	return at, nil
}

func (c *cli) showRereading(r *pipeline.Rereading) {
	for _, s := range r.Sinks {
		how := "reads %d events again"
		if s.Again {
			how = "reads %d events again; its target keeps what it has, and gets the rows beside it"
		}
		if s.Backfill {
			how = "is filled with %d events beside what it has, and then replaced"
		}
		fmt.Fprintf(c.out, "%s (%s) "+how+"\n", s.Sink, s.Kind, s.Events)
	}
	if r.Note != "" {
		fmt.Fprintf(c.out, "note: %s\n", r.Note)
	}
}

func (c *cli) pipelineBackfill() *cobra.Command {
	var server *server
	var ask pipeline.Backfill
	var from string
	var asJSON, cancel, wait bool
	cmd := &cobra.Command{
		Use:   "backfill NAME --from TIME|earliest",
		Short: "Run the steps over the past, beside what goes on",
		Long: `Runs the steps that the file has now over the events received from a time on, beside
what goes on, at most --rate events a second. Without --into a new table is filled
until it has caught up with the sink, and then takes the place of the sink's own in
one step; rows of events before --from stay. With --into a table is made that has
the rows of the range, and stays beside.

The work goes on when this command ends, and over restarts of the server. Without
any other flag the command shows how far it is.`,
		Example: `  naru pipeline backfill edits --from earliest --wait
  naru pipeline backfill edits --from 2026-01-01 --to 2026-02-01 --into january --rate 5000
  naru pipeline backfill edits --cancel`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			name, doing := args[0], "backfill pipeline "+args[0]
			if cancel {
				var left pipeline.BackfillList
				post := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
					return remote.AskPipeline(ctx, name, pipeline.CancelAction, pipeline.Cancel{Sink: ask.Sink})
				}
				if err := c.askPipelines(cmd, server, doing, post, asJSON, &left); err != nil || asJSON {
					return err
				}
				fmt.Fprintln(c.out, "given up")
				return nil
			}
			if from != "" {
				if ask.From, err = startOf("from", from); err != nil {
					return err
				}
				var out pipeline.Rereading
				post := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
					return remote.AskPipeline(ctx, name, pipeline.BackfillAction, ask)
				}
				if err := c.askPipelines(cmd, server, doing, post, asJSON, &out); err != nil {
					return err
				}
				if !asJSON {
					c.showRereading(&out)
				}
				if !wait {
					return nil
				}
			} else if ask.Into != "" || ask.To != "" || ask.Rate != 0 {
				return usageError{fmt.Errorf("--from is missing: a time of receipt, as in 2026-01-31T00:00:00Z, a date, or earliest")}
			}
			return c.watchBackfills(cmd, server, name, asJSON && from == "", wait)
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().StringVar(&from, "from", "", "a time of receipt, as in 2026-01-31T00:00:00Z, a date, or earliest")
	cmd.Flags().StringVar(&ask.To, "to", "", "where the range ends, with --into: a time, or now (default now)")
	cmd.Flags().StringVar(&ask.Into, "into", "", "a new table that stays beside the sink's own")
	cmd.Flags().StringVar(&ask.Sink, "sink", "", "only this sink; all tables if not given")
	cmd.Flags().Int64Var(&ask.Rate, "rate", 0, "events a second at most; 0: as fast as it goes")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "give it up")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// watchBackfills shows how far backfills are; with wait, until none is left.
func (c *cli) watchBackfills(cmd *cobra.Command, server *server, name string, asJSON, wait bool) error {
	get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
		return remote.PipelineBackfills(ctx, name)
	}
	for begun := time.Now(); ; {
		var l pipeline.BackfillList
		if err := c.askPipelines(cmd, server, "backfill pipeline "+name, get, asJSON, &l); err != nil || asJSON {
			return err
		}
		if wait && c.terminal {
			fmt.Fprint(c.err, "\r\x1b[K")
		}
		var lines []string
		for _, b := range l.Backfills {
			lines = append(lines, backfillLine(b))
		}
		switch {
		case !wait && len(lines) == 0:
			fmt.Fprintln(c.out, "(no backfill goes on)")
		case !wait:
			fmt.Fprintln(c.out, strings.Join(lines, "\n"))
		case len(lines) == 0:
			fmt.Fprintf(c.out, "done in %s\n", time.Since(begun).Round(100*time.Millisecond))
		case c.terminal:
			fmt.Fprint(c.err, strings.Join(lines, "; "))
		}
		if !wait || len(lines) == 0 {
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		}
	}
}

// backfillLine is the bar of one backfill.
func backfillLine(b pipeline.BackfillReport) string {
	const width = 30
	part := 0.0
	if b.Of > 0 {
		part = min(float64(b.Done)/float64(b.Of), 1)
	}
	full := int(part * width)
	line := fmt.Sprintf("%s -> %s [%s%s] %3.0f%%  %d of %d events  %.0f/s", b.Sink, b.Table, strings.Repeat("#", full), strings.Repeat("-", width-full), 100*part, b.Done, b.Of, b.PerSecond)
	if b.Seconds > 0 {
		line += "  " + (time.Duration(b.Seconds) * time.Second).String() + " left"
	}
	if b.Phase != "fill" {
		line += "  (" + b.Phase + ")"
	}
	if b.LastError != "" {
		line += "\n  " + oneLine(b.LastError)
		if b.Hint != "" {
			line += "\n  " + b.Hint
		}
	}
	return line
}
