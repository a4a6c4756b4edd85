package pipeline

import (
	"context"
	"slices"
	"strings"
	"sync"

	"naru/internal/event"
	"naru/internal/sink"
)

// shelf has targets by name, of which one can take the place of another at once.
type shelf struct {
	mu      sync.Mutex
	targets map[string]*ledgerOf
	log     []string     // what was done, in order
	failing func() error // before a step of a backfill, or behind it
	refuses func() bool  // at each commit to what a backfill fills
}

func (s *shelf) get(name string) *ledgerOf {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[name]
}

func (s *shelf) ids(name string) []string {
	if l := s.get(name); l != nil {
		return l.ids()
	}
	return nil
}

func (s *shelf) step(what string, do func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		if err := s.failing(); err != nil {
			return err
		}
	}
	do()
	s.log = append(s.log, what)
	if s.failing != nil {
		return s.failing()
	}
	return nil
}

// tab is a kind of sink over a shelf.
type tab struct {
	Name string `yaml:"tab"`

	shelf *shelf
}

func (k *tab) Validate() error { return nil }
func (k *tab) Target() string  { return k.Name }

func (k *tab) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	k.shelf.mu.Lock()
	l := k.shelf.targets[k.Name]
	if l == nil {
		l = &ledgerOf{positions: event.Positions{}}
		k.shelf.targets[k.Name] = l
	}
	k.shelf.mu.Unlock()
	return (&keeps{Stuck: true, target: l}).Open(ctx, env)
}

func (k *tab) Shadow(target, into string) (sink.Shadow, error) {
	if into != "" {
		return &tabShadow{tab{into, k.shelf}, target, false}, nil
	}
	return &tabShadow{tab{target + "__backfill", k.shelf}, target, true}, nil
}

type tabShadow struct {
	tab
	of       string
	replaces bool
}

func (x *tabShadow) Exists(context.Context, sink.Env) (bool, error) {
	return x.shelf.get(x.Name) != nil, nil
}

func (x *tabShadow) Make(_ context.Context, _ sink.Env, at event.Positions, keep func(event.Position) bool) error {
	return x.shelf.step("make "+x.Name, func() {
		if x.shelf.targets[x.Name] != nil {
			return
		}
		l := &ledgerOf{positions: at, failing: x.shelf.refuses}
		if old := x.shelf.targets[x.of]; old != nil && x.replaces {
			old.mu.Lock()
			l.rows = slices.DeleteFunc(slices.Clone(old.rows), func(r placed) bool { return !keep(r.of) })
			old.mu.Unlock()
		}
		x.shelf.targets[x.Name] = l
	})
}

func (x *tabShadow) Swap(context.Context, sink.Env) error {
	return x.shelf.step("swap "+x.of, func() {
		t := x.shelf.targets
		if t[x.Name] == nil {
			return
		}
		t[x.of+"__old"], t[x.of] = t[x.of], t[x.Name]
		delete(t, x.Name)
	})
}

func (x *tabShadow) Drop(context.Context, sink.Env) error {
	return x.shelf.step("drop of "+x.of, func() {
		delete(x.shelf.targets, x.Name)
		if x.replaces {
			delete(x.shelf.targets, x.of+"__old")
		}
	})
}

// shelved adds the kind to a stand.
func (s *stand) shelved() *shelf {
	h := &shelf{targets: map[string]*ledgerOf{}}
	s.kinds = append(s.kinds, sink.Kind{Name: "tab", Short: "tab", Settings: func() sink.Settings { return &tab{shelf: h} }})
	return h
}

func (h *shelf) names() (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.targets {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (h *shelf) rowsOf(name, mark string) (n int, any bool) {
	for _, id := range h.ids(name) {
		if strings.Contains(id, mark+".") {
			n++
		}
	}
	return n, n > 0
}
