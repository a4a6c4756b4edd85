package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/fault"
	"naru/internal/pipeline"
	"naru/internal/rejection"
)

func (c *cli) pipelineCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "pipeline",
		Short: "See how pipelines do, try and test them, pause and resume them, run them again over the past",
		Long: `A file pipelines/NAME.yaml reads a stream, computes steps over its events and brings
the rows to sinks, each at its own pace. ls, show, pause, resume, rewind and backfill
ask the running server; test and try work on the files, with a server or without.
docs/pipelines.md shows them at work.`,
	}, c.pipelineLs(), c.pipelineShow(), c.pipelineTest(), c.pipelineTry(), c.pipelinePause(true), c.pipelinePause(false),
		c.pipelineRewind(), c.pipelineBackfill())
}

// askPipelines asks the server for JSON and prints it as it is, or else reads it into v.
func (c *cli) askPipelines(cmd *cobra.Command, server *server, doing string, get func(context.Context, *client.Client) (json.RawMessage, error), asJSON bool, v any) error {
	soft, _, stop := interrupts(cmd.Context())
	defer stop()
	remote, err := server.client()
	if err != nil {
		return err
	}
	text, err := get(soft, remote)
	if p := (*client.Problem)(nil); errors.As(err, &p) && p.Status == http.StatusNotFound {
		return fault.WithHint(fmt.Errorf("%s: %w", doing, err), "naru pipeline ls lists the pipelines of the server")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if asJSON {
		_, err = c.out.Write(text)
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: read the answer: %w", doing, err)
	}
	return nil
}

func (c *cli) pipelineLs() *cobra.Command {
	var server *server
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the pipelines and how far their sinks are",
		Long: `Lists the pipelines of the running server, one line for each sink: whether it runs,
is paused, or is failing (it tries again after an error, which stands below); how
many events of the stream it has still to bring to its target, and how long ago the
oldest of them was received; and what has become of the others.

A pipeline is broken when its file is: what was in force before goes on, and if
nothing was, nothing runs. naru check names what is wrong.`,
		Example: `  naru pipeline ls
  naru pipeline ls --json | jq '.pipelines[].sinks[] | select(.lag_seconds > 10)'`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l pipeline.List
			get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
				return remote.Pipelines(ctx)
			}
			if err := c.askPipelines(cmd, server, "list pipelines", get, asJSON, &l); err != nil || asJSON {
				return err
			}
			return c.atOnce(func() error { return c.showPipelines(&l) })
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// sinkHead are the columns of sinks; sinkRow fills them.
const sinkHead = "sink\tkind\tstate\tlag\tnot yet written\twritten\trejections\tduplicates\tfiltered\tlast commit\n"

func sinkRow(s *pipeline.SinkReport, now time.Time) string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", s.Name, s.Kind, s.State, lag(s.LagSeconds), s.Lag,
		s.Counts.Written, s.Counts.Rejections, s.Counts.Duplicates, s.Counts.Filtered, ago(s.LastCommit, now))
}

