// Package file is the sink that writes rows into files of a folder: NDJSON, CSV,
// TSV, Avro or Parquet, in folders by what stands in the rows. Exactly once: a file
// appears whole or not at all, and its rows appear in no other.
package file

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"naru/internal/quantity"
	"naru/internal/rowfile"
	"naru/internal/sink"
)

// Kind is this sink as pipelines have it.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "file",
		Short:     "dir",
		Settings:  func() sink.Settings { s := DefaultSettings(); return &s },
		Tabular:   func(s sink.Settings) bool { return s.(*Settings).Tabular() },
		Guarantee: "exactly once, on a local disk",
	}
}

// Settings of one sink.
type Settings struct {
	Dir   string `yaml:"dir"` // relative to the project's folder
	Files `yaml:",inline"`
}

// Files are the settings of files, wherever they go.
type Files struct {
	Format   string `yaml:"format"`   // of rowfile.Formats
	Compress string `yaml:"compress"` // of rowfile.Compressions
	Path     string `yaml:"path"`     // of the folder that a file will be in; see rowfile.Path
	Prefix   string `yaml:"prefix"`   // of names of files
	Roll     Roll   `yaml:"roll"`
	// OpenFiles bounds the files that are written at a time: beyond it, the one whose
	// last row is the oldest is finished. Memory is what they gather in all.
	OpenFiles int            `yaml:"open_files"`
	Memory    quantity.Bytes `yaml:"memory"`
	History   quantity.Bytes `yaml:"history"` // of the list of files, by which a rewind takes them back

	now func() time.Time // for tests
}

// Tabular tells whether the files have columns.
func (s *Files) Tabular() bool { return s.options().Tabular() }

// Roll says when files are finished.
type Roll struct {
	Bytes quantity.Bytes    `yaml:"bytes"` // of one file
	Every quantity.Duration `yaml:"every"` // from the first row on: what is written appears
}

// DefaultSettings are those of a sink of which only the folder is given.
func DefaultSettings() Settings { return Settings{Files: DefaultFiles()} }

// DefaultFiles are NDJSON, in one folder.
func DefaultFiles() Files {
	return Files{
		Format: "ndjson", Compress: "none", Prefix: "part",
		Roll:      Roll{Bytes: 64 << 20, Every: quantity.Duration(5 * time.Minute)},
		OpenFiles: 64,
		Memory:    64 * quantity.MiB,
		History:   16 * quantity.MiB,
		now:       time.Now,
	}
}

func (s *Files) options() rowfile.Options {
	return rowfile.Options{Format: s.Format, Compress: s.Compress}
}

var goodPrefix = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$`)

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	err := s.Files.Validate()
	if s.Dir == "" {
		err = errors.Join(errors.New("dir: must be a folder"), err)
	}
	return err
}

// Validate tells what cannot work; errors begin with the key.
func (s *Files) Validate() error {
	errs := []error{s.options().Validate()}
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := rowfile.ParsePath(s.Path); err != nil {
		wrong("path: %w", err)
	}
	if !goodPrefix.MatchString(s.Prefix) {
		wrong("prefix: %q: letters, digits, - and _, at most 41, a letter or digit first", s.Prefix)
	}
	if s.Roll.Bytes < 1 {
		wrong("roll.bytes: must be at least 1B")
	}
	if s.Roll.Every.Std() < time.Millisecond || s.Roll.Every.Std() > 24*time.Hour {
		wrong("roll.every: must be 1ms to 24h: until a file appears, the log keeps its events")
	}
	if s.OpenFiles < 1 || s.OpenFiles > 10_000 {
		wrong("open_files: must be 1 to 10000")
	}
	if s.Memory < quantity.MiB {
		wrong("memory: must be at least 1MiB")
	}
	if s.History < quantity.MiB {
		wrong("history: must be at least 1MiB")
	}
	return errors.Join(errs...)
}

// Open implements sink.Settings: it makes good what a crash has left undone.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	dir := s.Dir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(env.Dir, dir)
	}
	return Open(ctx, s.Files, env, Target{Dir: dir, Place: folder{env.FS, dir, s.Dir}})
}

// Open opens a sink of files that go to a target.
func Open(ctx context.Context, files Files, env sink.Env, to Target) (*Sink, error) {
	path, err := rowfile.ParsePath(files.Path)
	if err != nil {
		return nil, fmt.Errorf("open sink %s: path: %w", env.Name, err)
	}
	if files.now == nil {
		files.now = time.Now
	}
	out := &Sink{cfg: files, fs: env.FS, to: to, path: path}
	if to.Flat {
		path = &rowfile.Path{}
	}
	if out.state, err = openState(ctx, env, to, path, int64(files.History)); err != nil {
		return nil, fmt.Errorf("open sink %s: %w", env.Name, err)
	}
	out.begin()
	return out, nil
}
