// Package definition reads pipelines/NAME.yaml: what a pipeline reads, its steps,
// its sinks and its tests. Every mistake is named by file, line and key.
package definition

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/problem"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/strict"
	"naru/internal/transform"
)

// Definition is one pipeline as its file has it.
type Definition struct {
	Name  string           `yaml:"-"` // of the file, without .yaml
	From  From             `yaml:"from"`
	Steps []transform.Step `yaml:"steps"`
	To    []*Sink          `yaml:"to"`
	Tests []Test           `yaml:"tests"`

	file string
	text []byte
}

// From is what a pipeline reads.
type From struct {
	Stream string   `yaml:"stream"`
	Types  []string `yaml:"types"` // empty: all
	Start  Start    `yaml:"start"`
}

// Start is where a pipeline begins that the log does not know yet.
type Start struct {
	Latest bool
	At     time.Time // of receipt; zero, and Latest false: the oldest that is left
}

// UnmarshalText reads earliest, latest, or a time in RFC 3339 or as a date.
func (s *Start) UnmarshalText(b []byte) error {
	text := string(b)
	*s = Start{}
	switch text {
	case "earliest":
		return nil
	case "latest":
		s.Latest = true
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			s.At = at
			return nil
		}
	}
	return fmt.Errorf("%q is neither earliest nor latest nor a time, as in 2026-01-31T00:00:00Z or 2026-01-31", text)
}

// MarshalText writes what UnmarshalText reads.
func (s Start) MarshalText() ([]byte, error) {
	switch {
	case s.Latest:
		return []byte("latest"), nil
	case s.At.IsZero():
		return []byte("earliest"), nil
	}
	return s.At.AppendFormat(nil, time.RFC3339), nil
}

// Sink is one entry of `to:`.
type Sink struct {
	Name     string // unique in the pipeline: its kind, if none is given
	Kind     sink.Kind
	Settings sink.Settings
	// Every is how often what was written is committed, and Bytes how much may wait
	// for that; zero: the kind's default.
	Every quantity.Duration
	Bytes quantity.Bytes
	// Where is an expression over the columns of the rows, that chooses which of them go
	// to the sink; empty: all. It belongs to the steps (Definition.Program).
	Where string

	whereLine int
	node      *strict.Node
	path      string
	at        string // of Settings, which are as they should be; empty: they are not
	line      int
}

// DefaultEvery is Sink.Every of most kinds.
const DefaultEvery = quantity.Duration(time.Second)

// ReadYAML implements strict.Reader: what it says is read when the kinds are known.
func (s *Sink) ReadYAML(_ *strict.Decoder, n *strict.Node, path string) {
	s.node, s.path, s.line = n, path, n.Line
}

// Test is one entry of `tests:`: what the steps make of an input.
type Test struct {
	Name  string
	Input []Value // events: their data, or {type, id, time, data, ...}
	Rows  []Value // what must come out, in order; only the columns named are compared
	// To is, by sink, what must go to it, in place of Rows; sinks that are not named may
	// get whatever there is. nil: Rows are meant.
	To map[string][]Value
	// Rejections is how many of the events must be refused.
	Rejections int
	Line       int
}

// Value is one block of keys in a test, as JSON.
type Value struct {
	Line int
	JSON []byte
}

// Same tells whether two entries of `to:` say the same, but for their `where`.
func (s *Sink) Same(t *Sink) bool {
	a, err1 := strict.Tree(strict.Without(s.node, "where"))
	b, err2 := strict.Tree(strict.Without(t.node, "where"))
	return err1 == nil && err2 == nil && reflect.DeepEqual(a, b)
}

