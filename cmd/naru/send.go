package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"naru/internal/client"
	"naru/internal/client/records"
	"naru/internal/client/upload"
	"naru/internal/fault"
	"naru/internal/vfs"
)

// sending is naru send's flags.
type sending struct {
	c      *cli
	server *server
	opts   upload.Options
	format string
	state  string

	restart, strict, asJSON bool
}

func (c *cli) sendCommand() *cobra.Command {
	s := &sending{c: c, opts: upload.DefaultOptions()}
	cmd := &cobra.Command{
		Use:   "send FILE|-",
		Short: "Send a file of events",
		Long: `Sends the events of a file, or of standard input (-), in order and in batches.

Formats: NDJSON; a JSON array, or JSON objects one behind the other; CSV and TSV
with a header. Plain, gzip or zstd. The name tells (.ndjson .jsonl .json .csv
.tsv, and .gz .zst behind them), then the first bytes, unless --format does.

CSV: a value that is a JSON number, true or false becomes one; an empty value
becomes null; everything else is text, so leading zeros stay. A column without
a name is column_N, a second column of a name gets _2. A row that does not fit
the header is not dropped: the server refuses it and keeps it in rejected, as a
list of the row's text and of what is wrong with it.

Ids: record N gets an id made of the file's name, size and first MiB, and N. A
record that is sent twice has the same id twice, so it is known as a duplicate.
Standard input gets ids that are new in every run.

Going on: what was acknowledged is noted in a small file in the user's cache
folder (or --state FILE), by the file's path, size and time, and by the server,
stream and type. The same command goes on behind that, and has nothing to do
once all was sent. --restart sends from the beginning. A file that has changed
is another file.

Errors that may pass (nobody listens, 429, 503) are tried again for --retry-for.
Others stop with the server's text and the records' numbers. Refused events are
shown, the first ten; they make the exit code 1 with --strict only.`,
		Example: `  naru send --type edit edits.ndjson.gz
  naru send --type impression impressions.csv
  tail -f app.log.ndjson | naru send --stream logs -`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			soft, hard, stop := interrupts(cmd.Context())
			defer stop()
			err := s.run(soft, hard, args[0])
			if errors.Is(err, upload.ErrInterrupted) && args[0] != "-" {
				err = fault.WithHint(err, "the same command goes on where this one stopped")
			}
			if err != nil {
				return fmt.Errorf("send %s: %w", args[0], err)
			}
			return nil
		},
	}
	s.server = c.serverFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&s.opts.Stream, "stream", "", `stream to send to (default the server's: events)`)
	f.StringVar(&s.opts.Type, "type", "", "type of the events (default: each event's own field type or event)")
	f.StringVar(&s.opts.Source, "source", "", "source of the events (default the server's)")
	f.StringVar(&s.format, "format", "", "ndjson, json, csv or tsv (default: told by the name, or the first bytes)")
	f.StringVar(&s.opts.IDPrefix, "id-prefix", "", "record N gets the id PREFIX followed by N (default: made of the file)")
	f.IntVar(&s.opts.BatchBytes, "batch-bytes", s.opts.BatchBytes, "size of a request")
	f.IntVar(&s.opts.BatchRecords, "batch-events", s.opts.BatchRecords, "events in a request")
	f.DurationVar(&s.opts.RetryFor, "retry-for", s.opts.RetryFor, "how long to try a batch again after errors that may pass")
	f.StringVar(&s.state, "state", "", "file that notes what was acknowledged (default: one in the user's cache folder)")
	f.BoolVar(&s.restart, "restart", false, "forget what was acknowledged and send from the beginning")
	f.BoolVar(&s.strict, "strict", false, "exit with 1 if an event was refused")
	f.BoolVar(&s.asJSON, "json", false, "print the result as JSON")
	return cmd
}

// sent is what naru send --json prints.
type sent struct {
	File    string  `json:"file"`
	Done    bool    `json:"done"`
	Nothing bool    `json:"nothing_to_do"`
	Seconds float64 `json:"seconds"`
	upload.Result
}

func (s *sending) run(soft, hard context.Context, name string) (err error) {
	if s.opts.BatchBytes < 1 || s.opts.BatchRecords < 1 {
		return usageError{errors.New("--batch-bytes and --batch-events must be at least 1")}
	}
	format, err := records.ParseFormat(s.format)
	if err != nil {
		return usageError{err}
	}
	door, err := s.server.client()
	if err != nil {
		return err
	}
	in, size, state, err := s.open(soft, name, door)
	if err != nil {
		return err
	}
	defer in.Close()
	if state != nil && state.Done {
		return s.nothing(name, state)
	}
	source, err := records.NewReader(in, name, format)
	if err != nil {
		return err
	}
	if s.opts.Blocking = name == "-"; !s.opts.Blocking {
		defer source.Close()
	}

	bar := newProgress(s.c, size, source.Consumed)
	s.opts.Observe = bar.observe
	if state != nil && state.Records > 0 {
		fmt.Fprintf(s.c.err, "going on behind %d records that were acknowledged earlier\n", state.Records)
	}
	began := time.Now()
	result, err := upload.New(door, source, s.opts, state).Run(hard, soft.Done())
	bar.end()
	if perr := s.report(name, result, time.Since(began), err == nil); err == nil {
		err = perr
	}
	if err == nil && s.strict && result.Rejected > 0 {
		err = fmt.Errorf("%s refused", plural(int(result.Rejected), "event"))
	}
	return err
}

