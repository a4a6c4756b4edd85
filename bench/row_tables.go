package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const bentoParquet = "Bento → Parquet"

// bentoParquetConnections keep enough bodies in flight to fill the 10,000
// rows of a file: Bento answers when the file is written.
const bentoParquetConnections = 64

// rowRows is row 3: from the first byte sent until SQL counts every event and
// all of them are in committed Iceberg files.
func rowRows() *row {
	return &row{
		name:     "3",
		scenario: "HTTP → rows committed in Iceberg, typed columns, zstd Parquet",
		target:   "≥ 550 k events/s, ≤ 3 µs",
		method: "Closed loop, 500-event bodies, 8 connections, rounds over the corpus; from the first byte until the pipeline has written every event" +
			" to committed files and SQL counts them all; commits every second, as the peers with tables were set (the default is five). Bento takes the corpus once, needs 64" +
			" connections to fill its files and answers when they are written: no table, no fsync.",
		take: func(b *bench) error {
			for range b.runs {
				if err := b.rows(); err != nil {
					return err
				}
				if b.bento == "" {
					continue
				}
				if err := b.bentoRows(); err != nil {
					return err
				}
			}
			return nil
		},
		judge: func(all []measure) verdict {
			return beside(all, bentoParquet, func(ours, _ *measure) bool { return ours.Rate >= 550e3 && ours.CPU <= 3 })
		},
	}
}

func (b *bench) rows() error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startNaru(commitEvery("1s"))
	if err != nil {
		return err
	}
	m, err := func() (measure, error) {
		warm, err := closedLoop(s.to("warm_up", ndjson), all, batchSize, batchConnections, 0, b.warm)
		if err != nil {
			return measure{}, err
		}
		if err := s.committed("warm_up", warm.Events, warm.Events); err != nil {
			return measure{}, err
		}
		return counted("naru", s.process, s.syncs, func() (outcome, error) {
			began := time.Now()
			o, err := closedLoop(s.to("page", ndjson), all, batchSize, batchConnections, b.rounds, 0)
			if err == nil {
				err = s.committed("page", o.Events, warm.Events+o.Events)
			}
			o.Wall = time.Since(began)
			return o, err
		})
	}()
	if err = errors.Join(err, s.remove()); err != nil {
		return err
	}
	b.add(m)
	return nil
}

// committed waits until the pipeline has written so many events in all to
// committed files, and then until SQL counts the table's.
func (s *server) committed(table string, rows, all int64) error {
	const within = 5 * time.Minute
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		n, err := s.written()
		if err != nil {
			return err
		}
		if n == all {
			return waitRows(s.address, table, rows)
		}
		if n > all || time.Now().After(deadline) {
			return fmt.Errorf("wait for commits: %d events written, not %d", n, all)
		}
	}
}

func (b *bench) bentoRows() error {
	all, err := bodies(b.corpus, b.events, batchSize)
	if err != nil {
		return err
	}
	p, folder, err := b.startBento("bento_parquet.yaml")
	if err != nil {
		return err
	}
	to := target{address: bentoAddress, path: "/post", media: ndjson}
	_, err = closedLoop(to, all, batchSize, bentoParquetConnections, 0, b.warm)
	var m measure
	if err == nil {
		m, err = counted(bentoParquet, p, nil, func() (outcome, error) {
			return closedLoop(to, all, batchSize, bentoParquetConnections, 1, 0)
		})
	}
	_ = p.stop()
	if err = errors.Join(err, os.RemoveAll(folder)); err != nil {
		return err
	}
	b.add(m)
	return nil
}

const (
	duckName       = "DuckDB"
	duckRunsASide  = 3 // before ours, and again after
	queryableRuns  = 2
	queryableRatio = 2.0
)

// rowQueryable is row 4: the whole corpus from HTTP until a query counts it.
func rowQueryable() *row {
	return &row{
		name:     "4",
		scenario: "the corpus from HTTP to queryable, beside DuckDB loading the same file",
		target:   fmt.Sprintf("≤ %.1f × DuckDB's time in the same run", queryableRatio),
		method: "Closed loop, 500-event bodies, 8 connections, default settings; after a warm-up into another table, from the first byte until `POST /v1/sql` counts every event." +
			" Two runs, the better one. DuckDB copies the file (in the page cache) to one zstd Parquet file, three times before and three after, the median; its" +
			" time is the COPY's alone, nothing is synced.",
		take: func(b *bench) error {
			duck := func() error {
				for range duckRunsASide {
					if b.duckdb == "" {
						return nil
					}
					t, err := b.duckLoad()
					if err != nil {
						return err
					}
					if t.Rows != int64(b.whole) {
						return fmt.Errorf("DuckDB loaded %d events, not %d", t.Rows, b.whole)
					}
					b.add(measure{System: duckName, Case: t.Version, Events: t.Rows, Rate: float64(t.Rows) / t.Seconds,
						CPU: t.CPU * 1e6 / float64(t.Rows), Syncs: -1, Wall: t.Seconds})
				}
				return nil
			}
			if err := duck(); err != nil {
				return err
			}
			for range queryableRuns {
				if err := b.queryable(); err != nil {
					return err
				}
			}
			return duck()
		},
		judge: func(all []measure) verdict {
			runs := of(all, "naru", "")
			best := slices.MinFunc(runs, func(x, y measure) int { return int((x.Wall - y.Wall) * 1e6) })
			v := verdict{peer: "not installed", ratio: "-", ours: fmt.Sprintf("naru: %d events in %.2f s, %.2f µs CPU, %d MB, %s",
				best.Events, best.Wall, best.CPU, best.Memory/1e6, best.durability())}
			if peers := of(all, duckName, ""); len(peers) > 0 {
				peer := median(peers)
				v.peer = fmt.Sprintf("DuckDB %s: %.2f s (%d runs), %.2f µs CPU, no fsync", peer.Case, peer.Wall, len(peers), peer.CPU)
				v.ratio = fmt.Sprintf("%.2f × time, %.2f × CPU", best.Wall/peer.Wall, best.CPU/peer.CPU)
				v.met = best.Wall/peer.Wall <= queryableRatio
			}
			return v
		},
	}
}

func (b *bench) queryable() error {
	all, err := bodies(b.wholeCorpus, b.whole, batchSize)
	if err != nil {
		return err
	}
	s, err := b.startNaru("")
	if err != nil {
		return err
	}
	m, err := func() (measure, error) {
		warm, err := closedLoop(s.to("warm_up", ndjson), all, batchSize, batchConnections, 0, b.warm)
		if err != nil {
			return measure{}, err
		}
		if err := waitRows(s.address, "warm_up", warm.Events); err != nil {
			return measure{}, err
		}
		var sent time.Duration
		m, err := counted("naru", s.process, s.syncs, func() (outcome, error) {
			began := time.Now()
			o, err := closedLoop(s.to("page", ndjson), all, batchSize, batchConnections, 1, 0)
			sent = time.Since(began)
			if err == nil {
				err = waitRows(s.address, "page", o.Events)
			}
			o.Wall = time.Since(began)
			return o, err
		})
		m.Figures = map[string]float64{"acknowledged_s": sent.Seconds()}
		return m, err
	}()
	if err = errors.Join(err, s.remove()); err != nil {
		return err
	}
	b.add(m)
	return nil
}
