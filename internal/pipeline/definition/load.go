package definition

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"naru/internal/problem"
	"naru/internal/sink"
	"naru/internal/vfs"
)

// Limits of the folder pipelines/.
const (
	MaxFile  = 1 << 20 // bytes of one file
	MaxFiles = 1000
)

// Load reads the pipelines of a folder, by name. A folder that does not exist has
// none. What is wrong in a file comes back as problems; the other pipelines are
// whole.
func Load(fsys vfs.FS, dir string, kinds []sink.Kind) (map[string]*Definition, problem.List, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read pipelines: %w", err)
	}
	slices.Sort(names)
	out := map[string]*Definition{}
	var problems problem.List
	n := 0
	for _, file := range names {
		name, ok := Pipeline(file)
		if !ok {
			continue
		}
		as := path.Join(filepath.Base(dir), file)
		if n++; n > MaxFiles {
			problems = append(problems, problem.Problem{File: as, Text: fmt.Sprintf("more than %d pipelines", MaxFiles)})
			break
		}
		text, err := read(fsys, filepath.Join(dir, file))
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", as, err)
		}
		def, wrong := Parse(as, name, text, kinds)
		if problems = append(problems, wrong...); len(wrong) == 0 {
			out[name] = def
		}
	}
	problems = append(problems, clashes(out)...)
	problems = append(problems, circles(out)...)
	return out, problems, nil
}

// Pipeline gives the name of the pipeline in a file; false: it holds none.
func Pipeline(file string) (name string, ok bool) {
	if strings.HasPrefix(file, ".") {
		return "", false
	}
	for _, end := range []string{".yaml", ".yml"} {
		if name, ok = strings.CutSuffix(file, end); ok {
			return name, true
		}
	}
	return "", false
}

func read(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("larger than %d MiB", MaxFile>>20)
	}
	return text, err
}

// Owner is optional for settings of a sink: what only one sink may write to, as
// in "table edits.human_edits"; empty: nothing.
type Owner interface{ Owns(pipeline string) string }

// clashes finds targets that two sinks would write to.
func clashes(all map[string]*Definition) (problems problem.List) {
	owner := map[string]string{}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, s := range all[name].To {
			o, ok := s.Settings.(Owner)
			if !ok {
				continue
			}
			what := o.Owns(name)
			if by, taken := owner[what]; taken && what != "" {
				problems = append(problems, problem.Problem{File: all[name].file, Line: s.line, Key: s.path,
					Text: fmt.Sprintf("%s is written by %s already: one sink for each", what, by)})
				continue
			}
			owner[what] = "pipeline " + name + ", sink " + s.Name
		}
	}
	return problems
}

// Feeder is optional for settings of a sink: the stream of this server that its rows
// go to.
type Feeder interface{ Feeds() string }

// circles finds pipelines by which events would go round for ever.
func circles(all map[string]*Definition) (problems problem.List) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		def := all[name]
		for _, s := range def.To {
			f, ok := s.Settings.(Feeder)
			if !ok {
				continue
			}
			if way := wayTo(all, f.Feeds(), def.From.Stream, map[string]bool{}); way != nil {
				problems = append(problems, problem.Problem{File: def.file, Line: s.line, Key: s.path,
					Text: fmt.Sprintf("events would go round for ever: %s → %s", def.From.Stream, strings.Join(way, " → "))})
			}
		}
	}
	return problems
}

// wayTo is how events get from one stream to another; nil: they do not.
func wayTo(all map[string]*Definition, from, to string, seen map[string]bool) []string {
	if from == to {
		return []string{to}
	}
	if seen[from] {
		return nil
	}
	seen[from] = true
	for _, name := range slices.Sorted(maps.Keys(all)) {
		def := all[name]
		for _, s := range def.To {
			if f, ok := s.Settings.(Feeder); ok && def.From.Stream == from {
				if way := wayTo(all, f.Feeds(), to, seen); way != nil {
					return append([]string{from}, way...)
				}
			}
		}
	}
	return nil
}
