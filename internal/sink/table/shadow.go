package table

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
	"naru/internal/sink"
)

// Endings of names: a table that is filled to replace another, and one that was
// replaced and waits for its last readers.
const (
	shadowSuffix = "__backfill"
	formerSuffix = "__old"
)

var _ sink.Shadower = (*Settings)(nil)

// Target implements sink.Shadower.
func (s *Settings) Target() string { return s.Table }

// Shadow implements sink.Shadower.
func (s *Settings) Shadow(target, into string) (sink.Shadow, error) {
	if into == "" {
		return &shadow{Settings: Settings{Table: target + shadowSuffix, tables: s.tables}, of: target, replaces: true}, nil
	}
	x := &shadow{Settings: Settings{Table: into, tables: s.tables}, of: target}
	if err := x.Validate(); err != nil {
		return nil, err
	}
	if into == target {
		return nil, errors.New("table: it is the sink's own: leave it out, and it is replaced")
	}
	return x, nil
}

// shadow is a table beside that of a sink.
type shadow struct {
	Settings
	of       string
	replaces bool
}

func (x *shadow) idents(env sink.Env) (of, own, former lake.Ident) {
	ns := Namespace(env.Pipeline)
	return lake.Ident{Namespace: ns, Name: x.of}, lake.Ident{Namespace: ns, Name: x.Table}, lake.Ident{Namespace: ns, Name: x.of + formerSuffix}
}

// Exists implements sink.Shadow.
func (x *shadow) Exists(ctx context.Context, env sink.Env) (bool, error) {
	_, own, _ := x.idents(env)
	_, err := x.tables.lake.Info(ctx, own)
	if errors.Is(err, lake.ErrNoTable) {
		return false, nil
	}
	return err == nil, err
}

// Make implements sink.Shadow.
func (x *shadow) Make(ctx context.Context, env sink.Env, at event.Positions, keep func(event.Position) bool) error {
	of, own, _ := x.idents(env)
	if !x.replaces {
		keep = nil
	}
	return x.tables.lake.Begin(ctx, own, iceberg.Beginning{From: of, Keep: keep, Schema: FirstSchema(own), Positions: at, Stream: env.Stream})
}

// Swap implements sink.Shadow.
func (x *shadow) Swap(ctx context.Context, env sink.Env) error {
	of, own, former := x.idents(env)
	if !x.replaces {
		return fmt.Errorf("replace %s by %s: it was made to stay beside it", of, own)
	}
	return x.tables.lake.Replace(ctx, of, own, former)
}

// Drop implements sink.Shadow.
func (x *shadow) Drop(ctx context.Context, env sink.Env) error {
	_, own, former := x.idents(env)
	if err := x.tables.lake.Discard(ctx, own); err != nil || !x.replaces {
		return err
	}
	return x.tables.lake.Discard(ctx, former)
}
