// Command naru takes in events, keeps them, and answers SQL about them. See
// naru help.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"naru/internal/client/upload"
	"naru/internal/fault"
)

// version is set by the linker (Makefile).
var version = "dev"

// Exit codes, documented in naru help.
const (
	exitDone        = 0
	exitError       = 1
	exitUsage       = 2
	exitPoisoned    = 3
	exitInterrupted = 4
)

// cli is what commands see of the world.
type cli struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	terminal bool // err is one
	asks     bool // somebody is there to answer: in is a terminal too
}

func main() {
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	c.asks = c.terminal && term.IsTerminal(int(os.Stdin.Fd()))
	os.Exit(c.run(os.Args[1:]))
}

// run is main with everything it touches passed in.
func (c *cli) run(args []string) int {
	root := c.commands()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.Execute()
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(c.err, "naru: %v\n", err)
	}
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", hint)
	}
	return exitCode(err)
}

// errSaid: the command has told already what is wrong.
var errSaid = errors.New("said")

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, fault.ErrPoisoned):
		return exitPoisoned
	case errors.Is(err, upload.ErrInterrupted), errors.Is(err, errCut), errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	return exitError
}

// usage makes what cobra says about arguments a usage error with a hint.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return asUsage(cmd, check(cmd, args))
	}
}

func asUsage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fault.WithHint(usageError{err}, "%s", strings.Replace(cmd.CommandPath(), "naru", "naru help", 1))
}
