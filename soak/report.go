package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// summary is the outcome of a run, for machines.
type summary struct {
	settings
	Violations   []string  `json:"violations"`
	Stopped      string    `json:"stopped,omitempty"` // why the run could not go on
	Seconds      float64   `json:"seconds_of_load"`
	Acknowledged int64     `json:"events_acknowledged"`
	Average      float64   `json:"events_per_second"`
	Skipped      int64     `json:"events_left_out"`
	MostBehind   float64   `json:"most_behind_schedule_seconds"`
	Busy         int64     `json:"answers_429_and_503"`
	P50          float64   `json:"p50_ms"`
	P99          float64   `json:"p99_ms"`
	Max          float64   `json:"max_ms"`
	Questions    int       `json:"questions"`
	QuestionP50  float64   `json:"question_p50_ms"`
	QuestionP99  float64   `json:"question_p99_ms"`
	Whole        int       `json:"unknown_requests_whole"`
	Absent       int       `json:"unknown_requests_absent"`
	Files        int       `json:"data_files"`
	Checking     float64   `json:"checking_seconds"`
	Verify       string    `json:"verify"`
	Verdicts     []verdict `json:"verdicts"`
	Deaths       []death   `json:"kills"`
	Samples      []sample  `json:"samples"`
}

func (s *soak) summary(stopped error) summary {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	out := summary{settings: s.settings, Violations: s.found.all(), Seconds: s.loaded.Seconds(), Acknowledged: s.load.sent.Load(),
		Skipped: s.load.skipped.Load(), MostBehind: time.Duration(s.load.behind.Load()).Seconds(), Busy: s.load.busy.Load(),
		P50: ms(s.load.waits.quantile(0.5)), P99: ms(s.load.waits.quantile(0.99)), Max: ms(s.load.waits.max()),
		Questions: s.asker.asked, QuestionP50: ms(s.asker.waits.quantile(0.5)), QuestionP99: ms(s.asker.waits.quantile(0.99)),
		Files: s.files, Checking: s.checking.Seconds(), Verify: s.verified, Verdicts: s.verdicts, Deaths: s.deaths, Samples: s.sampler.samples()}
	if out.Seconds > 0 {
		out.Average = float64(out.Acknowledged) / out.Seconds
	}
	if s.proof != nil {
		out.Whole, out.Absent = s.proof.whole, s.proof.absent
	}
	if stopped != nil {
		out.Stopped = stopped.Error()
	}
	return out
}

func (o summary) writeJSON(path string) error {
	b, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// write prints the summary in Markdown.
func (o summary) write(w io.Writer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("\n## Soak, seed %d\n", o.Seed)
	p("| | |\n| --- | --- |")
	p("| load | %.0f s at %.0f events/s over %d connections, %d acknowledged events, %.0f a second on average, restarts included |", o.Seconds, o.settings.Rate, o.Connections, o.Acknowledged, o.Average)
	p("| behind schedule | %.1f s at most; %d events left out; %d answers 429 or 503 |", o.MostBehind, o.Skipped, o.Busy)
	p("| acknowledgement | p50 %.2f ms, p99 %.1f ms, max %.0f ms |", o.P50, o.P99, o.Max)
	p("| questions | %d, p50 %.0f ms, p99 %.0f ms |", o.Questions, o.QuestionP50, o.QuestionP99)
	p("| kills | %d; requests without an answer: %d there whole, %d not at all |", len(o.Deaths), o.Whole, o.Absent)
	p("| proof | %d data files read in %.0f s; naru verify --deep: %s |", o.Files, o.Checking, o.Verify)
	if n := len(o.Samples); n > 0 {
		first, last := o.Samples[0], o.Samples[n-1]
		most := first
		for _, s := range o.Samples {
			most.Anon, most.RSS, most.Goroutines = max(most.Anon, s.Anon), max(most.RSS, s.RSS), max(most.Goroutines, s.Goroutines)
			most.Descriptors, most.Lag = max(most.Descriptors, s.Descriptors), max(most.Lag, s.Lag)
			most.Log, most.MetadataFile = max(most.Log, s.Log), max(most.MetadataFile, s.MetadataFile)
		}
		p("| most | anonymous memory %d MiB, resident %d MiB, %d goroutines, %d descriptors, commit lag %.1f s |", most.Anon>>20, most.RSS>>20, most.Goroutines, most.Descriptors, most.Lag)
		p("| folder | log %d MiB at most, oldest segment %s then %s; lake %d MiB in %d files, of that metadata %d MiB, its largest file %d KiB |",
			most.Log>>20, first.Oldest, last.Oldest, last.Lake>>20, last.LakeFiles, last.Metadata>>20, most.MetadataFile>>10)
	}
	p("\n| what must not grow | begins at | ends at | readings | |\n| --- | --- | --- | --- | --- |")
	for _, v := range o.Verdicts {
		says := "flat"
		switch {
		case !v.Judged:
			says = "too few to judge"
		case !v.Flat:
			says = "**grows**"
		}
		p("| %s | %.4g | %.4g | %d | %s |", v.What, v.First, v.Last, v.Points, says)
	}
	p("\n| kill | at s | requests in flight | rows not committed | ready again after s |\n| --- | --- | --- | --- | --- |")
	for _, d := range o.Deaths {
		p("| %d | %.0f | %d | %d | %.2f |", d.Life, d.At, d.Requests, d.Rows, d.Ready)
	}
	if o.Stopped != "" {
		p("\nThe run could not go on: %s", o.Stopped)
	}
	if len(o.Violations) == 0 && o.Stopped == "" {
		p("\nNo violations.")
		return
	}
	p("\n### %d violations\n", len(o.Violations))
	for _, v := range o.Violations {
		p("- %s", v)
	}
}
