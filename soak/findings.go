package main

import (
	"fmt"
	"sync"
)

// findings are the violations of a run. Safe for concurrent use.
type findings struct {
	mu   sync.Mutex
	list []string
	more int
	seen func(string) // called for each that is kept; may be nil
}

// kept bounds the list: one defect may show in a million rows.
const kept = 100

func (f *findings) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) == kept {
		f.more++
		return
	}
	what := fmt.Sprintf(format, args...)
	f.list = append(f.list, what)
	if f.seen != nil {
		f.seen(what)
	}
}

// all lists them, and says how many more there were.
func (f *findings) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := append([]string(nil), f.list...)
	if f.more > 0 {
		out = append(out, fmt.Sprintf("and %d more", f.more))
	}
	return out
}
