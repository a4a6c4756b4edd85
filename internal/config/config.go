// Package config reads naru.yaml: strictly, with every mistake named by line.
// It is composed of the components' own Config structs and defaults.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"reflect"
	"regexp"
	"strings"

	"naru/internal/collect"
	"naru/internal/contract"
	"naru/internal/dedupe"
	"naru/internal/duck"
	"naru/internal/hottail"
	"naru/internal/lake/iceberg"
	"naru/internal/obs"
	"naru/internal/pipeline"
	"naru/internal/problem"
	"naru/internal/quantity"
	"naru/internal/rejection"
	"naru/internal/serve/sql"
	"naru/internal/serve/tail"
	"naru/internal/stream/seglog"
	"naru/internal/strict"
	"naru/internal/vfs"
	"naru/internal/web"
)

// maxFile bounds naru.yaml, in bytes.
const maxFile = 1 << 20

// Problem is one thing that is wrong in a configuration file.
type Problem = problem.Problem

// Problems are all that is wrong; as an error, one a line.
type Problems = problem.List

// Config is naru.yaml. The order of the fields is that of the file.
type Config struct {
	Listen    Listen             `yaml:"listen"`
	Logging   obs.LogConfig      `yaml:"logging"`
	Process   Process            `yaml:"process"`
	Log       seglog.Config      `yaml:"log"`
	Collect   collect.Config     `yaml:"collect"`
	PII       contract.PIIConfig `yaml:"pii"`
	Lake      iceberg.Config     `yaml:"lake"`
	Pipelines pipeline.Config    `yaml:"pipelines"`
	Dedupe    dedupe.Config      `yaml:"dedupe"`
	Query     Query              `yaml:"query"`
	Steps     duck.StepsConfig   `yaml:"steps"`
	HotTail   hottail.Config     `yaml:"hot_tail"`
	Tail      tail.Config        `yaml:"tail"`
	Rejected  rejection.Config   `yaml:"rejected"`
}

// Listen says where the server can be reached.
type Listen struct {
	HTTP  string   `yaml:"http"`
	Hosts []string `yaml:"hosts"`
}

// Validate checks the address. What lies beyond loopback is refused: no key can
// be configured yet, and nothing is open without one (PRODUCT, promise 7).
func (l Listen) Validate() error {
	if err := CheckAddress(l.HTTP); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// CheckAddress refuses an address that is not HOST:PORT on loopback.
func CheckAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT, as in 127.0.0.1:8080", addr)
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n < 0 || port == "" {
		return fmt.Errorf("%q: %q is not a port; 0 takes a free one", addr, port)
	}
	if web.IsLoopback(host) {
		return nil
	}
	return fmt.Errorf("%q is not a loopback address: this version has no keys to guard it with; listen on 127.0.0.1 and put a proxy that checks who calls in front", addr)
}

// Process holds what concerns the process as a whole.
type Process struct {
	GCPercent   int            `yaml:"gc_percent"`
	MemoryLimit quantity.Bytes `yaml:"memory_limit"`
	Threads     int            `yaml:"threads"` // 0: one more than cores
}

// Validate names what cannot work.
func (p Process) Validate() error {
	var errs []error
	if p.GCPercent < 10 {
		errs = append(errs, errors.New("gc_percent: must be at least 10"))
	}
	if p.MemoryLimit != 0 && p.MemoryLimit < 64*quantity.MiB {
		errs = append(errs, errors.New("memory_limit: must be at least 64MiB, or 0 for none"))
	}
	if p.Threads < 0 || p.Threads > maxThreads {
		errs = append(errs, fmt.Errorf("threads: must be between 1 and %d, or 0 for one more than cores", maxThreads))
	}
	return errors.Join(errs...)
}

const maxThreads = 1024

// Query holds the limits of SQL: those of the engine and of its door.
type Query struct {
	duck.Config  `yaml:",inline"`
	WriteTimeout quantity.Duration `yaml:"write_timeout"`
}

// Door is the configuration of /v1/sql.
func (q Query) Door() sql.Config {
	return sql.Config{MaxSQL: q.MaxSQL, WriteTimeout: q.WriteTimeout}
}

