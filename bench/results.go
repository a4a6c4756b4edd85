package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Magic numbers of statfs(2).
var fileSystems = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs", 0xf2f52010: "f2fs", 0x794c7630: "overlayfs",
	0x01021994: "tmpfs", 0x858458f6: "ramfs",
}

// fileSystem names what the folder stands on, and refuses memory: an fsync
// there is free.
func fileSystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	name := fileSystems[int64(st.Type)]
	switch name {
	case "tmpfs", "ramfs":
		return "", fmt.Errorf("%s is on %s, where an fsync costs nothing; give --dir on a disk", dir, name)
	case "":
		name = fmt.Sprintf("type %#x", st.Type)
	}
	return name, nil
}

func printTable(out io.Writer, rows []*row) {
	fmt.Fprintln(out, "\n| # | scenario | target | ours | peer | ratio |\n| --- | --- | --- | --- | --- | --- |")
	for _, r := range rows {
		ours := median(r.naru)
		met := "met"
		if ours.Rate < r.rate || ours.CPU > r.cpu {
			met = "not met"
		}
		peer, ratio := "not installed", "-"
		if len(r.bento) > 0 {
			m := median(r.bento)
			peer, ratio = m.short(), fmt.Sprintf("%.1f × events/s, %.2f × CPU", ours.Rate/m.Rate, ours.CPU/m.CPU)
		}
		fmt.Fprintf(out, "| %d | %s | %s: %s | %s | %s | %s |\n", r.number, r.scenario, r.target, met, ours.short(), peer, ratio)
	}
}

func (m measure) short() string {
	s := fmt.Sprintf("%s: %.0f k events/s, %.2f µs CPU, %d MB", m.System, m.Rate/1e3, m.CPU, m.Memory>>20)
	if m.Syncs >= 0 {
		return s + fmt.Sprintf(", %d fsyncs for %d acknowledgements", m.Syncs, m.Answers)
	}
	return s + ", no fsync"
}

// writeResults keeps the figures with all that is needed to judge them.
func writeResults(path string, rows []*row, s settings, fs, origin string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured\n\nWritten by `make bench-full`; `make bench` prints the same table from shorter runs.\n\n")
	fmt.Fprintf(&b, "- commit: %s\n- date: %s\n- machine: %s, %d cores, %s; %s; %s; file system %s\n", version(s.naru), time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		cpuModel(), runtime.NumCPU(), memory(), kernel(), runtime.Version(), fs)
	fmt.Fprintf(&b, `- corpus: %d page views (%s), some 265 bytes each
- method: server and load generator on the same machine; closed loop, keep-alive, bodies of %d events rendered
  beforehand, %d connections; naru and its peer in turn, %d runs each, the median of each figure in the table; %v of warm-up
  each. Row 1: %v measured, `+"`serve --no-pipelines`"+`. Row 3: %d rounds over the corpus, from the first byte until SQL counts
  every event in committed files, commits every second (the default is five). The peer of row 3 takes
  the corpus once, needs %d connections to fill its files and answers when they are written. CPU is the server's alone,
  by /proc; memory the most of RssAnon + RssShmem.
- an answer of naru means on disk (fdatasync), one of Bento does not

`, s.events, origin, batchSize, connections, s.runs, s.warm, s.last, s.rounds, bentoParquetConnections)
	printTable(&b, rows)
	fmt.Fprintf(&b, "\n## Raw numbers\n\n```json\n")
	for _, r := range rows {
		for i, m := range r.naru {
			for _, one := range append([]measure{m}, r.bento[min(i, len(r.bento)):min(i+1, len(r.bento))]...) {
				raw, err := json.Marshal(struct {
					Row int `json:"row"`
					Run int `json:"run"`
					measure
				}{r.number, i + 1, one})
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "%s\n", raw)
			}
		}
	}
	b.WriteString("```\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// version is what the measured binary says it was built from.
func version(binary string) string {
	out, err := exec.Command(binary, "version").Output()
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first
}

func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func cpuModel() string { return field("/proc/cpuinfo", "model name") }

func memory() string {
	var kb int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (kb+1<<19)>>20)
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown kernel"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
