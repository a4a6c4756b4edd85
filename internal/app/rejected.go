package app

import (
	"context"
	"log/slog"

	"naru/internal/collect/native"
	"naru/internal/contract"
	"naru/internal/dedupe"
	"naru/internal/lake"
	"naru/internal/obs"
	"naru/internal/pipeline"
	"naru/internal/query"
	"naru/internal/rejection"
	"naru/internal/stream"
)

// openRejected joins what keeps account of refused events with the tables that
// find them and the door that judges them again.
func openRejected(cfg rejection.Config, log stream.Log, readable *dedupe.Log, tables lake.Tables, engine query.Engine, door *native.Door, configured *pipeline.Configured, contracts *contract.Folder, closing <-chan struct{}, reg *obs.Registry, logger *slog.Logger) (*rejection.Handler, error) {
	find := &rejection.Tables{Engine: engine, Newest: tables.Newest, Duplicate: readable.Duplicate}
	r, err := rejection.New(cfg, rejection.Deps{Log: log, Store: find, Logger: logger,
		Door:     func(ctx context.Context, name string) (rejection.Door, error) { return door.Replay(ctx, name) },
		Pipeline: func(ctx context.Context, name string) (rejection.Door, error) { return configured.Replay(ctx, name) }})
	if err != nil {
		return nil, err
	}
	counts := r.Counts()
	reg.Collect([]obs.Desc{
		{Name: "naru_rejections_replayed_total", Help: "Refused events that were sent to their streams again and accepted.", Counter: true},
		{Name: "naru_rejections_refused_again_total", Help: "Refused events that were judged again and refused again: attempts.", Counter: true},
		{Name: "naru_rejections_discarded_total", Help: "Refused events that somebody has discarded.", Counter: true},
	}, func(emit obs.Emit) {
		emit("naru_rejections_replayed_total", float64(counts.Replayed.Load()))
		emit("naru_rejections_refused_again_total", float64(counts.Refused.Load()))
		emit("naru_rejections_discarded_total", float64(counts.Discarded.Load()))
	})
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
