package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is a line of the performance table.
type row struct {
	name     string
	scenario string
	target   string // in words, as it stands in the table
	method   string // how it is taken, for RESULTS.md
	take     func(*bench) error
	judge    func([]measure) verdict
}

// verdict is what the table says of a row's runs.
type verdict struct {
	met               bool
	ours, peer, ratio string
}

// table lists the rows in the order they are taken in.
func table() []*row {
	return []*row{rowBatches(), rowSingles(), rowRows(), rowQueryable(), rowContract(), rowFresh(), rowSteady(), rowStart(), rowPipelines(), rowShare()}
}

// settings of a whole run.
type settings struct {
	naru, bento, duckdb string // binaries; the peers' may be ""
	dir                 string // scratch, on a real disk
	full                bool
	corpus              string // file of events page views
	wholeCorpus         string // file of whole page views, for the row that is about them
	events, whole       int
	warm, last          time.Duration
	rounds              int // over the corpus, in rows that send it whole
	runs                int
	steady              time.Duration // of row 7
	rate                int           // events a second of rows 6 and 7
	startSizes          []int64       // bytes in the log, of row 8
	shareRounds         int           // over the whole corpus, in each round of that row
}

// bench is a run over some rows.
type bench struct {
	settings
	row    string // that is being taken
	commit string
	raw    []measure
}

// add keeps a measure and prints it.
func (b *bench) add(m measure) {
	m.Row, m.Full, m.Run = b.row, b.full, 1
	if strings.HasPrefix(m.System, "naru") {
		m.Commit = b.commit
	}
	m.At = time.Now().UTC().Format("2006-01-02T15:04Z")
	for _, o := range b.raw {
		if o.Row == m.Row && o.System == m.System && o.Case == m.Case {
			m.Run++
		}
	}
	b.raw = append(b.raw, m)
	line := fmt.Sprintf("row %s  %s", m.Row, m.System)
	if m.Case != "" {
		line += ", " + m.Case
	}
	line += ":"
	if m.Wall > 0 {
		line += fmt.Sprintf(" %.2f s", m.Wall)
	}
	if m.Rate > 0 {
		line += fmt.Sprintf(" %.0f events/s", m.Rate)
	}
	if m.CPU > 0 {
		line += fmt.Sprintf("  %.2f µs CPU/event", m.CPU)
	}
	if m.Memory > 0 {
		line += fmt.Sprintf("  %d MB", m.Memory/1e6)
	}
	if m.Answers > 0 {
		line += fmt.Sprintf("  p50 %.1f ms  p99 %.1f ms  %s", m.P50, m.P99, m.durability())
	}
	if m.Others > 0.05 {
		line += fmt.Sprintf("  (others took %.1f cores)", m.Others)
	}
	if len(m.Figures) > 0 {
		line += "  " + sorted(m.Figures)
	}
	fmt.Println(line)
}

// sorted writes figures in order of their names.
func sorted(figures map[string]float64) string {
	var words []string
	for name, value := range figures {
		words = append(words, name+" "+strconv.FormatFloat(math.Round(value*1000)/1000, 'f', -1, 64))
	}
	slices.Sort(words)
	return strings.Join(words, "  ")
}

// durability says how many fsyncs stand behind the acknowledgements.
func (m measure) durability() string {
	if m.Syncs < 0 {
		return "no fsync"
	}
	return fmt.Sprintf("%d fsyncs for %d acknowledgements", m.Syncs, m.Answers)
}

// short is a measure of ingest in a cell.
func (m measure) short() string {
	return fmt.Sprintf("%s: %.0f k events/s, %.2f µs CPU, p50 %.1f ms, p99 %.1f ms, %d MB, %s",
		m.System, m.Rate/1e3, m.CPU, m.P50, m.P99, m.Memory/1e6, m.durability())
}

// beside fills the cells of a row that naru and one peer share.
func beside(all []measure, peer string, met func(ours, peer *measure) bool) verdict {
	ours := median(of(all, "naru", ""))
	v := verdict{ours: ours.short(), peer: "not installed", ratio: "-"}
	var other *measure
	if runs := of(all, peer, ""); len(runs) > 0 {
		m := median(runs)
		other = &m
		v.peer, v.ratio = m.short(), fmt.Sprintf("%.2f × events/s, %.2f × CPU", ours.Rate/m.Rate, ours.CPU/m.CPU)
	}
	v.met = met(&ours, other)
	return v
}
