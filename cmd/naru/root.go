package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/config"
	"naru/internal/fault"
)

// commands builds the whole command line.
func (c *cli) commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "naru",
		Short: "Events in, tables and answers out",
		Long: `naru takes in events over HTTP, keeps them durably, turns them into Apache
Iceberg tables, exactly once, and answers SQL about them. It is one program and
one folder; an empty folder will do.

  naru serve mydata                            start the server on 127.0.0.1:8080
  naru send --type edit edits.ndjson.gz        send a file of events
  naru query 'select count(*) from edit'       ask
  naru tail events --follow                    watch events come in
  naru status                                  what every stream and table has and lacks

An event of type page_view that is sent to the stream events becomes a row of
the table events.page_view; SQL finds it as page_view, from its acknowledgement on.

Where the server is: client commands (send, tail, query, status, rejected, pipeline) take --url, or
the variable NARU_URL; the default is http://127.0.0.1:8080.

Exit codes:
  0  done, or nothing to do
  1  it went wrong; the cause and a hint are on standard error
  2  the command line cannot be understood
  3  the log could not be written (a failed write or fsync); the next start
     recovers what was acknowledged
  4  interrupted before the end: naru send goes on when it is called again;
     naru serve was cut by a second signal before its stop was complete`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			err := usageError{fmt.Errorf("%q is not a command", args[0])}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return fault.WithHint(err, "did you mean naru %s? naru help lists all", near[0])
			}
			return fault.WithHint(err, "naru help lists all")
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(asUsage)
	root.AddCommand(
		c.initCommand(), c.serveCommand(), c.checkCommand(),
		c.sendCommand(), c.tailCommand(), c.queryCommand(), c.statusCommand(), c.rejectedCommand(), c.pipelineCommand(),
		c.tableCommand(), c.contractCommand(), c.piiCommand(), c.logCommand(), c.backupCommand(), c.verifyCommand(), c.benchCommand(), c.versionCommand(),
	)
	return root
}

// group makes a command that only holds others.
func group(cmd *cobra.Command, sub ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return asUsage(cmd, fmt.Errorf("naru %s has no %q", cmd.Name(), args[0]))
	}
	cmd.AddCommand(sub...)
	return cmd
}

// server is the flag --url of client commands.
type server struct {
	c   *cli
	url string
}

func (c *cli) serverFlag(cmd *cobra.Command) *server {
	s := &server{c: c}
	cmd.Flags().StringVar(&s.url, "url", "", "the server's address (default NARU_URL, else "+client.DefaultURL+")")
	return s
}

func (s *server) client() (*client.Client, error) {
	url := s.url
	if url == "" {
		url = s.c.getenv("NARU_URL")
	}
	if url == "" {
		url = client.DefaultURL
	}
	return client.New(url)
}

// folder is the argument DIR of commands that work on a folder.
func folder(args []string) (config.Folder, error) {
	dir := "."
	if len(args) > 0 {
		dir = args[0]
	}
	return config.OpenFolder(dir)
}
