package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"naru/internal/config"
	"naru/internal/vfs"
)

func (c *cli) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init DIR",
		Short: "Make a folder a project, with settings to edit",
		Long: `Makes DIR a naru project: a naru.yaml that shows every setting with its
default, a .gitignore, and the folders that belong to git. It overwrites
nothing. A folder needs none of this: naru serve works in an empty one.`,
		Example: `  naru init analytics
  naru serve analytics`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := folder(args)
			if err != nil {
				return err
			}
			if err := config.Init(vfs.OS(), f); err != nil {
				return fmt.Errorf("init %s: %w", args[0], err)
			}
			fmt.Fprintf(c.out, "made %s\nstart it with: naru serve %s\n", f.Settings(), args[0])
			return nil
		},
	}
}
