package bench

import (
	"fmt"
	"time"

	"naru/internal/quantity"
)

// Level says how much an advice matters.
type Level string

// Levels.
const (
	Warning Level = "warning" // something promised does not hold here, or will not
	Change  Level = "change"  // something to set or to do otherwise
	Note    Level = "note"    // how to read the figures, what to plan with
)

// Advice follows from figures by one rule.
type Advice struct {
	Rule  string `json:"rule"`
	Level Level  `json:"level"`
	Text  string `json:"text"` // what was found, why it matters, what to do
	// Setting of naru.yaml to change, and to what, where there is one.
	Setting string `json:"setting,omitempty"`
	Value   string `json:"value,omitempty"`
}

// Thresholds of the rules.
const (
	// slowSync, in ms: disks with power-loss protection answer faster, whatever
	// they are made of; those without, and disks behind a network, do not.
	slowSync = 5
	// lyingSync, in ms: faster than flash can make 4 KiB durable.
	lyingSync = 0.015
	// unevenSync, in ms: a 99th percentile above it that is also so many times the
	// median.
	unevenSync, unevenTimes = 20, 10
	// cpuBound and diskBound are shares of the cores and of the time.
	cpuBound, diskBound = 0.85, 0.6
	// crowded is a share of the cores that other programs use.
	crowded = 0.15
	// fresh enough, in ms: the 99th percentile that naru aims at.
	freshEnough = 1000
	// shortRun: below it starts and last commits are a large part of the figures.
	shortRun = 20
	// batchesPay: what costs so many times as much alone as in a batch is worth a word.
	batchesPay = 4
)

// Advise applies the rules to what was measured. It reads nothing but r.
func Advise(r *Report) []Advice {
	var out []Advice
	for _, rule := range []func(*Report) []Advice{
		readWithCare, durability, syncTime, growth, bound, fewCores, bodies, capacity, bandwidth, space, memory, freshness,
	} {
		out = append(out, rule(r)...)
	}
	if out == nil {
		out = []Advice{}
	}
	return out
}

func one(a Advice) []Advice { return []Advice{a} }

// readWithCare: what made the figures worse than they need be.
func readWithCare(r *Report) (out []Advice) {
	if r.Folder.Beside {
		out = append(out, Advice{Rule: "beside", Level: Note,
			Text: "a server runs on this folder: it shared the machine, so all figures are lower bounds. Measure while it is stopped to see what the machine can do"})
	}
	switch others := max(r.Batches.Others, r.Single.Others, r.Load.Others); {
	case r.Folder.Beside:
	case others > crowded:
		out = append(out, Advice{Rule: "busy", Level: Note,
			Text: fmt.Sprintf("other programs used up to %.0f%% of the cores meanwhile: all figures are lower bounds. Measure again on an idle machine", 100*others)})
	case r.Machine.LoadOnce > 0.5*float64(r.Machine.Cores):
		out = append(out, Advice{Rule: "busy", Level: Note,
			Text: fmt.Sprintf("the machine was busy before the measurement began (load %.1f on %s): if that went on, all figures are lower bounds", r.Machine.LoadOnce, Cores(r.Machine.Cores))})
	}
	if r.Seconds < shortRun {
		out = append(out, Advice{Rule: "short", Level: Note,
			Text: fmt.Sprintf("this took %.0f s: starts and last commits are a large part of that, and caches were cold. Let it run for a minute (--duration 1m) before you plan with the figures", r.Seconds)})
	}
	return out
}

// durability: what the disk does not hold.
func durability(r *Report) (out []Advice) {
	d := r.Disk
	switch {
	case d.Memory:
		out = append(out, Advice{Rule: "memory-disk", Level: Warning,
			Text: fmt.Sprintf("%s is memory: a sync costs nothing because it keeps nothing. What is acknowledged here is gone with the power. Put the folder on a disk", d.Name)})
	case d.Network:
		out = append(out, Advice{Rule: "network-disk", Level: Warning,
			Text: fmt.Sprintf("%s is a network or foreign file system: whether an acknowledged event survives, and whether locks and renames hold, is up to the other side. Put the folder on a local or replicated block device (docs/durability.md)", d.Name)})
	default:
		if s := d.sync(smallWrite, false); s.P50 > 0 && s.P50 < lyingSync {
			out = append(out, Advice{Rule: "lying-disk", Level: Warning,
				Text: fmt.Sprintf("4 KiB are made durable in %s, which is faster than flash can: does the disk honour flushes? Virtual disks with host caching \"unsafe\" and file systems mounted with nobarrier do not, and then an acknowledged event is lost with the power", ShowMS(s.P50))})
		}
	}
	return out
}

