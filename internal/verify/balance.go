package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"naru/internal/event"
	"naru/internal/lake/iceberg"
	"naru/internal/stream"
)

// report puts together what was found.
func (v *verifier) report() *Report {
	r := &Report{Deep: v.Deep, Beside: v.Beside, Streams: []Stream{}, Pipelines: v.reportFilled(),
		Log: Log{Incarnation: v.log.Incarnation, Segments: v.log.Segments, Bytes: v.log.Bytes, Events: v.events}}
	refused := int64(0)
	kept, trimmed := int64(0), int64(0)
	for _, st := range v.log.Streams {
		if event.Internal(st.Stream) {
			continue
		}
		refused += st.Refused
		if st.Stream == event.RejectedStream {
			kept = st.Acknowledged
			for _, n := range st.Trimmed {
				trimmed += n
			}
		}
		r.Streams = append(r.Streams, v.balance(st))
	}
	// An event is refused for its stream until it is sent again, which the stream
	// rejected counts. For whom it was refused stands in its frame only: where a repair has
	// lost that, the log knows of one more in the stream rejected than of others.
	// What steps and sinks have refused was accepted at the door; how much of that
	// retention has dropped, nobody counts.
	kept -= v.byPipelines
	if v.byPipelines == 0 {
		trimmed = 0
	}
	if refused > kept || kept-refused > v.lostOf(event.RejectedStream)+trimmed {
		v.wrong.note(Difference{Kind: BadCounts, Stream: event.RejectedStream, Count: refused - kept,
			Detail: fmt.Sprintf("the streams count %d events that were refused or sent again, the stream rejected has %d", refused, kept)})
	}
	for _, s := range v.streams {
		if !slices.ContainsFunc(v.log.Streams, func(st stream.Stat) bool { return st.Stream == s.name }) && len(s.tables) > 0 {
			r.Streams = append(r.Streams, Stream{Stream: s.name, Tables: s.report(), Balanced: true})
		}
	}
	slices.SortFunc(r.Streams, func(a, b Stream) int { return cmp.Compare(a.Stream, b.Stream) })
	r.Differences, r.Explained = v.wrong.sorted(), v.explained.sorted()
	r.Clean = len(r.Differences) == 0
	return r
}

// lostOf counts the offsets of a stream that repairs have given up.
func (v *verifier) lostOf(name string) (n int64) {
	for _, l := range v.lanes {
		if l.stream == name {
			for _, r := range l.lost {
				n += r.to - r.from
			}
		}
	}
	return n
}

// balance counts the terms of the equation of one stream.
func (v *verifier) balance(st stream.Stat) Stream {
	s := v.stream(st.Stream)
	rejected := st.Stream == event.RejectedStream
	if rejected {
		st.Refused = 0 // those sent again, which stay in it
	}
	out := Stream{Stream: st.Stream, Acknowledged: st.Acknowledged, Rejections: st.Refused + s.progress.Counts.Rejections,
		Duplicates: s.progress.Counts.Duplicates, Filtered: s.progress.Counts.Filtered, Written: s.written, NotYetWritten: s.notYet,
		Unread: s.unread, InLog: s.inLog, Tables: s.report()}
	if rejected {
		out.States = &v.states.counts
	}
	v.unread(s)
	out.Explained = v.explained.count(st.Stream, Removed, Lost, Remade, DroppedUnread)
	left := out.Acknowledged - out.Written - out.Rejections - out.Duplicates - out.Filtered - out.NotYetWritten - out.Unread - out.Explained
	out.Balanced = left == 0
	if left -= v.wrong.count(st.Stream, Missing); left != 0 {
		v.wrong.note(Difference{Kind: BadCounts, Stream: st.Stream, Count: left,
			Detail: fmt.Sprintf("%d events were acknowledged, as the log counts; what is there does not add up to that: %+d", out.Acknowledged, -left)})
	}
	v.marks(st, s)
	return out
}

// unread moves events from missing to dropped unread when they are as many as
// the watermark has counted so.
func (v *verifier) unread(s *streamState) {
	dropped := s.progress.Counts.Dropped
	doubles := max(s.progress.Counts.Duplicates-s.doubles, 0) // those that retention has dropped
	unread := func(d *Difference) bool { return d.Kind == Missing && d.Stream == s.name && d.Detail == passed }
	n := int64(0)
	for _, d := range v.wrong.list {
		if unread(d) {
			n += d.Count
		}
	}
	// Of events that are lost to a repair too nobody knows any more whether they
	// were read before that, so they may have been counted as dropped.
	if too := dropped - max(n-doubles, 0) - v.lostAndDropped(s.name); too > 0 {
		v.wrong.note(Difference{Kind: BadCounts, Stream: s.name, Count: too,
			Detail: fmt.Sprintf("the watermark counts %d events as dropped unread, and retention has dropped %d below it that no row covers", dropped, n)})
	}
	if n == doubles+dropped && n > 0 && doubles > 0 {
		// Which of them were duplicates nobody knows any more; so many were.
		v.wrong.list = slices.DeleteFunc(v.wrong.list, unread)
		if dropped > 0 {
			v.explained.note(Difference{Kind: DroppedUnread, Stream: s.name, Count: dropped, Detail: droppedUnread})
		}
		return
	}
	if dropped == 0 {
		return
	}
	if n != dropped {
		for _, d := range v.wrong.list {
			if unread(d) {
				d.Detail += fmt.Sprintf("; of the %d in all, %d were dropped unread (log.drop_unread)", n, dropped)
			}
		}
		return
	}
	v.wrong.list = slices.DeleteFunc(v.wrong.list, func(d *Difference) bool {
		if !unread(d) {
			return false
		}
		d.Kind, d.Detail = DroppedUnread, droppedUnread
		v.explained.list = append(v.explained.list, d)
		return true
	})
}

