package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/vfs"
)

func (c *cli) checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Find everything that is wrong in a folder, without starting it",
		Long: `Reads the settings, the contracts and the pipelines of DIR (default: this folder) and
names everything that is wrong, each with its file, line, key and cure; a misspelt key
with the nearest one that exists. The steps of pipelines are held against the columns
that events have had. Columns of tables that have another type than a contract wants
are noted. It changes nothing. The exit code is 1 if anything is wrong.`,
		Example: `  naru check
  naru check analytics --json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := folder(args)
			if err != nil {
				return err
			}
			problems, notes, err := inspect(cmd.Context(), vfs.OS(), f)
			if err != nil {
				return fmt.Errorf("check %s: %w", f, err)
			}
			if asJSON {
				err = c.printJSON(struct {
					Problems config.Problems `json:"problems"`
					Notes    []string        `json:"notes"`
				}{problems, notes})
			} else {
				for _, p := range problems {
					fmt.Fprintln(c.out, p)
				}
				for _, n := range notes {
					fmt.Fprintln(c.out, "note: "+n)
				}
				if len(problems) == 0 {
					fmt.Fprintln(c.out, "nothing is wrong")
				}
			}
			if err == nil && len(problems) > 0 {
				err = fmt.Errorf("check %s: %s", f, plural(len(problems), "problem"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inspect gives everything that is wrong, and what should be known besides.
func inspect(ctx context.Context, fsys vfs.FS, f config.Folder) (config.Problems, []string, error) {
	problems, notes := config.Problems{}, []string{}
	info, err := fsys.Stat(string(f))
	if err == nil && !info.IsDir() {
		return nil, nil, errors.New("not a folder")
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := fsys.Stat(f.Settings()); errors.Is(err, fs.ErrNotExist) {
		notes = append(notes, "there is no "+config.FileName+": the defaults hold")
	}
	settings, err := config.Load(fsys, f)
	if err != nil && !errors.As(err, &problems) {
		return nil, nil, err
	}
	if _, err := app.Whereabouts(fsys, f); err != nil {
		problems = append(problems, config.Problem{File: "data", Text: err.Error()})
	}
	contracts, err := contract.Load(fsys, f.Contracts())
	if err != nil {
		return nil, nil, err
	}
	set, wrong := contract.Compile(contracts)
	for _, p := range wrong {
		problems = append(problems, config.Problem(p))
	}
	if set != nil {
		for _, n := range set.Notes {
			notes = append(notes, n.String())
		}
		var more config.Problems
		if settings != nil && errors.As(settings.PII.Allow(set), &more) {
			problems = append(problems, more...)
		}
		if settings != nil && len(problems) == 0 {
			apart, err := app.Apart(ctx, f, settings.Lake, set)
			for _, n := range apart {
				notes = append(notes, n.String())
			}
			if err != nil {
				notes = append(notes, "tables were not held against the contracts: "+err.Error())
			}
		}
	}
	more, note, err := inspectPipelines(ctx, f, settings)
	if err != nil {
		return nil, nil, err
	}
	problems = append(problems, more...)
	if note != "" {
		notes = append(notes, note)
	}
	for _, p := range f.Projects() {
		if p.Name == filepath.Base(f.Contracts()) || p.Name == filepath.Base(f.Pipelines()) {
			continue
		}
		names, err := fsys.List(filepath.Join(string(f), p.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, ".") {
				notes = append(notes, filepath.Join(p.Name, name)+" is not read: this version has nothing for "+p.Name+"/")
			}
		}
	}
	return problems, notes, nil
}

// inspectPipelines gives what is wrong in the folder pipelines/, and what could not be
// checked.
func inspectPipelines(ctx context.Context, f config.Folder, settings *config.Config) (config.Problems, string, error) {
	w, err := readPipelines(f)
	if err != nil || len(w.defs) == 0 || settings == nil {
		return w.wrong, "", err
	}
	if err := w.open(ctx, *settings, true); err != nil {
		return w.wrong, "the steps of pipelines were not checked: " + err.Error(), nil
	}
	w.check(ctx)
	return w.wrong, "", w.close()
}

func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