// open opens the input and finds out what of it was acknowledged: nil for
// standard input, of which nothing is kept.
func (s *sending) open(ctx context.Context, name string, door *client.Client) (io.ReadCloser, int64, *upload.State, error) {
	if name == "-" {
		if s.opts.IDPrefix == "" {
			s.opts.IDPrefix = rand.Text() + ":"
		}
		return io.NopCloser(s.c.in), 0, nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, nil, err
	}
	state, size, err := s.prepare(ctx, f, door)
	if err != nil {
		return nil, 0, nil, errors.Join(err, f.Close())
	}
	return f, size, state, nil
}

func (s *sending) prepare(ctx context.Context, f *os.File, door *client.Client) (*upload.State, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fault.WithHint(errors.New("not a regular file"), "send what a pipe gives with -")
	}
	if s.opts.IDPrefix == "" {
		if s.opts.IDPrefix, err = upload.IDPrefix(f.Name(), info.Size(), f); err != nil {
			return nil, 0, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, 0, err
		}
	}
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return nil, 0, err
	}
	folder, err := s.folderID(ctx, door)
	if err != nil {
		return nil, 0, err
	}
	key := upload.Key{File: path, Size: info.Size(), Modified: info.ModTime().UTC(), URL: door.URL(), Folder: folder,
		Stream: s.opts.Stream, Type: s.opts.Type, Source: s.opts.Source, Format: s.format, IDPrefix: s.opts.IDPrefix}
	at := s.state
	if at == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, 0, fault.WithHint(fmt.Errorf("find cache folder: %w", err), "name a file with --state")
		}
		if at, err = upload.StatePath(filepath.Join(cache, "naru", "send"), key); err != nil {
			return nil, 0, err
		}
	}
	state, err := upload.OpenState(vfs.OS(), at, key, s.restart)
	return state, info.Size(), err
}

// folderID asks which folder the server works on: what one folder has
// acknowledged says nothing about another that took its address over.
func (s *sending) folderID(ctx context.Context, door *client.Client) (string, error) {
	var text json.RawMessage
	err := upload.Retry(ctx, s.opts.RetryFor, func() (err error) {
		text, err = door.Status(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	var st struct {
		Folder struct {
			ID string `json:"id"`
		} `json:"folder"`
	}
	if err := json.Unmarshal(text, &st); err != nil || st.Folder.ID == "" {
		return "", fault.WithHint(errors.New("the server's status names no folder"), "is %s a naru server?", door.URL())
	}
	return st.Folder.ID, nil
}

// nothing reports an input that was sent whole by an earlier run.
func (s *sending) nothing(name string, st *upload.State) error {
	if s.asJSON {
		return s.c.printJSON(sent{File: name, Done: true, Nothing: true, Result: upload.Result{Skipped: st.Records, Refusals: []upload.Refusal{}}})
	}
	fmt.Fprintf(s.c.out, "nothing to do: all %d records of %s were acknowledged by %s (%d accepted, %d rejected); --restart sends them again\n",
		st.Records, name, st.Updated.Local().Format(time.DateTime), st.Accepted, st.Rejected)
	return nil
}

func (s *sending) report(name string, r upload.Result, took time.Duration, done bool) error {
	if s.asJSON {
		return s.c.printJSON(sent{File: name, Done: done, Seconds: took.Seconds(), Result: r})
	}
	for _, x := range r.Refusals {
		at := fmt.Sprintf("record %d", x.Record)
		if x.Line > 0 {
			at += fmt.Sprintf(", line %d", x.Line)
		}
		fmt.Fprintf(s.c.err, "rejected: %s: %s: %s\n", at, x.Reason, x.Detail)
	}
	if more := r.Rejected - int64(len(r.Refusals)); more > 0 && r.Rejected > 0 {
		fmt.Fprintf(s.c.err, "rejected: %d more; all are in the stream and table rejected\n", more)
	}
	if r.Repaired > 0 {
		fmt.Fprintf(s.c.err, "note: %d records had text that is not UTF-8; U+FFFD stands in for it\n", r.Repaired)
	}
	fmt.Fprintf(s.c.out, "sent %d events in %s: %d accepted, %d rejected\n", r.Accepted+r.Rejected, took.Round(time.Millisecond), r.Accepted, r.Rejected)
	return nil
}
