package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/fault"
	"naru/internal/vfs"
)

func (c *cli) contractCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "contract",
		Short: "Write and check what events are to look like",
		Long: `A contract says what events of one type look like, who owns them, and what holds
for them. It is a file contracts/*.yaml of the Open Data Contract Standard 3.1;
each entry of its list schema is the contract of the event type that it names.`,
	}, c.contractInit(), c.contractLint(), c.contractTest(), c.contractLs(), c.contractShow(), c.contractDiff())
}

// contractFiles reads contracts: files by name, the folder contracts/ of a
// project, or any other folder. Without a name it is this project's.
func contractFiles(args []string) ([]contract.File, error) {
	if len(args) == 0 {
		args = []string{"."}
	}
	fsys := vfs.OS()
	var files []contract.File
	read := map[string]bool{}
	for _, arg := range args {
		info, err := fsys.Stat(arg)
		if err != nil {
			return nil, err
		}
		var some []contract.File
		if !info.IsDir() {
			some, err = contract.LoadFile(fsys, arg)
			if err == nil && !contract.IsContract(some[0].Name) {
				some[0].Name += ".yaml" // a pipe has no such name
			}
		} else {
			dir := config.Folder(arg).Contracts()
			if inside, bad := fsys.Stat(dir); bad != nil || !inside.IsDir() {
				if dir = arg; arg == "." && filepath.Base(absolute(arg)) != "contracts" {
					return nil, fault.WithHint(&fs.PathError{Op: "read", Path: "contracts", Err: fs.ErrNotExist}, "a project has a folder contracts/; naru init makes one")
				}
			}
			some, err = contract.Load(fsys, dir)
		}
		if err != nil {
			return nil, err
		}
		for _, f := range some {
			if !read[f.Name] {
				read[f.Name] = true
				files = append(files, f)
			}
		}
	}
	return files, nil
}

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// contracts reads and compiles contracts for a command that needs them right.
func contracts(args []string) (*contract.Set, error) {
	files, err := contractFiles(args)
	if err != nil {
		return nil, err
	}
	set, problems := contract.Compile(files)
	if problems != nil {
		return nil, fault.WithHint(problems, "naru contract lint names what is wrong")
	}
	return set, nil
}

func (c *cli) contractLint() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lint [FILE|DIR]...",
		Short: "Find everything that is wrong in contracts",
		Long: `Reads contracts (default: contracts/ of this folder) and names everything that is
wrong, each with its file, line, key and cure; a misspelt key with the nearest
one that exists. What is right but worth knowing, as rules that only a table can
be held to, comes as a note. The exit code is 1 if anything is wrong.`,
		Example: `  naru contract lint
  naru contract lint contracts/page_view.odcs.yaml --json`,
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := contractFiles(args)
			if err != nil {
				return fmt.Errorf("lint contracts: %w", err)
			}
			set, problems := contract.Compile(files)
			notes, n := contract.Problems{}, 0
			if set != nil {
				notes, n = append(notes, set.Notes...), len(set.Contracts)
			}
			if asJSON {
				err = c.printJSON(struct {
					Contracts int               `json:"contracts"`
					Problems  contract.Problems `json:"problems"`
					Notes     contract.Problems `json:"notes"`
				}{n, append(contract.Problems{}, problems...), notes})
			} else {
				for _, p := range problems {
					fmt.Fprintln(c.out, p)
				}
				for _, p := range notes {
					fmt.Fprintln(c.out, "note: "+p.String())
				}
				if problems == nil {
					fmt.Fprintf(c.out, "%s, nothing is wrong\n", plural(n, "contract"))
				}
			}
			if err == nil && problems != nil {
				err = fmt.Errorf("lint contracts: %s", plural(len(problems), "problem"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) contractLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [DIR]",
		Short: "List the contracts",
		Long: `Lists the contracts of DIR (default: this folder): the event type, the contract's
version, status and mode, who owns it, how many fields it has and how many of
them hold personal data.`,
		Example: `  naru contract ls
  naru contract ls analytics --json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := contracts(args)
			if err != nil {
				return err
			}
			if asJSON {
				return c.printJSON(append([]*contract.Contract{}, set.Contracts...))
			}
			w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TYPE\tVERSION\tSTATUS\tMODE\tOWNER\tFIELDS\tPERSONAL\tFILE")
			for _, one := range set.Contracts {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s:%d\n", line(one.Type), line(one.Version), line(one.Status), one.Mode, line(dash(one.Owner)),
					len(one.Fields), one.Personal(), one.File, one.Line)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// line keeps a text of a contract on one line and harmless to a terminal.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

func (c *cli) contractShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show TYPE [DIR]",
		Short: "Show the contract of an event type",
		Long: `Shows the contract of one event type of DIR (default: this folder): whom to ask,
what was promised, where the data comes from, and every field with its rules.`,
		Example: `  naru contract show page_view
  naru contract show page_view analytics --json`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := contracts(args[1:])
			if err != nil {
				return err
			}
			one := set.For(args[0])
			for _, other := range set.Contracts {
				if one == nil && other.Type == args[0] { // retired
					one = other
				}
			}
			if one == nil {
				return fault.WithHint(fmt.Errorf("show contract: there is none for the type %q", args[0]), "naru contract ls lists them")
			}
			if asJSON {
				return c.printJSON(one)
			}
			return c.showContract(one)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) showContract(one *contract.Contract) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, line(value))
		}
	}
	row("type", one.Type)
	row("description", one.Description)
	row("contract", fmt.Sprintf("%s, version %s, %s, hash %s", one.ID, one.Version, one.Status, one.Hash))
	row("file", fmt.Sprintf("%s:%d", one.File, one.Line))
	row("mode", fmt.Sprintf("%s, unknown fields %s", one.Mode, one.Unknown))
	row("table", one.Table)
	row("partition", strings.Join(one.Partition, ", "))
	row("sort", strings.Join(one.Sort, ", "))
	row("JSON in strings", strings.Join(one.JSONStrings, ", "))
	row("owner", dash(one.Owner))
	row("team", one.Team)
	for _, s := range one.Support {
		row("ask at", strings.TrimSpace(strings.Join([]string{s.Channel, s.Tool, s.URL}, " ")))
	}
	for _, s := range one.SLA {
		row("promised", strings.TrimSpace(strings.Join([]string{s.Property, s.Value, s.Unit, s.Element}, " ")))
	}
	if in := one.Ingest; in != (contract.Ingestion{}) {
		row("from", strings.TrimSpace(strings.Join([]string{in.SourceHost, in.SourceDatabase, in.Type, in.JobID}, " ")))
		if in.FrequencyMin > 0 {
			row("every", plural(in.FrequencyMin, "minute"))
		}
		row("source owner", in.SourceOwner)
		row("ingestion owner", in.IngestionOwner)
	}
	row("tags", strings.Join(one.Tags, ", "))
	row("primary key", strings.Join(one.PrimaryKey, ", "))
	row("unique", strings.Join(one.Unique, ", "))
	fmt.Fprintln(w, "\nFIELD\tTYPE\tCOLUMN\tREQUIRED\tRULES\tPERSONAL\tLINE")
	for _, f := range one.Fields {
		var rules []string
		for _, r := range f.Rules {
			rules = append(rules, r.String())
		}
		personal := ""
		if f.Personal {
			personal = "yes"
		}
		if f.PII != contract.PIINone {
			personal = string(f.PII)
		}
		required := ""
		if f.Required {
			required = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", line(f.Path), f.Type, f.Column, required, line(strings.Join(rules, "; ")), personal, f.Line)
	}
	return w.Flush()
}