// Sink gives the entry of `to:` with that name; nil: there is none.
func (def *Definition) Sink(name string) *Sink {
	for _, s := range def.To {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (def *Definition) sinkNames() (names []string) {
	for _, s := range def.To {
		names = append(names, s.Name)
	}
	return names
}

// Routes are the steps by which sinks choose their rows, by the names of the sinks.
func (def *Definition) Routes() (list []transform.Step) {
	for _, s := range def.To {
		if s.Where != "" {
			list = append(list, transform.Where(s.Name, s.Where, s.whereLine))
		}
	}
	slices.SortFunc(list, func(a, b transform.Step) int { return strings.Compare(a.To, b.To) })
	return list
}

// Program is all that is computed: the steps, and behind them the routes.
func (def *Definition) Program() []transform.Step {
	return append(slices.Clone(def.Steps), def.Routes()...)
}

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Parse reads one file; name is the pipeline's. A nil Definition comes with
// problems, and so may one that is whole but wrong.
func Parse(file, name string, text []byte, kinds []sink.Kind) (*Definition, problem.List) {
	def := &Definition{Name: name, From: From{Stream: event.DefaultStream}, file: file, text: text}
	d := strict.New(file, def)
	if !goodName.MatchString(name) {
		d.Fail(0, "", "a pipeline has the name of its file: lower case letters, digits, - and _, at most 63, a letter or digit first")
	}
	if reserved(name) {
		d.Fail(0, "", "%s is the name of a stream of naru's own, and a pipeline's tables stand in the namespace of its name: take another one", name)
	}
	d.Decode(bytes.NewReader(text), def)
	def.from(d)
	def.sinks(d, kinds)
	for i, t := range def.Tests {
		for _, name := range slices.Sorted(maps.Keys(t.To)) {
			if def.Sink(name) == nil && len(d.Problems()) == 0 {
				d.Fail(t.Line, fmt.Sprintf("tests[%d].rows", i), "there is no sink %s; there are %s", name, strings.Join(def.sinkNames(), ", "))
			}
		}
	}
	return def, d.Problems().Sorted()
}

// reserved are the names of streams that every folder has, or may have.
func reserved(name string) bool {
	return name == event.DefaultStream || name == event.RejectedStream || name == event.RejectedStates
}

// Hash names what decides about rows: from and steps.
func (def *Definition) Hash() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%q\x00", def.From.Stream, def.From.Types)
	for _, s := range def.Program() {
		fmt.Fprintf(h, "%s\x00", s.Key())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Text is the file.
func (def *Definition) Text() []byte { return def.text }

func (def *Definition) from(d *strict.Decoder) {
	line := func(key string) int { return d.LineOf("from." + key) }
	if def.From.Stream == "" || strings.ContainsAny(def.From.Stream, "./\\") {
		d.Fail(line("stream"), "from.stream", "%q is no name of a stream", def.From.Stream)
	} else if event.Internal(def.From.Stream) {
		d.Fail(line("stream"), "from.stream", "names that begin with _ are naru's own")
	} else if s := def.From.Stream; s == event.RejectedStream || s == event.RejectedStates {
		// What its steps refuse would come back to it, for ever.
		d.Fail(line("stream"), "from.stream", "%s is no stream for pipelines: what they refuse goes there; ask the table %s with SQL", s, s)
	}
	if slices.Contains(def.From.Types, "") {
		d.Fail(line("types"), "from.types", "has an empty type")
	}
}

// sinks reads the entries of `to:`.
func (def *Definition) sinks(d *strict.Decoder, kinds []sink.Kind) {
	if len(def.To) == 0 {
		d.Fail(d.LineOf("to"), "to", "is missing: name at least one sink, as in `to: [{table: %s}]`", strings.ReplaceAll(def.Name, "-", "_"))
		return
	}
	names := map[string]bool{}
	for _, s := range def.To {
		if s.node == nil {
			d.Fail(d.LineOf("to"), "to", "has an empty entry")
			continue
		}
		s.read(d, kinds)
		if s.Settings == nil {
			continue
		}
		switch {
		case !goodName.MatchString(s.Name):
			d.Fail(s.line, s.path+".name", "%q: lower case letters, digits, - and _, at most 63, a letter or digit first", s.Name)
		case names[s.Name]:
			d.Fail(s.line, s.path+".name", "two sinks are called %s: give each a name of its own, which it keeps for good, because its positions go by it", s.Name)
		}
		names[s.Name] = true
	}
	if n := len(def.Routes()); n > transform.MostRoutes {
		d.Fail(d.LineOf("to"), "to", "%d sinks have a where: at most %d may", n, transform.MostRoutes)
	}
}

// common are the keys of every sink.
type common struct {
	Name  string            `yaml:"name"`
	Every quantity.Duration `yaml:"every"`
	Bytes quantity.Bytes    `yaml:"bytes"`
	Where string            `yaml:"where"`
}

func (s *Sink) read(d *strict.Decoder, kinds []sink.Kind) {
	if strict.KindName(s.node) != "a block of keys" {
		d.Fail(s.line, s.path, "wants a block with the kind of the sink as its key, as in `- table: page_views`, not %s", strict.KindName(s.node))
		return
	}
	var c common
	for key, val := range strict.Pairs(s.node) {
		at := strict.Join(s.path, key.Value)
		switch key.Value {
		case "name":
			d.Into(val, at, &c.Name)
			continue
		case "every":
			if d.Into(val, at, &c.Every); c.Every <= 0 {
				d.Fail(key.Line, at, "must be more than 0, as in 1s")
			}
			continue
		case "bytes":
			if d.Into(val, at, &c.Bytes); c.Bytes <= 0 {
				d.Fail(key.Line, at, "must be more than 0, as in 16MiB")
			}
			continue
		case "where":
			if d.Into(val, at, &c.Where); strings.TrimSpace(c.Where) == "" {
				d.Fail(key.Line, at, "is empty: write a condition over columns of the rows, as in added > 0")
			}
			s.whereLine = key.Line
			continue
		}
		i := slices.IndexFunc(kinds, func(k sink.Kind) bool { return k.Name == key.Value })
		switch {
		case i < 0:
			d.Fail(key.Line, at, "there is no such sink; there are %s, and the keys name, where, every and bytes", list(kinds))
			return
		case s.Settings != nil:
			d.Fail(key.Line, at, "this entry has a sink already, %s: begin another one with -", s.Kind.Name)
			return
		}
		s.Kind = kinds[i]
		s.settings(d, key.Line, val, at)
	}
	if s.Settings == nil {
		d.Fail(s.line, s.path, "names no sink; there are %s", list(kinds))
		return
	}
	if s.Name = c.Name; s.Name == "" {
		s.Name = s.Kind.Name
	}
	s.Every, s.Bytes, s.Where = c.Every, c.Bytes, c.Where
	if x, ok := s.Settings.(sink.Seldom); ok && s.at != "" {
		every := s.Every
		if every <= 0 {
			every = DefaultEvery
		}
		s.tell(d, x.CommitsEvery(every.Std()))
	}
	if x, ok := s.Settings.(sink.Seldom); ok && s.at != "" {
		every := s.Every
		if every <= 0 {
			every = DefaultEvery
		}
		s.tell(d, x.CommitsEvery(every.Std()))
	}
}

// settings fills those of the kind.
func (s *Sink) settings(d *strict.Decoder, line int, val *strict.Node, at string) {
	s.Settings = s.Kind.Settings()
	d.Know(at, s.Settings)
	before := len(d.Problems())
	if strict.IsText(val) && s.Kind.Short != "" {
		d.IntoKey(val, at, s.Kind.Short, s.Settings)
	} else {
		d.Into(val, at, s.Settings)
	}
	d.Stands(at, line)
	if len(d.Problems()) > before {
		return // one word about a value is enough
	}
	s.at = at
	if err := s.Settings.Validate(); err != nil {
		s.tell(d, err)
		s.at = ""
	}
}

// tell says what is wrong with the settings.
func (s *Sink) tell(d *strict.Decoder, err error) {
	for _, err := range split(err) {
		key := leadingKey.FindString(err.Error())
		text := strings.TrimLeft(err.Error()[len(key):], ": ")
		path := strict.Join(s.at, key)
		if key == "" || text == err.Error()[len(key):] {
			path, text = s.at, err.Error()
		}
		d.Fail(d.LineOf(path), path, "%s", text)
	}
}

var leadingKey = regexp.MustCompile(`^[a-z_.]+`)

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

func list(kinds []sink.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return strings.Join(names, ", ")
}
