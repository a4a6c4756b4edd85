package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/pipeline/definition"
	"naru/internal/pipeline/proof"
	"naru/internal/problem"
	"naru/internal/spelling"
	"naru/internal/transform"
	"naru/internal/vfs"
)

// workshop is the pipelines of a folder as their files are, and what computes their
// steps, without a server.
type workshop struct {
	folder config.Folder
	defs   map[string]*definition.Definition
	wrong  problem.List // in files that have mistakes, which are not in defs
	engine transform.Engine
	close  func() error
}

// openWorkshop reads the folder. known is as in app.OpenSteps.
func openWorkshop(ctx context.Context, dir string, known bool) (*workshop, error) {
	f, err := folder([]string{dir})
	if err != nil {
		return nil, err
	}
	settings, err := config.Load(vfs.OS(), f)
	if err != nil {
		return nil, fmt.Errorf("read settings of %s:\n%w", f, err)
	}
	w, err := readPipelines(f)
	if err == nil {
		err = w.open(ctx, *settings, known)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// readPipelines reads the files.
func readPipelines(f config.Folder) (w *workshop, err error) {
	w = &workshop{folder: f}
	w.defs, w.wrong, err = definition.Load(vfs.OS(), f.Pipelines(), app.Kinds(nil))
	return w, err
}

// open makes ready what computes steps.
func (w *workshop) open(ctx context.Context, settings config.Config, known bool) error {
	steps, closed, err := app.OpenSteps(ctx, w.folder, settings, known)
	w.engine, w.close = steps, closed
	return err
}

// pipelineFile is how a pipeline's file is named in messages.
func pipelineFile(name string) string { return "pipelines/" + name + ".yaml" }

// check adds what is wrong with the steps and tests of a pipeline, or of all, and takes
// those out that cannot be run.
func (w *workshop) check(ctx context.Context, names ...string) {
	for _, name := range slices.Sorted(maps.Keys(w.defs)) {
		def := w.defs[name]
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		more := w.engine.Check(ctx, pipelineFile(name), def.Program(), transform.Input{Stream: def.From.Stream, Types: def.From.Types})
		more = append(more, proof.Check(pipelineFile(name), def)...)
		if len(more) > 0 {
			w.wrong = append(w.wrong, more.Sorted()...)
			delete(w.defs, name)
		}
	}
}

// named gives one pipeline.
func (w *workshop) named(name string) (*definition.Definition, error) {
	if def := w.defs[name]; def != nil {
		return def, nil
	}
	var own problem.List
	near := ""
	for _, p := range w.wrong {
		if p.File == pipelineFile(name) || p.File == "pipelines/"+name+".yml" {
			own = append(own, p)
		}
	}
	if len(own) > 0 {
		return nil, own
	}
	for other := range w.defs {
		if spelling.Distance(other, name) <= 2 {
			near = "; did you mean " + other + "?"
		}
	}
	return nil, fault.WithHint(fmt.Errorf("there is no %s in %s%s", pipelineFile(name), w.folder, near), "--dir names another folder")
}

func (c *cli) pipelineTest() *cobra.Command {
	var asJSON bool
	dir := "."
	cmd := &cobra.Command{
		Use:   "test [NAME]...",
		Short: "Run the tests of pipelines, without a server",
		Long: `Runs the tests that stand in the files of pipelines (default: of all), without a
server and without sinks: the steps are computed over the input events of a test, and
the rows that come are compared with those wanted.

An input is an event's data, or an event with the key data: {type, id, time, source,
subject, data}. Its type is the first of from.types, if it names none. Of rows only
the columns that a test names are compared, in the order of the rows; numbers by
their value, and null is the same as absent. rejections is how many events are to
be refused.

The columns of the input are those that the test's own events have, wherever the test
runs; tables that steps join are those of the folder. The exit code is 1 when a
test fails or cannot be run.`,
		Example: `  naru pipeline test
  naru pipeline test edits --dir analytics
  naru pipeline test --json | jq '.[] | select(.passed | not)'`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx, _, stop := interrupts(cmd.Context())
			defer stop()
			w, err := openWorkshop(ctx, dir, false)
			if err != nil {
				return fmt.Errorf("test pipelines: %w", err)
			}
			defer func() { err = errors.Join(err, w.close()) }()
			w.check(ctx, args...)
			names, wrong := args, problem.List(nil)
			if len(names) == 0 {
				names, wrong = slices.Sorted(maps.Keys(w.defs)), w.wrong
			}
			all := []proof.Result{}
			for _, name := range names {
				def, err := w.named(name)
				if own := problem.List(nil); errors.As(err, &own) {
					wrong = append(wrong, own...)
					continue
				}
				if err != nil {
					return fmt.Errorf("test pipelines: %w", err)
				}
				if len(def.Tests) == 0 && !asJSON {
					fmt.Fprintf(c.out, "%s: no tests\n", name)
				}
				some := proof.Run(ctx, w.engine, pipelineFile(name), def)
				if !asJSON {
					if err := c.showTrials(some); err != nil {
						return err
					}
				}
				all = append(all, some...)
			}
			if asJSON {
				if err := c.printJSON(all); err != nil {
					return err
				}
			}
			return trialsFailed(all, wrong)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "the project's folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// trialsFailed sums up; nil: all have passed.
func trialsFailed(all []proof.Result, wrong problem.List) error {
	failed := 0
	for _, r := range all {
		if !r.Passed {
			failed++
		}
	}
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("test pipelines: %s:\n%w", plural(len(wrong), "problem"), wrong)
	case failed > 0:
		return fmt.Errorf("test pipelines: %d of %s failed", failed, plural(len(all), "test"))
	}
	return nil
}

func (c *cli) showTrials(all []proof.Result) error {
	for _, r := range all {
		switch {
		case r.Passed:
			fmt.Fprintf(c.out, "%s: %s: passed\n", r.Pipeline, r.Test)
			continue
		case r.Error != "":
			fmt.Fprintf(c.out, "%s: %s: FAILED (%s)\n  %s\n", r.Pipeline, r.Test, r.Place, oneLine(r.Error))
			continue
		}
		fmt.Fprintf(c.out, "%s: %s: FAILED (%s)\n", r.Pipeline, r.Test, r.Place)
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  \twant\tgot")
		for _, d := range r.Differences {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", d.Where, oneLine(d.Want), oneLine(d.Got))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
