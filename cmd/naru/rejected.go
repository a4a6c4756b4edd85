package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/rejection"
)

func (c *cli) rejectedCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "rejected",
		Short: "See what was refused, send it again, or be done with it",
		Long: `A refused event is kept with its bytes and the reason: a rejection. It is open
until it is replayed (sent again to its stream, or to the pipeline that has refused
it, judged by the rules of today) or
discarded (nobody wants it; it stays in the table). All commands ask the running
server. docs/rejected.md shows them at work.`,
	}, c.rejectedListCommand(), c.rejectedShowCommand(), c.rejectedReplayCommand(), c.rejectedDiscardCommand())
}

// choice is the flags that choose rejections.
type choice struct {
	f            rejection.Filter
	since, until string
}

func choiceFlags(cmd *cobra.Command) *choice {
	ch := &choice{}
	flags := cmd.Flags()
	flags.StringVar(&ch.f.Type, "type", "", "of this event type")
	flags.StringVar(&ch.f.Reason, "reason", "", "refused for this reason, as in not_json")
	flags.StringVar(&ch.f.Rule, "rule", "", "that break this rule of a contract")
	flags.StringVar(&ch.f.Path, "path", "", "that break a contract in this place")
	flags.StringVar(&ch.f.Stream, "stream", "", "meant for this stream")
	flags.StringVar(&ch.f.Source, "source", "", "from this source")
	flags.StringVar(&ch.f.Pipeline, "pipeline", "", "refused by this pipeline")
	flags.StringVar(&ch.since, "since", "", "received then or later: RFC 3339, a day, or an age such as 2h or 7d")
	flags.StringVar(&ch.until, "until", "", "received before then")
	return ch
}

// filter is what the flags and an ID say.
func (ch *choice) filter(args []string, now time.Time) (f rejection.Filter, err error) {
	f = ch.f
	if len(args) > 0 {
		if _, err := rejection.ParseID(args[0]); err != nil {
			return f, err
		}
		f.ID = args[0]
	}
	if f.Since, err = moment(ch.since, now); err != nil {
		return f, fmt.Errorf("--since: %w", err)
	}
	if f.Until, err = moment(ch.until, now); err != nil {
		return f, fmt.Errorf("--until: %w", err)
	}
	return f, nil
}

// moment reads a time, a day, or an age.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	var age quantity.Duration
	if err := age.UnmarshalText([]byte(s)); err == nil && age > 0 {
		return now.Add(-age.Std()), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-21T10:00:00Z, 2026-11-21, or an age such as 2h or 7d", s)
}

// listQuery is the filter as the server's list takes it.
func listQuery(f rejection.Filter, state string) url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"id": f.ID, "type": f.Type, "reason": f.Reason, "rule": f.Rule, "path": f.Path, "stream": f.Stream, "source": f.Source, "pipeline": f.Pipeline, "state": state} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, t := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

func (c *cli) rejectedListCommand() *cobra.Command {
	var server *server
	var ch *choice
	var asJSON bool
	state := ""
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "Show refused events in groups",
		Long: `Shows refused events, grouped by stream, type, reason, rule and place of the
contract, source and version of the contract: how many, how many of them are open,
replayed and discarded, when the first and the last came, the last one as a sample
(naru rejected show takes its name), and whom to ask by the contract.`,
		Example: `  naru rejected ls
  naru rejected ls --state open --since 24h
  naru rejected ls --type page_view --json | jq '.groups[] | {reason, open}'`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := ch.filter(args, time.Now())
			if err == nil && state != "" {
				err = new(rejection.State).UnmarshalText([]byte(state))
			}
			if err != nil {
				return asUsage(cmd, err)
			}
			var l rejection.List
			get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
				return remote.RejectedGroups(ctx, listQuery(f, state))
			}
			if err := c.answer(cmd, server, get, asJSON, &l); err != nil || asJSON {
				return err
			}
			return c.showRejected(&l)
		},
	}
	server, ch = c.serverFlag(cmd), choiceFlags(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only those that are open, replayed or discarded")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// answer asks the server for JSON and prints it as it is, or else reads it into v.
func (c *cli) answer(cmd *cobra.Command, server *server, get func(context.Context, *client.Client) (json.RawMessage, error), asJSON bool, v any) error {
	soft, _, stop := interrupts(cmd.Context())
	defer stop()
	remote, err := server.client()
	if err != nil {
		return err
	}
	text, err := get(soft, remote)
	if err != nil {
		return fmt.Errorf("look for rejections: %w", err)
	}
	if asJSON {
		_, err = c.out.Write(text)
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read rejections: %w", err)
	}
	return nil
}

func (c *cli) showRejected(l *rejection.List) error {
	if len(l.Groups) == 0 {
		fmt.Fprintln(c.out, "(no rejections)")
		return nil
	}
	now := time.Now()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "stream\ttype\treason\trule\tplace\tsource\tcontract\topen\treplayed\tdiscarded\tfirst\tlast")
	for _, g := range l.Groups {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", g.Stream, cell(g.Type), g.Reason, cell(g.Rule), cell(g.Path), cell(g.Source),
			cell(g.Version), g.Open, g.Replayed, g.Discarded, ago(g.First, now), ago(g.Last, now))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, g := range l.Groups {
		fmt.Fprintf(c.out, "\n%s %s, %s: for example %s\n  %s\n", g.Stream, cell(g.Type), strings.TrimSpace(g.Reason+" "+g.Rule), g.Sample, oneLine(g.Detail))
		if who := ask(g.Contact); who != "" {
			fmt.Fprintf(c.out, "  ask %s\n", who)
		}
	}
	if l.More {
		fmt.Fprintln(c.out, "\nThere are more groups: choose with --type, --reason, --since and the like.")
	}
	return nil
}