// syncTime: how long a sender waits, and how evenly.
func syncTime(r *Report) (out []Advice) {
	s := r.Disk.sync(smallWrite, false)
	if s.P50 > slowSync {
		out = append(out, Advice{Rule: "slow-sync", Level: Change,
			Text: fmt.Sprintf("a sync takes %s: a disk without power-loss protection, or one behind a network. An answer waits for one or two, so a sender that waits for each gets about %.0f acknowledgements a second, whatever the body holds: send bodies of 500 events and more (naru send --batch-events), and use several connections, which share a sync",
				ShowMS(s.P50), 1000/(1.5*s.P50))})
	}
	if s.P99 > unevenSync && s.P99 > unevenTimes*s.P50 {
		out = append(out, Advice{Rule: "uneven-sync", Level: Note,
			Text: fmt.Sprintf("one sync in a hundred takes more than %s, %.0f times the usual: something else uses this disk, or a cloud volume has used up its burst. Answers wait that long now and then; senders need time limits above it", ShowMS(s.P99), s.P99/max(s.P50, 1e-6))})
	}
	return out
}

// growth: written blocks sync faster than new ones, so retired segments are
// written again.
func growth(r *Report) []Advice {
	written, growing := r.Disk.sync(smallWrite, false), r.Disk.sync(smallWrite, true)
	if written.P50 <= 0 || growing.P50 < 1.3*written.P50 || r.Settings.Recycle >= r.Settings.Segment {
		return nil
	}
	return one(Advice{Rule: "recycle", Level: Change, Setting: "log.recycle", Value: (2 * r.Settings.Segment).String(),
		Text: fmt.Sprintf("a sync into new blocks takes %s, into blocks written before %s, and the log keeps no retired segment to write again", ShowMS(growing.P50), ShowMS(written.P50))})
}

// bound: what limits taking in.
func bound(r *Report) []Advice {
	b := r.Batches
	switch {
	case b.Busy >= cpuBound:
		return one(Advice{Rule: "cpu-bound", Level: Note,
			Text: fmt.Sprintf("the cores are the limit, not the disk (%d acknowledgements shared %d syncs). %.0f%% of the processor time was the sender's: with senders on other machines up to %s a second would fit into %s", b.Requests, b.Syncs, 100*b.SenderCPU/(b.SenderCPU+b.ServerCPU), events(perSecondOf(r, b.ServerCPU)), Cores(r.Machine.Cores))})
	case r.Machine.GoProcs == 1 || b.Others > crowded:
		// Who waits for a core waits in its sync, too: that says nothing of the disk.
	case b.Syncing >= diskBound:
		return one(Advice{Rule: "disk-bound", Level: Change,
			Text: fmt.Sprintf("the disk is the limit, not the cores: %.0f%% of the time went into syncs while the cores were busy for %.0f%%. More connections and larger bodies share each sync; a disk with power-loss protection makes it shorter", 100*b.Syncing, 100*b.Busy)})
	}
	return nil
}

// perSecondOf is how many events a second all cores could do at so many µs.
func perSecondOf(r *Report, cpu float64) float64 {
	if cpu <= 0 {
		return 0
	}
	return float64(r.Machine.Cores) * 1e6 / cpu
}

func fewCores(r *Report) []Advice {
	m := r.Machine
	switch {
	case m.GoProcs == 1 && m.Cores > 1:
		return one(Advice{Rule: "gomaxprocs", Level: Change,
			Text: fmt.Sprintf("GOMAXPROCS=1 leaves %d of %d cores unused, and nothing is taken in while the one waits in a system call: take it out of the environment", m.Cores-1, m.Cores)})
	case m.Cores == 1:
		return one(Advice{Rule: "one-core", Level: Change,
			Text: "one core does everything in turn: taking in, loading, queries and the sender. Give naru two"})
	}
	return nil
}

// bodies: how much sending one by one costs.
func bodies(r *Report) []Advice {
	one, many := r.Single.ServerCPU, r.Batches.ServerCPU
	if many <= 0 || one < batchesPay*many {
		return nil
	}
	return []Advice{{Rule: "bodies", Level: Note,
		Text: fmt.Sprintf("an event that comes alone costs the server %.1f µs, in a body of %d it costs %.2f µs. Let senders collect some hundred events, or a tenth of a second, before they send", one, r.Batches.PerRequest, many)}}
}

