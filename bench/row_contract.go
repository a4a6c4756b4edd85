package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	judgedShare = 0.75 // of the rate without
	judgedCost  = 1.0  // µs of CPU an event, of the contract and the id at the door
)

// pageContract is the nine-field contract of the corpus.
const pageContract = "internal/contract/testdata/page.odcs.yaml"

// rowContract is row 5: what contracts and duplicates cost.
func rowContract() *row {
	return &row{
		name:     "5",
		scenario: "rows 1 and 3 with a nine-field contract and an id of the client's in each event, and without",
		target:   "≤ 1 µs an event at the door; ≥ 0.75 × the rates without",
		method: "In turn, the same bytes: once no contract and ids made by the server, once the contract in force and `id_field=event_id`, every id sent once. Door: as row 1. Tables: as row 3, but the" +
			" corpus once after a warm-up; all of it must be written, none refused, none a duplicate.",
		take: func(b *bench) error {
			for range b.runs {
				for _, judged := range []bool{false, true} {
					if err := errors.Join(b.judgedDoor(judged), b.judgedRows(judged)); err != nil {
						return err
					}
				}
			}
			return nil
		},
		judge: func(all []measure) verdict {
			door, judgedDoor := median(of(all, "naru", "door")), median(of(all, "naru", "door, judged"))
			rows, judgedRows := median(of(all, "naru", "tables")), median(of(all, "naru", "tables, judged"))
			cost, atDoor, inTables := judgedDoor.CPU-door.CPU, judgedDoor.Rate/door.Rate, judgedRows.Rate/rows.Rate
			return verdict{
				met:  cost <= judgedCost && atDoor >= judgedShare && inTables >= judgedShare,
				peer: "itself", ratio: fmt.Sprintf("door %.2f ×, tables %.2f × events/s", atDoor, inTables),
				ours: fmt.Sprintf("door %.0f k events/s (without %.0f k), %+.2f µs CPU; tables %.0f k (without %.0f k), %+.2f µs CPU, %d MB (without %d MB)",
					judgedDoor.Rate/1e3, door.Rate/1e3, cost, judgedRows.Rate/1e3, rows.Rate/1e3, judgedRows.CPU-rows.CPU, judgedRows.Memory/1e6, rows.Memory/1e6),
			}
		},
	}
}

func judgedCase(name string, judged bool) string {
	if judged {
		return name + ", judged"
	}
	return name
}

// startJudged starts a server that has the contract of the corpus, if judged.
func (s settings) startJudged(judged bool, config string, args ...string) (*server, error) {
	folder, err := s.folder(config)
	if err != nil {
		return nil, err
	}
	if judged {
		text, err := os.ReadFile(pageContract)
		if err != nil {
			return nil, err
		}
		if err := os.Mkdir(filepath.Join(folder, "contracts"), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(folder, "contracts", filepath.Base(pageContract)), text, 0o644); err != nil {
			return nil, err
		}
	}
	return s.resume(folder, args...)
}

// judgedTo is where the corpus goes, every event with an id that was not sent before.
func (s *server) judgedTo(judged bool, all [][]byte) target {
	to := s.to("page", ndjson)
	if judged {
		to.path += "&id_field=event_id"
	}
	to.ids = newIDs(all)
	return to
}

func (b *bench) judgedDoor(judged bool) error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startJudged(judged, "", "--no-pipelines")
	if err != nil {
		return err
	}
	m, err := b.stretch("naru", s.process, s.judgedTo(judged, all), all, batchSize, batchConnections, s.syncs)
	if err = errors.Join(err, s.remove()); err != nil {
		return err
	}
	m.Case = judgedCase("door", judged)
	b.add(m)
	return nil
}

func (b *bench) judgedRows(judged bool) error {
	all, err := bodies(b.wholeCorpus, b.whole, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startJudged(judged, commitEvery("1s"))
	if err != nil {
		return err
	}
	m, err := func() (measure, error) {
		to := s.judgedTo(judged, all)
		warm, err := closedLoop(to, all, batchSize, batchConnections, 0, b.warm)
		if err != nil {
			return measure{}, err
		}
		if err := s.committed("page", warm.Events, warm.Events); err != nil {
			return measure{}, err
		}
		return counted("naru", s.process, s.syncs, func() (outcome, error) {
			began := time.Now()
			o, err := closedLoop(to, all, batchSize, batchConnections, 1, 0)
			if err == nil {
				err = s.committed("page", warm.Events+o.Events, warm.Events+o.Events)
			}
			o.Wall = time.Since(began)
			return o, err
		})
	}()
	if err = errors.Join(err, s.remove()); err != nil {
		return err
	}
	m.Case = judgedCase("tables", judged)
	b.add(m)
	return nil
}

// ids are the places of the events' ids in bodies that are sent again and again.
type ids struct {
	at   [][]int        // by body
	sent []atomic.Int32 // how often each was sent
}

// idField stands before each id of the corpus.
const idField = `"event_id":"`

func newIDs(bodies [][]byte) *ids {
	x := &ids{at: make([][]int, len(bodies)), sent: make([]atomic.Int32, len(bodies))}
	for i, b := range bodies {
		for at := 0; ; {
			n := bytes.Index(b[at:], []byte(idField))
			if n < 0 {
				break
			}
			at += n + len(idField)
			x.at[i] = append(x.at[i], at)
		}
	}
	return x
}

// renew gives the events of a body ids that they have not had: their first four
// digits count how often the body was sent. body is the caller's alone meanwhile: a
// body's turn comes again when all others have been sent.
func (x *ids) renew(i int, body []byte) {
	const digits = "0123456789abcdef"
	n := x.sent[i].Add(1)
	for _, at := range x.at[i] {
		for d := range 4 {
			body[at+d] = digits[n>>(12-4*d)&15]
		}
	}
}
