package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"naru/internal/client"
)

func (c *cli) tailCommand() *cobra.Command {
	o := client.TailOptions{}
	var server *server
	cmd := &cobra.Command{
		Use:   "tail STREAM",
		Short: "Show the last events of a stream, and those that come",
		Long: `Prints events of STREAM as NDJSON, in the order of the log: the envelope under
the names of the table's columns (_id, _type, _time, _offset, ...), and the event
itself under data, as it was sent. The stream rejected holds what was refused,
with the reason.

An event is shown as soon as it is acknowledged, before it is in its table.`,
		Example: `  naru tail events
  naru tail events --follow
  naru tail rejected -n 100
  naru tail events --from start | head`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("from") && cmd.Flags().Changed("lines") {
				return asUsage(cmd, errors.New("--from and -n exclude each other"))
			}
			soft, _, stop := interrupts(cmd.Context())
			defer stop()
			remote, err := server.client()
			if err != nil {
				return err
			}
			err = func() error {
				body, err := remote.Tail(soft, args[0], o)
				if err != nil {
					return err
				}
				defer body.Close()
				return copyLines(c.out, body, o.Follow)
			}()
			if soft.Err() != nil {
				return nil // Ctrl-C is how a tail ends
			}
			if err != nil {
				return fmt.Errorf("tail %s: %w", args[0], err)
			}
			return nil
		},
	}
	server = c.serverFlag(cmd)
	f := cmd.Flags()
	f.IntVarP(&o.Last, "lines", "n", 10, "so many events before the end")
	f.StringVar(&o.From, "from", "", "begin at start, at end, at an offset, or at a position INCARNATION/PARTITION/OFFSET")
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with events as they come")
	return cmd
}

// errorLine begins the last line of an answer that is not whole.
var errorLine = []byte(`{"error":`)

// copyLines prints the lines of an answer as they come. The answer's own last
// line {"error": ...} becomes the error.
func copyLines(out io.Writer, body io.Reader, endless bool) error {
	in := bufio.NewReaderSize(body, 64<<10)
	w := bufio.NewWriterSize(out, 64<<10)
	var said error
	for {
		line, err := in.ReadBytes('\n') // bounded by the server's largest event
		if bytes.HasPrefix(line, errorLine) {
			var e struct{ Error string }
			if json.Unmarshal(line, &e) == nil {
				said, line = errors.New(e.Error), nil
			}
		}
		if _, werr := w.Write(line); werr != nil {
			return werr
		}
		if in.Buffered() == 0 || err != nil {
			if werr := w.Flush(); werr != nil {
				return werr
			}
		}
		switch {
		case err == nil:
			continue
		case said != nil:
			return said
		case err != io.EOF:
			return fmt.Errorf("the answer was cut off: %w", err)
		case endless:
			return errors.New("the server has ended the answer: it is being stopped")
		}
		return nil
	}
}