// capacity: what to plan with, and for how long a peak may last.
func capacity(r *Report) []Advice {
	if r.Load.Rate <= 0 {
		return nil
	}
	text := fmt.Sprintf("plan for at most half of %s a second as a lasting rate: more is taken in than loaded, and queries need their part", events(r.Load.Rate))
	if over := r.Batches.Rate - r.Load.Rate; over > 0 && r.Load.LogBytes > 0 {
		room := float64(r.Settings.RetainBytes)
		if free := float64(r.Folder.Free + r.Folder.Log - int64(r.Settings.Reserve)); room == 0 || free < room {
			room = free
		}
		if hold := time.Duration(room / (over * r.Load.LogBytes) * float64(time.Second)); hold > 0 {
			text += fmt.Sprintf("; a peak of %s a second is taken in for %s before the log has filled its room, and loaded afterwards", events(r.Batches.Rate), roughly(hold))
		}
	}
	return one(Advice{Rule: "capacity", Level: Note, Text: text})
}

// bandwidth: bytes a second, which cloud volumes sell by the piece.
func bandwidth(r *Report) []Advice {
	need := r.Batches.Rate * r.Batches.LogBytes
	if r.Disk.Sequential <= 0 || need < 0.5*r.Disk.Sequential {
		return nil
	}
	return one(Advice{Rule: "bandwidth", Level: Change,
		Text: fmt.Sprintf("the disk writes %s a second, and the log alone wrote %s of these: its bandwidth is the limit, or nearly. A volume with more of it helps, faster syncs do not", quantity.Bytes(r.Disk.Sequential), quantity.Bytes(need))})
}

// space: the log may grow to its limit, and below the reserve nothing is taken.
func space(r *Report) []Advice {
	s := r.Settings
	room := quantity.Bytes(r.Folder.Free+r.Folder.Log) - s.Reserve
	if s.RetainBytes != 0 && s.RetainBytes <= room {
		return nil
	}
	grows := "may grow to " + s.RetainBytes.String()
	if s.RetainBytes == 0 {
		grows = "has no limit in bytes"
	}
	a := Advice{Rule: "space", Level: Change, Text: fmt.Sprintf("the log %s, and this disk has room for %s of it beside log.reserve (%s), the tables not counted; when it is full, senders get 503. Make room, or let the log keep less", grows, max(room, 0), s.Reserve)}
	if half := room / 2 / quantity.GiB * quantity.GiB; half >= 2*s.Segment {
		a.Setting, a.Value = "log.retain_bytes", half.String()
	}
	return one(a)
}

// others is what the parts of the server that have no setting take, roughly.
const others = 192 * quantity.MiB

// memory: the limits that may be used up at the same time.
func memory(r *Report) []Advice {
	s, m := r.Settings, quantity.Bytes(r.Machine.Memory)
	rest := s.InFlight + s.Queue + 2*s.LakeMemory + s.HotTailMemory + others
	if m <= 0 || s.QueryMemory+rest <= m*8/10 {
		return nil
	}
	a := Advice{Rule: "memory", Level: Change,
		Text: fmt.Sprintf("the machine has %s, and queries (query.memory, %s), bodies, the log's queue, rows before their commit and the hot tail may take %s together: the system would end the server", m, s.QueryMemory, s.QueryMemory+rest)}
	if fits := (m*8/10 - rest) / (64 * quantity.MiB) * (64 * quantity.MiB); fits >= 64*quantity.MiB {
		a.Setting, a.Value = "query.memory", fits.String()
	}
	return one(a)
}

// freshness: without the hot tail it hangs on the commit interval.
func freshness(r *Report) []Advice {
	f := r.Freshness
	if f.P99 <= freshEnough {
		return nil
	}
	if r.Settings.HotTailMemory == 0 {
		return one(Advice{Rule: "hot-tail", Level: Change, Setting: "hot_tail.memory", Value: "96MiB",
			Text: fmt.Sprintf("an event is seen by a query up to %s after its acknowledgement, because queries wait for its commit (pipelines.commit_interval, %s): the hot tail is turned off", ShowMS(f.P99), f.CommitInterval)})
	}
	return one(Advice{Rule: "stale", Level: Note,
		Text: fmt.Sprintf("an event is seen by a query up to %s after its acknowledgement, at only %s a second: the machine is busy with something else, its disk is slow, or tables are far behind (naru status shows each one's lag, naru_hot_tail_behind_total counts the queries that had to do without the newest rows)", ShowMS(f.P99), events(f.Rate))})
}

// events writes a number of events for people.
func events(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f million events", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f,000 events", n/1e3)
	}
	return fmt.Sprintf("%.0f events", n)
}

// Cores writes a number of cores.
func Cores(n int) string {
	if n == 1 {
		return "1 core"
	}
	return fmt.Sprintf("%d cores", n)
}

// ShowMS writes milliseconds with the unit that suits.
func ShowMS(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 1:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f µs", ms*1000)
}

// roughly writes a long time with one unit.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	}
	return fmt.Sprintf("%.0f seconds", d.Seconds())
}
