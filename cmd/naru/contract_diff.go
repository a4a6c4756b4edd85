package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"naru/internal/contract"
)

func (c *cli) contractDiff() *cobra.Command {
	var asJSON, fail bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say whom a change of contracts breaks",
		Long: `Compares two contract files, or two folders of them, and says of each change
whether it breaks those who send events (an event that was good is refused) and
those who read rows (they can hold what they could not before, or lack what they
had), with the reason and whom to ask. A file of git's is one with
<(git show REVISION:PATH).

With --fail-on-breaking the exit code is 1 when a change breaks anybody.`,
		Example: `  naru contract diff old.odcs.yaml new.odcs.yaml
  naru contract diff --fail-on-breaking <(git show main:contracts/page_view.odcs.yaml) contracts/page_view.odcs.yaml`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			var sets [2]*contract.Set
			for i, arg := range args {
				set, err := contracts([]string{arg})
				if err != nil {
					return fmt.Errorf("diff contracts: %w", err)
				}
				sets[i] = set
			}
			changes := append([]contract.Change{}, contract.Diff(sets[0], sets[1])...)
			breaking := 0
			for i := range changes {
				if changes[i].IsBreaking() {
					breaking++
				}
			}
			if asJSON {
				if err := c.printJSON(struct {
					Breaking int               `json:"breaking"`
					Changes  []contract.Change `json:"changes"`
				}{breaking, changes}); err != nil {
					return err
				}
			} else {
				c.showChanges(changes, breaking, sets)
			}
			if fail && breaking > 0 {
				return fmt.Errorf("diff contracts: %s", plural(breaking, "breaking change"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&fail, "fail-on-breaking", false, "exit with 1 when a change breaks anybody")
	return cmd
}

func (c *cli) showChanges(changes []contract.Change, breaking int, sets [2]*contract.Set) {
	typ := ""
	for i := range changes {
		ch := &changes[i]
		if typ != ch.Type || i == 0 {
			typ = ch.Type
			fmt.Fprintln(c.out, line(typ)+asks(sets, typ))
		}
		verdict := "compatible"
		switch {
		case ch.Producers == contract.Breaking && ch.Consumers == contract.Breaking:
			verdict = "breaks producers and consumers"
		case ch.Producers == contract.Breaking:
			verdict = "breaks producers"
		case ch.Consumers == contract.Breaking:
			verdict = "breaks consumers"
		}
		what := ch.What
		if ch.Field != "" {
			what = ch.Field + ": " + what
		}
		switch {
		case ch.Old == "":
			what += " " + ch.New + " is new"
		case ch.New == "":
			what += " " + ch.Old + " is gone"
		default:
			what += " " + ch.Old + " → " + ch.New
		}
		fmt.Fprintf(c.out, "  %s\n    %s: %s\n", line(what), verdict, ch.Why)
	}
	switch {
	case len(changes) == 0:
		fmt.Fprintln(c.out, "nothing has changed")
	default:
		fmt.Fprintf(c.out, "%s, %d breaking\n", plural(len(changes), "change"), breaking)
	}
}

// asks says whom to ask about a type.
func asks(sets [2]*contract.Set, typ string) string {
	for _, s := range []*contract.Set{sets[1], sets[0]} {
		one := s.For(typ)
		if one == nil || one.Owner == "" {
			continue
		}
		out := ", owner " + one.Owner
		if len(one.Support) > 0 {
			out += ", ask at " + one.Support[0].Channel
		}
		return line(out)
	}
	return ""
}