// Validate names what cannot work.
func (q Query) Validate() error { return errors.Join(q.Config.Validate(), q.Door().Validate()) }

// Default is the configuration of a folder without a naru.yaml.
func Default() Config {
	return Config{
		Listen:  Listen{HTTP: "127.0.0.1:8080", Hosts: []string{}},
		Logging: obs.DefaultLogConfig(),
		// 50: the door and the loader reuse their buffers, so the live heap is
		// small and collecting it twice as often costs under 2 % (HOTPATH 10).
		Process:   Process{GCPercent: 50},
		Log:       seglog.DefaultConfig(),
		Collect:   collect.DefaultConfig(),
		PII:       contract.DefaultPIIConfig(),
		Lake:      iceberg.DefaultConfig(),
		Pipelines: pipeline.DefaultConfig(),
		Dedupe:    dedupe.DefaultConfig(),
		Query:     Query{Config: duck.DefaultConfig(), WriteTimeout: sql.DefaultConfig().WriteTimeout},
		Steps:     duck.DefaultStepsConfig(),
		HotTail:   hottail.DefaultConfig(),
		Tail:      tail.DefaultConfig(),
		Rejected:  rejection.DefaultConfig(),
	}
}

// Load reads the folder's naru.yaml; a folder without one has the defaults.
// What is wrong in the file comes back as Problems, all at once.
func Load(fsys vfs.FS, folder Folder) (*Config, error) {
	text, err := read(fsys, folder.Settings())
	if errors.Is(err, fs.ErrNotExist) {
		text, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", folder.Settings(), err)
	}
	return parse(FileName, text, folder)
}

func read(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return text, err
}

func parse(file string, text []byte, folder Folder) (*Config, error) {
	c := Default()
	d := strict.New(file, &c)
	d.Unknown = func(key, val *strict.Node, path string) bool { return streamRetention(d, key, val, path) }
	d.Decode(bytes.NewReader(text), &c)
	c.Place(folder)
	validate(d, &c)
	if problems := d.Problems(); len(problems) > 0 {
		return nil, problems.Sorted()
	}
	return &c, nil
}

// Place tells the components where in the folder they work.
func (c *Config) Place(f Folder) {
	c.Query.Warehouse = f.Lake()
	c.Query.Temp, c.Query.HotTail = f.Spill(), f.HotTail()
	c.Steps.Warehouse, c.Steps.HotTail, c.Steps.Folder = f.Lake(), f.HotTail(), string(f)
}

// validate asks every section, and finds the lines of what they say. A section's
// error begins with the key, or with the section's name and the key. Some name
// only the first mistake: its value is made the default, and they are asked
// again.
func validate(d *strict.Decoder, c *Config) {
	known := map[string]bool{} // one word about a value is enough
	for _, p := range d.Problems() {
		known[p.Key] = true
	}
	asked, standard := *c, Default()
	standard.Place("/")
	v, def := reflect.ValueOf(&asked).Elem(), reflect.ValueOf(&standard).Elem()
	for name, section := range strict.Fields(v) {
		for more := true; more; {
			more = false
			var err error
			if s, ok := section.Interface().(interface{ Validate() error }); ok {
				err = s.Validate()
			}
			for _, err := range split(err) {
				text := strings.TrimPrefix(err.Error(), name+".")
				key := leadingKey.FindString(text)
				path, rest := strict.Join(name, key), strings.TrimLeft(text[len(key):], ": ")
				value, found := strict.At(v, path)
				if !found {
					path, rest = name, text
				} else {
					standard, _ := strict.At(def, path)
					more = more || !reflect.DeepEqual(value.Interface(), standard.Interface())
					value.Set(standard)
				}
				if !known[path] {
					d.Fail(d.LineOf(path), path, "%s", rest)
					known[path] = true
				}
			}
		}
	}
}

var leadingKey = regexp.MustCompile(`^[a-z_]+`)

// split takes joined errors apart.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, split(e)...)
		}
		return out
	}
	return []error{err}
}
