package seglog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"naru/internal/event"
	"naru/internal/vfs"
)

const (
	lossesName = "losses.ndjson"
	lossesTemp = "losses.tmp" // to become losses.ndjson; a crash may leave it
)

// Loss is something that a repair of the log could not save. It stays on record
// for as long as the log: a table may be asked for these offsets long after
// retention has dropped the segment.
type Loss struct {
	// Stream is empty when only bytes are known to be lost, not whose they were.
	Stream      string            `json:"stream,omitempty"`
	Incarnation event.Incarnation `json:"incarnation"`
	Partition   int32             `json:"partition"`
	// Offsets [First, End) were given to events and can no longer be read.
	First int64 `json:"first"`
	End   int64 `json:"end"`
	// Events is how many they were; -1 when that is not known.
	Events int64 `json:"events"`

	Segment  string    `json:"segment"`           // file that was damaged
	Pos      int64     `json:"pos"`               // place of the damage in it, in bytes; -1: the whole file
	Bytes    int64     `json:"bytes"`             // of the damage, all streams together
	Kept     string    `json:"kept,omitempty"`    // file in the log's folder with the damaged bytes
	Repaired time.Time `json:"repaired,omitzero"` // zero: not yet
}

// Known tells whether the loss names offsets.
func (l Loss) Known() bool { return l.Stream != "" }

func (l Loss) String() string {
	if !l.Known() && l.Pos < 0 {
		return fmt.Sprintf("all of %s: what was in it is not known", l.Segment)
	}
	if !l.Known() {
		return fmt.Sprintf("%d bytes of %s at %d: whose they were is not known", l.Bytes, l.Segment, l.Pos)
	}
	return fmt.Sprintf("stream %s/%d: offsets [%d,%d) of incarnation %s", l.Stream, l.Partition, l.First, l.End, l.Incarnation)
}

// same tells whether two records are of one loss, so that a repair that is made
// again does not count it twice.
func (l Loss) same(m Loss) bool {
	if l.Known() != m.Known() || l.Incarnation != m.Incarnation {
		return false
	}
	if l.Known() {
		return l.Stream == m.Stream && l.Partition == m.Partition && l.First == m.First && l.End == m.End
	}
	return l.Segment == m.Segment && l.Pos == m.Pos
}

// lossesHead is the first line of the file: it vouches for the others.
type lossesHead struct {
	Format  int    `json:"naru_log_losses"`
	Entries int    `json:"entries"`
	CRC     string `json:"crc32c"` // of all bytes behind this line
}

const lossesFormat = 1

// Losses lists what repairs of the log in dir have lost, in the order in which
// they were made. A log that was never repaired has none. It needs no lock.
// *fault.Corrupt: the record itself is damaged.
func Losses(fsys vfs.FS, dir string) ([]Loss, error) {
	name := dir + "/" + lossesName
	file, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read losses: %w", err)
	}
	defer file.Close()
	raw, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read losses: %w", err)
	}
	return parseLosses(name, raw)
}

func parseLosses(name string, raw []byte) ([]Loss, error) {
	line, body, _ := bytes.Cut(raw, []byte("\n"))
	var head lossesHead
	if err := strict(line, &head); err != nil || head.Format < 1 {
		return nil, corrupt(name, 0, "the first line is not that of a record of losses")
	}
	if head.Format > lossesFormat {
		return nil, fmt.Errorf("read %s: format %d, this naru reads %d", name, head.Format, lossesFormat)
	}
	if want := lossesLine(body, head.Entries); !bytes.Equal(want, line) {
		return nil, corrupt(name, int64(len(line))+1, "checksum %08x, stored %s", checksum(body), head.CRC)
	}
	var all []Loss
	for rest := body; len(rest) > 0; {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		var l Loss
		if err := strict(line, &l); err != nil || l.First > l.End {
			return nil, corrupt(name, int64(len(raw)-len(rest)-len(line)-1), "not a loss: %.80q", line)
		}
		all = append(all, l)
	}
	if len(all) != head.Entries {
		return nil, corrupt(name, 0, "%d losses, the first line says %d", len(all), head.Entries)
	}
	return all, nil
}

