package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"naru/internal/config"
	"naru/internal/contract"
	"naru/internal/fault"
	"naru/internal/vfs"
)

func (c *cli) piiCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "pii",
		Short: "Find personal values that were hashed",
		Long: `Where a contract says naru.pii hash, the value is replaced before anything is
stored. These commands work with the keys of pii.keys in naru.yaml.`,
	}, c.piiHash())
}

// maxValue bounds a line of standard input, in bytes.
const maxValue = 1 << 20

func (c *cli) piiHash() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "hash [VALUE]...",
		Short: "Say what stands for a value in tables",
		Long: `Prints what stands for each value, one line for each key of pii.keys in naru.yaml,
the one in use first: KEYID:HEX, HMAC-SHA-256 of the value. Without VALUE it reads
lines from standard input, so that they do not stay in the shell's history.`,
		Example: `  naru pii hash mina@example.com
  naru pii hash --dir mydata < addresses.txt
  naru query "select * from signup where email in ('$(naru pii hash mina@example.com)')"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := folder([]string{dir})
			if err != nil {
				return err
			}
			settings, err := config.Load(vfs.OS(), f)
			if err != nil {
				return fmt.Errorf("read settings of %s:\n%w", f, err)
			}
			keys, err := contract.LoadKeys(vfs.OS(), string(f), settings.PII, c.getenv, nil)
			if err != nil {
				return err
			}
			if len(settings.PII.Keys) == 0 {
				return fault.WithHint(errors.New("hash: there is no key"), "set pii.keys in naru.yaml, as in pii: {keys: [\"k1=file:pii.key\"]}")
			}
			if len(args) == 0 {
				if args, err = readLines(cmd.InOrStdin()); err != nil {
					return fmt.Errorf("read values: %w", err)
				}
			}
			type hashed struct {
				Value  string   `json:"value"`
				Hashes []string `json:"hashes"`
			}
			list := []hashed{}
			for _, value := range args {
				list = append(list, hashed{value, keys.Tokens(value)})
			}
			if asJSON {
				return c.printJSON(list)
			}
			for _, h := range list {
				fmt.Fprintln(c.out, strings.Join(h.Hashes, "\n"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the project's folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func readLines(r io.Reader) (lines []string, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxValue)
	for in.Scan() {
		lines = append(lines, in.Text())
	}
	return lines, in.Err()
}