func (c *cli) showPipelines(l *pipeline.List) error {
	now := time.Now()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if len(l.Pipelines) > 0 {
		fmt.Fprint(w, "pipeline\tstream\t"+sinkHead)
	} else {
		fmt.Fprintln(w, "(no pipelines)")
	}
	for i := range l.Pipelines {
		p := &l.Pipelines[i]
		if len(p.Sinks) == 0 {
			fmt.Fprintf(w, "%s\t%s\t\t\t%s\n", p.Name, dash(p.Stream), p.State)
		}
		for j := range p.Sinks {
			fmt.Fprintf(w, "%s\t%s\t%s", p.Name, p.Stream, sinkRow(&p.Sinks[j], now))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if l.Broken != "" {
		fmt.Fprintf(c.out, "\npipelines/ cannot be read: %s\n", oneLine(l.Broken))
	}
	for i := range l.Pipelines {
		c.showTroubles(&l.Pipelines[i])
	}
	return nil
}

// showTroubles tells what is wrong with a pipeline, and the cure.
func (c *cli) showTroubles(p *pipeline.Report) {
	if p.Broken != "" {
		what := "what was in force before goes on"
		if p.State == pipeline.Broken {
			what = "it does not run"
		}
		fmt.Fprintf(c.out, "\n%s is broken, and %s:\n", p.Name, what)
		for text := range strings.SplitSeq(p.Broken, "\n") {
			fmt.Fprintf(c.out, "  %s\n", oneLine(text))
		}
	}
	for _, s := range p.Sinks {
		if s.LastError == "" {
			continue
		}
		fmt.Fprintf(c.out, "\n%s, sink %s: %s\n", p.Name, s.Name, oneLine(s.LastError))
		if s.Hint != "" {
			fmt.Fprintf(c.out, "  %s\n", oneLine(s.Hint))
		}
	}
}

// atOnce prints in one go: a reader that leaves when it has seen enough, as grep -q does,
// is then no error between two parts.
func (c *cli) atOnce(print func() error) error {
	var text bytes.Buffer
	out := c.out
	c.out = &text
	err := print()
	c.out = out
	_, werr := out.Write(text.Bytes())
	return errors.Join(err, werr)
}

func (c *cli) pipelineShow() *cobra.Command {
	var server *server
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show one pipeline: steps, sinks, counts, and from where its versions hold",
		Long: `Shows one pipeline of the running server as it is in force: what it reads, its steps,
its sinks with what they guarantee and how far they are, and how its counts add up.

After a change of its steps a sink that lags still uses the former version for the
events before the change: the versions in use are listed with the first places that
they hold for, LOG/PARTITION/OFFSET.`,
		Example: `  naru pipeline show edits
  naru pipeline show edits --json | jq '.sinks[] | {name, lag_events, last_error}'`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var p pipeline.Report
			get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
				return remote.Pipeline(ctx, args[0])
			}
			if err := c.askPipelines(cmd, server, "show pipeline "+args[0], get, asJSON, &p); err != nil || asJSON {
				return err
			}
			return c.atOnce(func() error {
				if err := c.showPipeline(&p); err != nil {
					return err
				}
				return c.showRefused(cmd, server, &p)
			})
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showPipeline(p *pipeline.Report) error {
	now := time.Now()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "pipeline\t%s\nstate\t%s\n", p.Name, p.State)
	if p.State == pipeline.Broken {
		if err := w.Flush(); err != nil {
			return err
		}
		c.showTroubles(p)
		return nil
	}
	types := strings.Join(p.Types, ", ")
	if types == "" {
		types = "all"
	}
	start, err := p.Start.MarshalText()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "stream\t%s\ntypes\t%s\nbegins at\t%s\nversion\t%s\n", p.Stream, types, start, p.Version)
	for i, s := range p.Steps {
		fmt.Fprintf(w, "step %d\t%s\t%s\n", i+1, s.Kind, oneLine(strings.Join(strings.Fields(s.SQL), " ")))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, "\n"+sinkHead)
	for i := range p.Sinks {
		fmt.Fprint(w, sinkRow(&p.Sinks[i], now))
	}
	fmt.Fprint(w, "\nsink\tguarantee\n")
	for _, s := range p.Sinks {
		fmt.Fprintf(w, "%s\t%s\n", s.Name, oneLine(s.Guarantee))
	}
	if slices.ContainsFunc(p.Sinks, func(s pipeline.SinkReport) bool { return s.Where != "" }) {
		fmt.Fprint(w, "\nsink\twhere\n")
		for _, s := range p.Sinks {
			fmt.Fprintf(w, "%s\t%s\n", s.Name, oneLine(s.Where))
		}
	}
	if len(p.Versions) > 1 {
		fmt.Fprint(w, "\nversion\tfrom\n")
		for _, v := range p.Versions {
			from := v.From.String()
			if from == "" {
				from = "the beginning"
			}
			fmt.Fprintf(w, "%s\t%s\n", v.Version, from)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	c.showTroubles(p)
	for i, b := range p.Backfills {
		if i == 0 {
			fmt.Fprint(c.out, "\nbackfills\n")
		}
		fmt.Fprintln(c.out, backfillLine(b))
	}
	for _, s := range p.Sinks {
		if s.Replays > 0 {
			fmt.Fprintf(c.out, "\n%s has still to take %d replays of what was refused.\n", s.Name, s.Replays)
		}
	}
	return nil
}

// showRefused prints the newest kinds of what a pipeline has refused and is open.
func (c *cli) showRefused(cmd *cobra.Command, server *server, p *pipeline.Report) error {
	if !slices.ContainsFunc(p.Sinks, func(s pipeline.SinkReport) bool { return s.Counts.Rejections > 0 }) {
		return nil
	}
	var l rejection.List
	get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
		return remote.RejectedGroups(ctx, listQuery(rejection.Filter{Pipeline: p.Name}, string(rejection.Open)))
	}
	if err := c.answer(cmd, server, get, false, &l); err != nil {
		return err
	}
	slices.SortFunc(l.Groups, func(a, b rejection.Group) int { return b.Last.Compare(a.Last) })
	const most = 3
	for _, g := range l.Groups[:min(len(l.Groups), most)] {
		fmt.Fprintf(c.out, "\n%d refused by %s %s, the last one %s: %s\n  %s\n", g.Open, g.Reason, cell(g.Path), ago(g.Last, time.Now()), g.Sample, oneLine(g.Detail))
	}
	fmt.Fprintf(c.out, "\nWhat was refused, and why: naru rejected ls --pipeline %s\nOnce that is mended: naru rejected replay --pipeline %[1]s\n", p.Name)
	return nil
}

// pipelinePause is pause and resume.
func (c *cli) pipelinePause(pause bool) *cobra.Command {
	var server *server
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Stop the sinks of a pipeline until it is resumed",
		Long: `Stops the sinks of a pipeline: what they hold is committed, and nothing more is
written. It stays so over restarts and changes of its file, until naru pipeline
resume. The log keeps what a paused pipeline has not read, and so grows beyond its
retention.

It waits for the last commits, for a sink that hangs at most pipelines.drain_timeout.`,
		Example: `  naru pipeline pause edits`,
		Args:    usage(cobra.ExactArgs(1)),
	}
	what, done := "pause", "pipeline %s is paused: naru pipeline resume %s lets it go on\n"
	if !pause {
		what, done = "resume", "pipeline %s goes on from where it was (naru pipeline show %s)\n"
		cmd.Use, cmd.Short, cmd.Example = "resume NAME", "Let a paused pipeline go on", `  naru pipeline resume edits`
		cmd.Long = "Lets a paused pipeline go on, each sink from where it was: nothing is missing, nothing is doubled."
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var p pipeline.Report
		get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
			return remote.ChangePipeline(ctx, args[0], what)
		}
		if err := c.askPipelines(cmd, server, what+" pipeline "+args[0], get, asJSON, &p); err != nil || asJSON {
			return err
		}
		fmt.Fprintf(c.out, done, p.Name, p.Name)
		return nil
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
