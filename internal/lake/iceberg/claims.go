package iceberg

import (
	"context"
	"fmt"
	"sync"

	"naru/internal/event"
	"naru/internal/lake"
)

// claimsFile lists the tables that have been promised to a type.
const claimsFile = "claims.json"

// claims decide which types get a table of their own while the number of
// tables is limited. A claim is durable before the first row is routed by it:
// otherwise a restart could send rows to a table of their own that are
// committed in _other, or the other way round.
type claims struct {
	sync.Mutex
	loaded bool
	known  map[lake.Ident]bool // in the catalog
	// from has the claims of tables that are not in the catalog yet, and for
	// good those of types that had rows in _other before: where theirs begin.
	from map[lake.Ident]event.Positions
}

type claimText struct {
	Table lake.Ident      `json:"table"`
	From  event.Positions `json:"from,omitempty"`
}

// Claim asks for a table of its own. When the limit is reached it answers
// false: the rows belong into _other. covered is what _other of the same
// namespace covers, or did before somebody rolled it back: of a table claimed
// anew, the rows below it are in _other, or belong there.
//
// start says from where rows belong into the own table; empty: all of them.
func (l *Lake) Claim(ctx context.Context, t lake.Ident, covered event.Positions) (own bool, start event.Positions, err error) {
	if !counts(t) {
		return true, nil, nil
	}
	c := &l.claims
	c.Lock()
	defer c.Unlock()
	// Disk and catalog are read and written under the lock: claims are rare, and
	// two of them must not take the last place both.
	if err := l.loadClaims(ctx); err != nil {
		return false, nil, err
	}
	start, claimed := c.from[t]
	if claimed || c.known[t] {
		return true, start, nil
	}
	if c.count() >= l.cfg.MaxTables {
		return false, nil, nil
	}
	// A table that was dropped had its rows itself, and none below its start in
	// _other.
	if used, err := l.hasMetadata(l.tableFolder(t)); err != nil {
		return false, nil, err
	} else if used {
		covered = nil
	}
	c.from[t] = covered.Clone()
	if err := l.writeClaims(); err != nil {
		delete(c.from, t)
		return false, nil, err
	}
	return true, covered, nil
}

// Owns tells, without asking for anything, what Claim would answer now. claimed
// is false while nobody has asked.
func (l *Lake) Owns(ctx context.Context, t lake.Ident) (own, claimed bool, start event.Positions, err error) {
	if !counts(t) {
		return true, true, nil, nil
	}
	c := &l.claims
	c.Lock()
	defer c.Unlock()
	if err := l.loadClaims(ctx); err != nil {
		return false, false, nil, err
	}
	start, claimed = c.from[t]
	if claimed || c.known[t] {
		return true, true, start, nil
	}
	return c.count() < l.cfg.MaxTables, false, nil, nil
}

// count is the number of tables that are there or promised.
func (c *claims) count() int {
	n := len(c.known)
	for t := range c.from {
		if !c.known[t] {
			n++
		}
	}
	return n
}

// keepClaim makes durable that a table which is about to be dropped keeps its
// place, and where its rows begin.
func (l *Lake) keepClaim(ctx context.Context, t lake.Ident) error {
	if !counts(t) {
		return nil
	}
	c := &l.claims
	c.Lock()
	defer c.Unlock()
	if err := l.loadClaims(ctx); err != nil {
		return err
	}
	if _, claimed := c.from[t]; claimed {
		return nil
	}
	c.from[t] = event.Positions{}
	return l.writeClaims()
}

// counts tells whether a table counts against the limit.
func counts(t lake.Ident) bool {
	return t.Namespace != event.RejectedStream && t.Namespace != event.RejectedStates && t.Name != lake.OtherTable
}

func (l *Lake) loadClaims(ctx context.Context) error {
	c := &l.claims
	if c.loaded {
		return nil
	}
	list, err := l.catalog.List(ctx)
	if err != nil {
		return err
	}
	c.known, c.from = map[lake.Ident]bool{}, map[lake.Ident]event.Positions{}
	for _, t := range list {
		if counts(t) {
			c.known[t] = true
		}
	}
	claims, err := readLines[claimText](l, claimsFile)
	if err != nil {
		return fmt.Errorf("read claims of tables: %w", err)
	}
	for _, one := range claims {
		if !c.known[one.Table] || len(one.From) > 0 {
			c.from[one.Table] = one.From
		}
	}
	c.loaded = true
	return nil
}

func (l *Lake) writeClaims() error {
	claims := make([]claimText, 0, len(l.claims.from))
	for t, from := range l.claims.from {
		claims = append(claims, claimText{Table: t, From: from})
	}
	if err := writeLines(l, claimsFile, claims); err != nil {
		return fmt.Errorf("write claims of tables: %w", err)
	}
	return nil
}

// claimKept notes that the table is in the catalog now. The file may go on
// naming it: what the catalog has counts first.
func (l *Lake) claimKept(t lake.Ident) {
	c := &l.claims
	c.Lock()
	defer c.Unlock()
	if from, ok := c.from[t]; ok {
		c.known[t] = true
		if len(from) == 0 {
			delete(c.from, t)
		}
	}
}
