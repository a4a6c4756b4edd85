package main

import (
	"errors"
	"os"
	"time"
)

const (
	batchSize         = 500
	batchConnections  = 8
	singleConnections = 32
)

const bentoLines = "Bento → file"

// rowBatches is row 1: bodies of 500 events, acknowledged when on disk.
func rowBatches() *row {
	return &row{
		name:     "1",
		scenario: "HTTP, 500-event bodies, 8 connections, acknowledged on disk (no pipelines)",
		target:   "≥ 1 M events/s, ≤ 1.1 µs, fsync",
		method:   "`serve --no-pipelines`; closed loop; a warm-up, then a stretch of time. Bento splits each body into lines and appends them to a file.",
		take: func(b *bench) error {
			return b.door("bento_lines.yaml", batchSize, batchConnections, ndjson)
		},
		judge: func(all []measure) verdict {
			return beside(all, bentoLines, func(ours, _ *measure) bool { return ours.Rate >= 1e6 && ours.CPU <= 1.1 })
		},
	}
}

// rowSingles is row 2: one event a request.
func rowSingles() *row {
	return &row{
		name:     "2",
		scenario: "HTTP, one event a request, 32 connections, acknowledged on disk (no pipelines)",
		target:   "≥ 1.0 × Bento in the same run, p99 < 3 ms, fsync",
		method:   "As row 1 with one event a body. Bento appends each body to a file.",
		take: func(b *bench) error {
			return b.door("bento_single.yaml", 1, singleConnections, single)
		},
		judge: func(all []measure) verdict {
			return beside(all, bentoLines, func(ours, peer *measure) bool {
				return ours.P99 < 3 && peer != nil && ours.Rate >= peer.Rate
			})
		},
	}
}

// door measures acknowledged events, naru and Bento in turn, so that both meet
// the same machine.
func (b *bench) door(bentoConfig string, batch, connections int, media string) error {
	n := b.events
	if batch == 1 {
		n = min(n, 200_000) // a request each: more would only take the generator's memory
	}
	all, err := bodies(b.corpus, n, batch)
	if err != nil {
		return err
	}
	for range b.runs {
		s, err := b.startNaru("", "--no-pipelines")
		if err != nil {
			return err
		}
		m, err := b.stretch("naru", s.process, s.to("page", media), all, batch, connections, s.syncs)
		if err = errors.Join(err, s.remove()); err != nil {
			return err
		}
		b.add(m)
		if b.bento == "" {
			continue
		}
		p, folder, err := b.startBento(bentoConfig)
		if err != nil {
			return err
		}
		m, err = b.stretch(bentoLines, p, target{address: bentoAddress, path: "/post", media: media}, all, batch, connections, nil)
		_ = p.stop() // its exit code does not matter to the figure
		if err = errors.Join(err, os.RemoveAll(folder)); err != nil {
			return err
		}
		b.add(m)
	}
	return nil
}

// stretch is a warm-up and then a measured stretch of time. syncs may be nil.
func (b *bench) stretch(system string, p *process, to target, all [][]byte, batch, connections int, syncs func() (int64, error)) (measure, error) {
	if _, err := closedLoop(to, all, batch, connections, 0, b.warm); err != nil {
		return measure{}, err
	}
	return counted(system, p, syncs, func() (outcome, error) {
		return closedLoop(to, all, batch, connections, 0, b.last)
	})
}

// counted runs a load and adds what the server's CPU time and fsyncs were
// meanwhile, and what others took of the machine.
func counted(system string, p *process, syncs func() (int64, error), load func() (outcome, error)) (measure, error) {
	synced := int64(0)
	var err error
	if syncs != nil {
		if synced, err = syncs(); err != nil {
			return measure{}, err
		}
	}
	before, busyBefore, ownBefore, began := p.cpu(), busy(), own(), time.Now()
	o, err := load()
	if err != nil {
		return measure{}, err
	}
	cpu := p.cpu() - before
	m := o.measure(system, cpu, p)
	others := busy() - busyBefore - cpu - (own() - ownBefore)
	m.Others = max(0, others.Seconds()) / time.Since(began).Seconds()
	if syncs != nil {
		now, err := syncs()
		if err != nil {
			return measure{}, err
		}
		m.Syncs = now - synced
	}
	return m, nil
}
