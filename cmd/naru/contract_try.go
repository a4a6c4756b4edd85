package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/client/records"
	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/jsonscan"
)

// trial holds events against contracts.
type trial struct {
	set     *contract.Set
	only    *contract.Contract // all events are of its type
	types   *jsonscan.Names
	scan    jsonscan.Scanner
	scratch contract.Scratch

	events, broken, unjudged int
	counts                   map[string]int // by rule and path
}

// verdict is what --json prints of an event that breaks its contract.
type verdict struct {
	Line       int64                `json:"line"`
	Type       string               `json:"type"`
	Violations []contract.Violation `json:"violations"`
}

func (c *cli) contractTest() *cobra.Command {
	var (
		asJSON bool
		typ    string
		show   int
	)
	cmd := &cobra.Command{
		Use:   "test FILE|DIR [EVENTS]",
		Short: "Hold events against a contract, without a server",
		Long: `Reads events (default: standard input; NDJSON, JSON, CSV, compressed or not, as
naru send does) and names what is wrong with each by the contract in FILE, or by
those of DIR. Nothing is sent or stored.

A file with one type judges all events by it. Otherwise an event's type is --type,
else its top-level field type, else event; events of types without a contract are
counted.

The exit code is 1 when an event breaks its contract, whatever the mode.`,
		Example: `  naru contract test contracts/page_view.odcs.yaml < events.ndjson
  naru contract test contracts/page_view.odcs.yaml events.ndjson.gz --json
  naru contract test . --type page_view events.ndjson`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			set, err := contracts(args[:1])
			if err != nil {
				return fmt.Errorf("test events: %w", err)
			}
			t := &trial{set: set, counts: map[string]int{}}
			if err := t.choose(typ); err != nil {
				return fmt.Errorf("test events: %w", err)
			}
			in, name := c.in, "-"
			if len(args) > 1 && args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return fmt.Errorf("test events: %w", err)
				}
				defer f.Close()
				in, name = f, args[1]
			}
			w := bufio.NewWriter(c.out)
			err = t.run(in, name, func(v verdict) error {
				if asJSON {
					return json.NewEncoder(w).Encode(v)
				}
				if t.broken > show {
					return nil
				}
				for _, one := range v.Violations {
					fmt.Fprintf(w, "line %d: %s: %s\n", v.Line, one.Rule, one)
				}
				return nil
			})
			if !asJSON && err == nil {
				t.summary(w, show)
			}
			if err = errors.Join(err, w.Flush()); err != nil {
				return fmt.Errorf("test events: %w", err)
			}
			if t.broken > 0 {
				return fmt.Errorf("test events: %d of %s break the contract", t.broken, plural(t.events, "event"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each event that breaks its contract")
	cmd.Flags().StringVar(&typ, "type", "", "the type of all events")
	cmd.Flags().IntVarP(&show, "lines", "n", 20, "show so many events that break it")
	return cmd
}

// choose finds the contract of all events, if there is one.
func (t *trial) choose(typ string) (err error) {
	t.types, err = jsonscan.NewNames("type", "event")
	switch {
	case err != nil:
		return err
	case len(t.set.Contracts) == 0:
		return fault.WithHint(errors.New("there is no contract"), "naru contract init --from-data TYPE writes a first one")
	case typ != "":
		if t.only = t.set.For(typ); t.only == nil {
			return fault.WithHint(fmt.Errorf("there is no contract for the type %q", typ), "naru contract ls lists them")
		}
	case len(t.set.Contracts) == 1:
		t.only = t.set.Contracts[0]
	}
	return nil
}

// contractOf finds the contract of an event; nil for none.
func (t *trial) contractOf(data []byte) *contract.Contract {
	if t.only != nil {
		return t.only
	}
	t.scan.Has = 0
	if i := jsonscan.Space(data, 0); i < len(data) && data[i] == '{' {
		t.scan.Value(data, i, t.types)
	}
	for i := range 2 {
		v := t.scan.Found[i]
		if t.scan.Has>>i&1 != 0 && (v.Kind == jsonscan.String || v.Kind == jsonscan.Escaped) && v.End-v.Start > 2 {
			return t.set.ForBytes(jsonscan.Text(data, v))
		}
	}
	return t.set.For(event.DefaultType)
}

func (t *trial) run(in io.Reader, name string, tell func(verdict) error) error {
	r, err := records.NewReader(in, name, records.Auto)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		var rec records.Record
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		t.events++
		one := t.contractOf(rec.Line)
		if one == nil {
			t.unjudged++
			continue
		}
		found := one.Check(rec.Line, &t.scratch)
		if found == nil {
			continue
		}
		t.broken++
		for _, v := range found {
			t.counts[v.Rule+" "+v.Path]++
		}
		if err := tell(verdict{rec.At, one.Type, found}); err != nil {
			return err
		}
	}
}

func (t *trial) summary(w io.Writer, show int) {
	if t.broken > show {
		fmt.Fprintf(w, "... and %s\n", plural(t.broken-show, "further event"))
	}
	if t.broken == 0 {
		fmt.Fprintf(w, "%s, all as agreed\n", plural(t.events-t.unjudged, "event"))
	} else {
		fmt.Fprintf(w, "%d of %s break the contract:\n", t.broken, plural(t.events, "event"))
		var rules []string
		for rule := range t.counts {
			rules = append(rules, rule)
		}
		slices.SortFunc(rules, func(a, b string) int {
			if n := t.counts[b] - t.counts[a]; n != 0 {
				return n
			}
			return strings.Compare(a, b)
		})
		for _, rule := range rules[:min(len(rules), 50)] {
			fmt.Fprintf(w, "  %d × %s\n", t.counts[rule], rule)
		}
	}
	if t.unjudged > 0 {
		fmt.Fprintf(w, "%s of types without a contract\n", plural(t.unjudged, "event"))
	}
}