func strict(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func lossesLine(body []byte, n int) []byte {
	b, _ := json.Marshal(lossesHead{Format: lossesFormat, Entries: n, CRC: fmt.Sprintf("%08x", checksum(body))}) // plain fields: it cannot fail
	return b
}

// writeLosses replaces the record, durably.
func writeLosses(fsys vfs.FS, dir string, all []Loss) error {
	var body []byte
	for _, l := range all {
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("write losses: %w", err)
		}
		body = append(append(body, line...), '\n')
	}
	raw := append(append(lossesLine(body, len(all)), '\n'), body...)
	if err := replaceFile(fsys, dir, lossesTemp, lossesName, raw); err != nil {
		return fmt.Errorf("write losses: %w", err)
	}
	return nil
}

// replaceFile gives a file new contents as a whole: after a crash it has the old
// ones or the new ones.
func replaceFile(fsys vfs.FS, dir, temp, name string, raw []byte) error {
	file, err := fsys.Create(dir + "/" + temp)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(raw, 0)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(dir+"/"+temp, dir+"/"+name)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	return err
}

// lostRanges are the offsets on record as lost, by stream-partition, sorted and
// apart from each other. Offsets run on through incarnations, and what is lost
// was given once, so the incarnation need not be asked for.
type lostRanges map[partKey][]lostRange

type lostRange struct{ first, end int64 }

func rangesOf(all []Loss) lostRanges {
	r := lostRanges{}
	for _, l := range all {
		if l.Known() && l.First < l.End {
			k := partKey{l.Stream, l.Partition}
			r[k] = append(r[k], lostRange{l.First, l.End})
		}
	}
	for k, all := range r {
		slices.SortFunc(all, func(a, b lostRange) int { return compare(a.first, b.first) })
		joined := all[:1]
		for _, x := range all[1:] {
			if last := &joined[len(joined)-1]; x.first <= last.end {
				last.end = max(last.end, x.end)
			} else {
				joined = append(joined, x)
			}
		}
		r[k] = joined
	}
	return r
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// lostOf is what of a stream-partition is on record as lost, by incarnation.
func (s *state) lostOf(p *part) (spans []event.Span) {
	for _, x := range s.lost[partKey{p.topic.name, p.n}] {
		begin := int64(0)
		put := func(inc event.Incarnation, end int64) {
			if from, to := max(begin, x.first), min(end, x.end); from < to {
				spans = append(spans, event.Span{Incarnation: inc, Partition: p.n, From: from, To: to})
			}
			begin = end
		}
		for _, c := range s.closed {
			put(c.incarnation, c.ends[p.id])
		}
		put(s.incarnation, p.end)
	}
	return spans
}

// without takes ranges out of a loss.
func (l Loss) without(r lostRanges) []Loss {
	rest := []Loss{l}
	if !l.Known() {
		return rest
	}
	for _, x := range r[partKey{l.Stream, l.Partition}] {
		var next []Loss
		for _, l := range rest {
			for _, part := range []lostRange{{l.First, min(l.End, x.first)}, {max(l.First, x.end), l.End}} {
				if part.first < part.end {
					one := l
					if one.First, one.End = part.first, part.end; one.Events >= 0 {
						one.Events = min(one.Events, part.end-part.first)
					}
					next = append(next, one)
				}
			}
		}
		rest = next
	}
	return rest
}

// skip returns the first offset from the given one on that is not lost.
func (r lostRanges) skip(stream string, n int32, offset int64) int64 {
	if len(r) == 0 {
		return offset
	}
	for _, x := range r[partKey{stream, n}] {
		if x.first <= offset && offset < x.end {
			return x.end
		}
	}
	return offset
}
