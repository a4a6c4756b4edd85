package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"naru/internal/app"
	"naru/internal/collect"
	"naru/internal/config"
	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/vfs"
)

// errCut: a second signal ended the server before it had stopped.
var errCut = errors.New("cut by a second signal")

// errInterrupted: a signal ended a command before its work was done.
var errInterrupted = errors.New("interrupted")

func (c *cli) serveCommand() *cobra.Command {
	var listen string
	var noPipelines, dev bool
	cmd := &cobra.Command{
		Use:   "serve [DIR]",
		Short: "Run the server",
		Long: `Runs the server on DIR (default: this folder; made if it is not there). What it
writes goes to DIR/data. Settings come from DIR/naru.yaml, if there is one.

It prints "ready http://HOST:PORT" on standard output once events are taken;
logs go to standard error. The page at that address shows what it answers.

One server works on a folder at a time. A folder that was moved or copied is
refused: its tables hold absolute paths.

SIGINT, SIGTERM or SIGHUP stops it: new requests get 503, those in flight get 10s,
tables commit what they hold (pipelines.drain_timeout, 20s by default; what is
not committed is loaded at the next start), and the exit code is 0. A second
signal cuts: nothing acknowledged is lost by that either.

With --dev every event that comes is shown on standard output, accepted or
rejected, with the reason, as far as people can read: 20 accepted and 40 rejected
a second, and how many more there were. Showing never makes the door wait.

Memory: the Go runtime collects at process.gc_percent (50 by default, half of
Go's own, because the live heap is small) and heeds process.memory_limit; the
variables GOGC and GOMEMLIMIT go first. DuckDB has query.memory beside that.`,
		Example: `  naru serve
  naru serve mydata --listen 127.0.0.1:0
  naru serve mydata --dev               show events and what is wrong with them
  naru serve mydata --no-pipelines      take events in, load no tables`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := folder(args)
			if err != nil {
				return err
			}
			cfg, err := config.Load(vfs.OS(), f)
			if err != nil {
				return fault.WithHint(fmt.Errorf("read settings of %s:\n%w", f, err), "naru check shows the same")
			}
			if listen != "" {
				cfg.Listen.HTTP = listen
			}
			logger, err := obs.NewLogger(c.err, cfg.Logging)
			if err != nil {
				return err
			}
			app.Tune(cfg.Process, c.getenv)
			// Whoever reads the logs may go; the server does not go with them.
			signal.Ignore(syscall.SIGPIPE)
			soft, hard, stop := interrupts(cmd.Context())
			defer stop()
			var watch *collect.Watch
			if dev {
				watch = collect.NewWatch()
				showing, end := context.WithCancel(context.Background())
				shown := make(chan struct{})
				go func() {
					defer close(shown)
					_ = watch.Run(showing, c.out) // it ends with showing
				}()
				defer func() { end(); <-shown }()
			}
			return cuttable(hard, func() error {
				return app.Serve(soft, app.Options{
					Watch:  watch,
					Folder: f, Config: *cfg, Pipelines: !noPipelines, Version: version, Logger: logger,
					Ready: func(url string) { fmt.Fprintln(c.out, "ready "+url) },
				})
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on: HOST:PORT on loopback, port 0 takes a free one (default listen.http of naru.yaml)")
	cmd.Flags().BoolVar(&dev, "dev", false, "show events on standard output while they come")
	cmd.Flags().BoolVar(&noPipelines, "no-pipelines", false, "load no tables; events stay in the log until a later start loads them")
	return cmd
}

// cuttable runs fn, but does not wait for it once cut ends. The process is to
// end then: what fn has open is left as a crash would leave it.
func cuttable(cut context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-cut.Done():
	}
	select {
	case err := <-done: // both at once: it did end
		return err
	default:
		return errCut
	}
}