// ask says whom, or nothing.
func ask(who rejection.Contact) string {
	var parts []string
	if who.Owner != "" {
		parts = append(parts, who.Owner)
	}
	return oneLine(strings.Join(append(parts, who.Support...), ", "))
}

// cell is a client's text in a table.
func cell(s string) string { return dash(oneLine(s)) }

// oneLine is a client's text for a terminal: one line, not too long.
func oneLine(s string) string {
	const most = 300
	if s = line(strings.ToValidUTF8(s, "\ufffd")); len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// harmless keeps lines and blanks of a client's text, and nothing else that a
// terminal acts on.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

func (c *cli) rejectedShowCommand() *cobra.Command {
	var server *server
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one refused event with its bytes and what was done with it",
		Long: `Shows one rejection by its name, LOG/PARTITION/OFFSET: why it was refused, its
bytes as they are kept, every attempt to send it again and what came of it, and
where its event is now.`,
		Example: `  naru rejected show 7c0d9f0e-6b1f-4a53-9a68-0f5a3a3e6a11/0/17
  naru rejected show 7c0d9f0e-6b1f-4a53-9a68-0f5a3a3e6a11/0/17 --json | jq -r .original`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := rejection.ParseID(args[0]); err != nil {
				return asUsage(cmd, err)
			}
			var d rejection.Detail
			get := func(ctx context.Context, remote *client.Client) (json.RawMessage, error) {
				return remote.Rejection(ctx, args[0])
			}
			if err := c.answer(cmd, server, get, asJSON, &d); err != nil || asJSON {
				return err
			}
			return c.showRejection(&d)
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showRejection(d *rejection.Detail) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, l := range [][2]string{
		{"id", d.ID}, {"state", string(d.State)}, {"stream", d.Stream}, {"type", d.Type}, {"reason", d.Reason}, {"rule", d.Rule}, {"place", d.Path},
		{"detail", d.Detail}, {"event id", d.EventID}, {"source", d.Source},
		{"contract", strings.TrimSpace(d.Contract + " " + d.Version)}, {"received", d.Received.Format(time.RFC3339Nano)}, {"ask", ask(d.Contact)},
	} {
		if l[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", l[0], oneLine(l[1]))
		}
	}
	for _, a := range d.Attempts {
		what := string(a.State)
		switch a.State {
		case rejection.Open:
			what = "refused again: " + a.Reason + ": " + oneLine(a.Detail)
		case rejection.Replayed:
			what += " as " + a.Event
			if a.Duplicate {
				what += ": a duplicate of an event that came before, so it has no row of its own"
			}
		}
		fmt.Fprintf(w, "%s\t%s\n", a.At.Format(time.RFC3339), what)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if d.Base64 != nil {
		fmt.Fprintf(c.out, "\n%q\n", d.Base64)
		return nil
	}
	fmt.Fprintf(c.out, "\n%s\n", harmless(d.Original))
	return nil
}

func (c *cli) rejectedReplayCommand() *cobra.Command {
	return c.rejectedChange("replay", &cobra.Command{
		Use:   "replay [ID]",
		Short: "Send refused events to their streams again",
		Long: `Sends open rejections to their streams again, as today's rules and contracts judge
them. What is accepted becomes a row like any other, with the id and the time of
receipt that it had; what is refused again stays open, with one more attempt.

What a step or a sink of a pipeline has refused stands in its stream already: it is
computed again by the steps of now, and goes to the sinks of that pipeline alone, to
the one that has refused it if it was a sink.

Each goes there once: also when this is run twice, by two people at a time,
or is interrupted at any moment. Run it again to go on.

The exit code is 0 also when events were refused again; the counts say so.`,
		Example: `  naru rejected replay --type page_view
  naru rejected replay --type page_view --reason contract --since 7d --dry-run
  naru rejected replay --pipeline prices --reason step
  naru rejected replay --all`,
	})
}

func (c *cli) rejectedDiscardCommand() *cobra.Command {
	return c.rejectedChange("discard", &cobra.Command{
		Use:   "discard [ID]",
		Short: "Say that nobody wants these refused events",
		Long: `Closes open rejections: they are not listed as open any more, and no replay sends
them again. They stay in the table rejected with their bytes.`,
		Example: `  naru rejected discard --reason not_json --until 2026-11-01
  naru rejected discard 7c0d9f0e-6b1f-4a53-9a68-0f5a3a3e6a11/0/17
  naru rejected discard --type test_event --dry-run`,
	})
}

// rejectedChange is replay and discard.
func (c *cli) rejectedChange(what string, cmd *cobra.Command) *cobra.Command {
	var asJSON, dry, all bool
	cmd.Args = usage(cobra.MaximumNArgs(1))
	server, ch := c.serverFlag(cmd), choiceFlags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing; say what would become of them")
	cmd.Flags().BoolVar(&all, "all", false, "all that are open")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := ch.filter(args, time.Now())
		if err == nil && f.Empty() && !all {
			err = errors.New("say which: by ID, --type, --reason, --since and the like, or --all")
		}
		if err != nil {
			return asUsage(cmd, err)
		}
		body, err := json.Marshal(rejection.Ask{Filter: f, All: all, DryRun: dry})
		if err != nil {
			return err
		}
		soft, _, stop := interrupts(cmd.Context())
		defer stop()
		remote, err := server.client()
		if err != nil {
			return err
		}
		answer, err := remote.ChangeRejected(soft, what, body)
		if err != nil {
			return fmt.Errorf("%s rejections: %w", what, err)
		}
		defer answer.Close()
		res, err := c.followChange(answer)
		if soft.Err() != nil {
			return fault.WithHint(fmt.Errorf("%s rejections: interrupted", what), "what is done is done; run it again to go on")
		}
		if err != nil {
			return fault.WithHint(fmt.Errorf("%s rejections: %w", what, err), "what is done is done; run it again to go on")
		}
		if asJSON {
			return json.NewEncoder(c.out).Encode(res)
		}
		fmt.Fprintln(c.out, changed(what, res))
		return nil
	}
	return cmd
}

// followChange reads the answer to its end and draws how far it is.
func (c *cli) followChange(answer io.Reader) (*rejection.Result, error) {
	drawn := time.Time{}
	open := false
	defer func() {
		if open {
			fmt.Fprint(c.err, "\r\x1b[K")
		}
	}()
	in := bufio.NewScanner(answer)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l rejection.Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		switch {
		case l.Error != "":
			return nil, errors.New(l.Error)
		case l.Result != nil:
			return l.Result, nil
		case l.Progress != nil && c.terminal && time.Since(drawn) >= drawEvery:
			drawn, open = time.Now(), true
			fmt.Fprintf(c.err, "\r\x1b[K%d of %d", l.Progress.Done(), l.Progress.Matched)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("the answer was cut off: %w", err)
	}
	return nil, errors.New("the answer was cut off")
}

// changed says in words what was done.
func changed(what string, r *rejection.Result) string {
	var parts []string
	if what == "replay" {
		parts = append(parts, fmt.Sprintf("%d replayed", r.Replayed))
	} else {
		parts = append(parts, fmt.Sprintf("%d discarded", r.Discarded))
	}
	if r.Refused > 0 {
		again := fmt.Sprintf("%d refused again", r.Refused)
		if len(r.ByReason) > 0 {
			again += " (" + r.ByReason.String() + ")"
		}
		parts = append(parts, again)
	}
	if r.Closed > 0 {
		parts = append(parts, fmt.Sprintf("%d closed before", r.Closed))
	}
	text := strings.Join(parts, ", ")
	if r.DryRun {
		text = "dry run, nothing was changed: " + text
	}
	return text
}
