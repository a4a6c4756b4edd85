package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/client/records"
	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/query"
)

func (c *cli) contractInit() *cobra.Command {
	var (
		server   *server
		fromData bool
		file     string
		stream   = event.DefaultStream
		most     = 10_000
	)
	cmd := &cobra.Command{
		Use:   "init --from-data TYPE",
		Short: "Draft a contract from events",
		Long: `Prints a first contract of TYPE, made of events that there are: their fields with
types, which are always there, which have few values, how long texts and how
large numbers get, with room above. The events are the newest of TYPE in the
running server's stream (in the table of its name, and in that which a contract of
it names by naru.table), or those of --file (NDJSON, JSON, CSV; - is standard
input), which are all taken as of TYPE.

All of those events keep the draft. Read it: what was seen is not what is meant.`,
		Example: `  naru contract init --from-data page_view > contracts/page_view.odcs.yaml
  naru contract init --from-data edit --file edits.ndjson.gz`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !fromData && file == "" {
				return asUsage(cmd, errors.New("say --from-data TYPE"))
			}
			if most < 1 {
				return asUsage(cmd, errors.New("--events is at least 1"))
			}
			sample, err := func() (*contract.Sample, error) {
				if file != "" {
					return c.sampleFile(file, most)
				}
				soft, _, stop := interrupts(cmd.Context())
				defer stop()
				remote, err := server.client()
				if err != nil {
					return nil, err
				}
				return sampleServer(soft, remote, stream, args[0], most)
			}()
			if err == nil && sample.Events() == 0 {
				err = fault.WithHint(errors.New("there are no events of this type"), "naru tail %s shows what there is; --file takes events from a file", stream)
			}
			if err != nil {
				return fmt.Errorf("draft contract of %s: %w", args[0], err)
			}
			if n := sample.Bad(); n > 0 {
				fmt.Fprintf(c.err, "%s left out: no JSON objects\n", plural(n, "event"))
			}
			_, err = c.out.Write(sample.Draft(args[0]))
			return err
		},
	}
	server = c.serverFlag(cmd)
	cmd.Flags().BoolVar(&fromData, "from-data", false, "make it of what was collected")
	cmd.Flags().StringVar(&file, "file", "", "take events from a file, or - for standard input, not from the server")
	cmd.Flags().StringVar(&stream, "stream", stream, "the server's stream")
	cmd.Flags().IntVar(&most, "events", most, "look at so many events at most")
	return cmd
}

func (c *cli) sampleFile(name string, most int) (*contract.Sample, error) {
	in := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	sample := contract.NewSample()
	r, err := records.NewReader(in, name, records.Auto)
	if errors.Is(err, io.EOF) {
		return sample, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for sample.Events()+sample.Bad() < most {
		var rec records.Record
		if err := r.Next(&rec); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		sample.Add(rec.Line)
	}
	return sample, nil
}

// sampleServer finds where the newest events of the type begin by SQL, and reads
// them as they were sent from the log: a table no longer shows how they nested.
func sampleServer(ctx context.Context, remote *client.Client, stream, typ string, most int) (*contract.Sample, error) {
	from, err := firstOffset(ctx, remote, stream, typ, most)
	if err != nil {
		return nil, err
	}
	sample := contract.NewSample()
	body, err := remote.Tail(ctx, stream, client.TailOptions{From: from, Last: -1})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	in := bufio.NewReaderSize(body, 64<<10)
	for sample.Events()+sample.Bad() < most {
		line, err := in.ReadBytes('\n') // bounded by the server's largest event
		if bytes.HasPrefix(line, errorLine) {
			return nil, errors.New(strings.TrimSpace(string(line)))
		}
		var e struct {
			Type string          `json:"_type"`
			Data json.RawMessage `json:"data"`
		}
		if len(line) > 0 && json.Unmarshal(line, &e) == nil && e.Type == typ {
			sample.Add(e.Data)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the answer was cut off: %w", err)
		}
	}
	return sample, nil
}

// firstOffset gives the offset of the oldest of the newest events of a type.
func firstOffset(ctx context.Context, remote *client.Client, stream, typ string, most int) (string, error) {
	tables, err := tablesOf(ctx, remote, stream, typ)
	if err != nil || len(tables) == 0 {
		return "end", err
	}
	var parts []string
	for _, name := range tables {
		parts = append(parts, fmt.Sprintf("select _offset, _received_at from %s.%s where _type = '%s'", quoted(stream), quoted(name), strings.ReplaceAll(typ, "'", "''")))
	}
	rows, err := rowsOf[*int64](ctx, remote, fmt.Sprintf("select min(_offset) from (select _offset from (%s) order by _received_at desc, _offset desc limit %d)",
		strings.Join(parts, " union all "), most))
	if err != nil {
		return "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 || rows[0][0] == nil {
		return "end", nil
	}
	return strconv.FormatInt(*rows[0][0], 10), nil
}

// tablesOf are the tables that may have events of a type: that of its name, the one
// that its contract names, which may be newer or older than the other, and _other.
func tablesOf(ctx context.Context, remote *client.Client, stream, typ string) ([]string, error) {
	text, err := remote.Status(ctx)
	if err != nil {
		return nil, err
	}
	var st struct {
		Contracts struct{ Tables map[string]string }
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("read the server's status: %w", err)
	}
	there, err := rowsOf[string](ctx, remote, "SHOW TABLES")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, row := range there {
		if len(row) == 2 && row[0] == stream && (row[1] == lake.TableName(typ) || row[1] == st.Contracts.Tables[typ] || row[1] == lake.OtherTable) {
			out = append(out, row[1])
		}
	}
	return out, nil
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// rowsOf gives the rows of a query whose values are all of one type.
func rowsOf[T any](ctx context.Context, remote *client.Client, sql string) ([][]T, error) {
	body, err := remote.Query(ctx, sql, query.JSON.MediaType())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var answer struct{ Rows [][]T }
	if err := json.NewDecoder(body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer.Rows, nil
}
