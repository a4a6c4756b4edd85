package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// tableText is the performance table of the rows that have runs.
func tableText(all []measure) string {
	var b strings.Builder
	b.WriteString("| # | scenario | target | ours | peer | ratio |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range table() {
		runs := rowOf(all, r.name)
		if len(runs) == 0 {
			continue
		}
		v := r.judge(runs)
		met := "not met"
		if v.met {
			met = "met"
		}
		fmt.Fprintf(&b, "| %s | %s | %s: **%s** | %s | %s | %s |\n", r.name, r.scenario, r.target, met, strings.TrimSuffix(v.ours, "; "), v.peer, v.ratio)
	}
	return b.String()
}

func rowOf(all []measure, name string) []measure {
	return slices.DeleteFunc(slices.Clone(all), func(m measure) bool { return m.Row != name })
}

const (
	rawBegin = "```json\n"
	rawEnd   = "```\n"
)

// keep writes the results: the new runs in place of older ones of the same
// rows, and the table and the rest from all of them. The raw numbers in the file
// are what it is made from.
func keep(path string, raw []measure, m machine) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all, err := parseRaw(string(old))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	all = slices.DeleteFunc(all, func(m measure) bool { return len(rowOf(raw, m.Row)) > 0 })
	text, err := render(append(all, raw...), m)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// parseRaw reads the raw numbers of a results file.
func parseRaw(text string) (all []measure, err error) {
	_, raw, _ := strings.Cut(text, rawBegin)
	raw, _, _ = strings.Cut(raw, rawEnd)
	for line := range strings.Lines(raw) {
		var m measure
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return nil, fmt.Errorf("%.100s: %w", line, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// render makes the results file.
func render(all []measure, m machine) (string, error) {
	var b strings.Builder
	b.WriteString("# Measured\n\nWritten by `make bench-full`, or row by row by `./bench/run --full --row N`; `make bench` prints the same table from shorter runs.\n\n")
	fmt.Fprintf(&b, "- machine: %s; file system %s\n- corpus: page views (%s), some 265 bytes each\n", m.Name, m.FileSystem, m.Corpus)
	b.WriteString(`- server and load generator on the same machine, bodies rendered beforehand, keep-alive; naru and its peer in turn; medians of
  each figure unless the row says otherwise. CPU is the server's alone, by /proc; memory the most of RssAnon + RssShmem
- an answer of naru means on disk (fdatasync), one of a peer does not unless its cell tells of fsyncs; one fsync covers the
  requests that waited for it together
- others_cores in the raw numbers is what else the machine did meanwhile
- waits are of acknowledgements, unless they are called something else

`)
	b.WriteString(tableText(all))
	b.WriteString("\n## How each row is taken\n\n")
	for _, r := range table() {
		if runs := rowOf(all, r.name); len(runs) > 0 {
			fmt.Fprintf(&b, "- **%s** (%s): %s\n", r.name, when(runs), r.method)
		}
	}
	b.WriteString("\n## Raw numbers\n\n" + rawBegin)
	for _, r := range table() {
		for _, m := range rowOf(all, r.name) {
			line, err := json.Marshal(m)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%s\n", line)
		}
	}
	b.WriteString(rawEnd)
	return b.String(), nil
}

// when tells the commit, the date and the number of runs.
func when(runs []measure) string {
	m := runs[0]
	for _, other := range runs {
		if other.Commit != "" {
			m = other
			break
		}
	}
	form := "short form"
	if m.Full {
		form = "full form"
	}
	return fmt.Sprintf("%s, %s, %s", m.Commit, m.At, form)
}
