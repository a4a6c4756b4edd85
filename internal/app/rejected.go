package app

import (
	"context"
	"log/slog"

	"naru/internal/collect/native"
	"naru/internal/contract"
	"naru/internal/lake"
	"naru/internal/query"
	"naru/internal/rejection"
	"naru/internal/stream"
)

// openRejected joins what keeps account of refused events with the tables that
// find them and the door that judges them again.
func openRejected(cfg rejection.Config, log stream.Log, tables lake.Tables, engine query.Engine, door *native.Door, contracts *contract.Folder, closing <-chan struct{}, logger *slog.Logger) (*rejection.Handler, error) {
	find := &rejection.Tables{Engine: engine, Newest: tables.Newest}
	r, err := rejection.New(cfg, rejection.Deps{Log: log, Store: find, Logger: logger,
		Door: func(ctx context.Context, name string) (rejection.Door, error) { return door.Replay(ctx, name) }})
	if err != nil {
		return nil, err
	}
	contact := func(typ string) rejection.Contact {
		c := contracts.Set().For(typ)
		if c == nil {
			return rejection.Contact{}
		}
		who := rejection.Contact{Owner: c.Owner}
		for _, s := range c.Support {
			who.Support = append(who.Support, s.Channel)
		}
		return who
	}
	return &rejection.Handler{Rejections: r, Tables: find, Contact: contact, Closing: closing, Logger: logger}, nil
}