const droppedUnread = "retention dropped them before they were read (log.drop_unread), as the watermark has counted"

// lostAndDropped counts the offsets below the watermark that repairs have given
// up and that retention has passed since.
func (v *verifier) lostAndDropped(name string) (n int64) {
	for _, l := range v.lanes {
		if l.stream == name && l.known {
			for _, r := range l.lost {
				n += max(min(l.mark, l.kept, r.to)-r.from, 0)
			}
		}
	}
	return n
}

// marks holds the counts of the watermark against the events below it.
func (v *verifier) marks(st stream.Stat, s *streamState) {
	if s.progress.Positions == nil {
		return
	}
	below, lost, cut := int64(0), int64(0), int64(0)
	for _, l := range v.lanes {
		if l.stream != st.Stream || !l.known {
			continue
		}
		below += max(min(l.mark, l.end)-l.first, 0)
		if off, ok := s.progress.Positions.Get(l.inc, l.partition); ok && l.closed {
			cut += max(off-l.end, 0) // a repair has cut off events that were counted
		}
		for _, r := range l.lost {
			lost += max(min(l.mark, r.to)-r.from, 0)
		}
	}
	c := s.progress.Counts
	total := c.Total()
	if total > below+cut || total < below-lost {
		v.wrong.note(Difference{Kind: BadCounts, Stream: st.Stream, Count: below - total,
			Detail: fmt.Sprintf("the watermark counts %d events, %d lie below it", total, below)})
	}
	if least := min(c.Written, c.Rejections, c.Duplicates, c.Filtered, c.Dropped); least < 0 {
		v.wrong.note(Difference{Kind: BadCounts, Stream: st.Stream, Count: least,
			Detail: "one of the watermark's counts is below zero, so another is too high"})
	}
	if n, all := byPartition(s.progress); all && n != total {
		v.wrong.note(Difference{Kind: BadCounts, Stream: st.Stream, Count: n - total,
			Detail: fmt.Sprintf("the watermark counts %d events by what became of them, and %d by partition", total, n)})
	}
}

// byPartition sums the events that the watermark has of each partition; all is
// false when an older record does not name one of them.
func byPartition(at stream.Progress) (n int64, all bool) {
	for _, parts := range at.Positions {
		for partition := range parts {
			if _, ok := at.Events[partition]; !ok {
				return 0, false
			}
		}
	}
	for _, events := range at.Events {
		n += events
	}
	return n, true
}

func (s *streamState) report() []Table {
	out := []Table{}
	for _, t := range s.tables {
		if t.absent {
			continue
		}
		r := Table{Table: t.ident.String(), Rows: t.rows, Foreign: t.foreign}
		switch {
		case t.err != nil:
			r.Note = "cannot be read"
		case !t.audit.Own:
			r.Note = "not made by naru"
		case len(t.audit.RolledBack) > 0:
			r.Note = "rolled back; it is loaded again up to " + t.audit.RolledBack.String()
		case len(t.audit.Foreign) > 0:
			r.Note = fmt.Sprintf("another engine has changed it: %s", snapshots(t.audit.Foreign))
		}
		if t.audit != nil {
			r.Files = len(t.audit.Files)
		}
		out = append(out, r)
	}
	return out
}

func snapshots(list []iceberg.ForeignSnapshot) string {
	text := ""
	for i, f := range list {
		if i == 3 {
			return text + ", ..."
		}
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("snapshot %d (%s)", f.ID, f.Operation)
	}
	return text
}

// checkFiles holds every file that a snapshot refers to against its checksum.
func (v *verifier) checkFiles(ctx context.Context) error {
	if v.Lake == nil {
		return nil
	}
	n := int64(0)
	return v.Lake.Check(ctx, iceberg.CheckOptions{}, func(f iceberg.CheckedFile) error {
		n++
		v.tell("files", n, 0)
		if f.Bad() {
			v.wrong.note(Difference{Kind: BadFile, Stream: f.Table.Namespace, Table: f.Table.String(), Files: []string{f.Path},
				Detail: fmt.Sprintf("%s (%s): %s", f.Verdict, f.Kind, f.Reason), Hint: f.Cure})
		}
		return nil
	})
}
