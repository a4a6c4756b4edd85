package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"naru/internal/bench/load"
	"naru/internal/serve/status"
)

// batchSize is how many events a full body has.
const batchSize = 500

// Types of the events, and so tables.
const (
	measured = "page"
	warming  = "warm_up"
	fresh    = "fresh"
)

// flow is what is sent, and how.
type flow struct {
	perRequest, connections int
	bodies                  [][]byte
	kind                    string // Content-Type
}

func (f flow) to(s *server, typ string) load.Target {
	return load.Target{Address: s.address, Path: "/v1/events?type=" + typ, ContentType: f.kind}
}

// flow warms the server up, then measures until all is sent and rest, if there
// is one, has returned.
func (b *bench) flow(ctx context.Context, s *server, f flow, until load.Until, rest func() error) (Flow, error) {
	out := Flow{PerRequest: f.perRequest, Connections: f.connections}
	if _, err := load.Loop(ctx, f.to(s, warming), f.bodies, f.connections, load.Until{Time: b.part(warmPart)}); err != nil {
		return out, err
	}
	if rest == nil {
		rest = func() error { return nil }
	}
	if err := rest(); err != nil {
		return out, err
	}
	s.peak.Store(0)
	before, err := s.counters(ctx)
	if err != nil {
		return out, err
	}
	own, all, began := ownCPU(), allCPU(), time.Now()
	o, err := load.Loop(ctx, f.to(s, measured), f.bodies, f.connections, until)
	if err != nil {
		return out, err
	}
	own = ownCPU() - own
	if err := rest(); err != nil {
		return out, err
	}
	took, now := time.Since(began), allCPU()
	after, err := s.counters(ctx)
	if err != nil {
		return out, err
	}
	out.Requests, out.Events = o.Requests, o.Requests*int64(f.perRequest)
	events := float64(max(out.Events, 1))
	out.Seconds, out.Rate = took.Seconds(), float64(out.Events)/took.Seconds()
	out.P50, out.P99 = ms(load.Quantile(o.Waits, .5)), ms(load.Quantile(o.Waits, .99))
	cpu := after.cpu - before.cpu
	out.ServerCPU, out.SenderCPU = 1e6*cpu/events, 1e6*own.Seconds()/events
	out.Busy = (cpu + own.Seconds()) / (took.Seconds() * float64(b.report.Machine.Cores))
	out.Others = all.others(now, cpu+own.Seconds(), took.Seconds(), runtime.NumCPU())
	out.Syncing = (after.syncSeconds - before.syncSeconds) / took.Seconds()
	out.Syncs = int64(after.syncs - before.syncs)
	out.LogBytes = (after.logBytes - before.logBytes) / events
	out.Memory = max(s.peak.Load(), anonymous(s.cmd.Process.Pid))
	return out, nil
}

// writtenWithin bounds the wait for tables that are behind.
const writtenWithin = 5 * time.Minute

// allWritten waits until every acknowledged event is in a committed snapshot.
func (s *server) allWritten(ctx context.Context) error {
	deadline := time.Now().Add(writtenWithin)
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	for {
		text, err := s.Status(ctx)
		if err != nil {
			return err
		}
		var r status.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		waiting := int64(0)
		for _, st := range r.Streams {
			waiting += st.NotYetWritten
		}
		if waiting == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for tables: %d events are not written after %s; %v", waiting, writtenWithin, r.Problems)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ask.C:
		}
	}
}
