package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/fault"
	"naru/internal/query"
)

func (c *cli) queryCommand() *cobra.Command {
	var server *server
	format := string(query.Table)
	cmd := &cobra.Command{
		Use:   `query "SQL"|-`,
		Short: "Ask a question in SQL",
		Long: `Asks the server one statement of DuckDB's SQL and prints the answer. With - the
statement comes from standard input.

A table is STREAM.TYPE, as in events.page_view; without the stream the stream
events is looked at first. Every table has the columns _id _type _source
_subject _time _received_at _log _partition _offset, those of its events' fields
(nested ones joined with _), and _rescued. SHOW TABLES lists the tables; DESCRIBE
shows the columns of one.

Formats: table for people; json, ndjson, csv, tsv for programs; markdown for
documents.`,
		Example: `  naru query 'show tables'
  naru query 'select channel, count(*) n from edit group by 1 order by n desc limit 5'
  naru query --format csv 'from edit limit 10' > edits.csv
  naru query - < report.sql`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := query.ParseFormat(format)
			if err != nil {
				return asUsage(cmd, err)
			}
			statement := args[0]
			if statement == "-" {
				text, err := io.ReadAll(io.LimitReader(c.in, 16<<20))
				if err != nil {
					return fmt.Errorf("read statement: %w", err)
				}
				statement = string(text)
			}
			if strings.TrimSpace(statement) == "" {
				return asUsage(cmd, fmt.Errorf("the statement is empty"))
			}
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			remote, err := server.client()
			if err != nil {
				return err
			}
			body, err := remote.Query(soft, statement, query.JSON.MediaType())
			if err != nil {
				return fmt.Errorf("query: %w", err)
			}
			defer body.Close()
			rows, err := query.DecodeJSON(body)
			if err == nil {
				err = query.Copy(query.NewWriter(f, c.out), rows)
			}
			if err != nil {
				return fault.WithHint(fmt.Errorf("query: %w", err), "what was printed is not the whole answer")
			}
			return nil
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().StringVar(&format, "format", format, "table, json, ndjson, csv, tsv or markdown")
	_ = cmd.RegisterFlagCompletionFunc("format", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, f := range query.Formats {
			names = append(names, string(f))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}
