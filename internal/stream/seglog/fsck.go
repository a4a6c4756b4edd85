package seglog

import (
	"errors"
	"fmt"
	"strings"

	"naru/internal/fault"
	"naru/internal/vfs"
)

// Kinds of Damage.
const (
	DamageFrames     = "frames"     // bytes in the place of frames
	DamageCheckpoint = "checkpoint" // of a segment; it can be made again
	DamageMissing    = "missing"    // a segment file
	DamageShortened  = "shortened"  // a segment file
	DamageExchanged  = "exchanged"  // the file holds something else than its name says, or than its successor knows
	DamagePadding    = "padding"    // a byte between frames; nothing is lost
	DamageIndex      = "index"      // of a sealed segment; it can be made again
	DamageLosses     = "losses"     // the record of losses lacks something
	DamageLast       = "last"       // the mark of the log's end
	DamageUnfinished = "unfinished" // a repair was broken off
)

// Damage is one place in the log that is not what was written.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // in bytes from the start of the file; -1: all of it
	Bytes  int64  `json:"bytes"`
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	// Lost is what cannot be read because of it; a Loss that is not Known when
	// there may be more.
	Lost []Loss `json:"lost,omitempty"`
}

func (d *Damage) corrupt() *fault.Corrupt {
	return &fault.Corrupt{Path: d.File, Offset: d.Offset, Reason: d.Reason}
}

// Report is what Check has found.
type Report struct {
	Segments int       `json:"segments"`
	Bytes    int64     `json:"bytes"` // of frames
	Damage   []*Damage `json:"damage"`
	Notes    []string  `json:"notes,omitempty"` // no damage: what the next start deals with
	Losses   []Loss    `json:"losses"`          // on record, of earlier repairs
}

// Check reads the whole log in dir and lists everything that is wrong with it:
// `naru log fsck`. Nobody may be writing. An error means that it could not look.
func Check(fs vfs.FS, dir string) (*Report, error) {
	a, err := audit(newMender(fs, dir))
	if err != nil {
		return nil, fmt.Errorf("check log: %w", err)
	}
	return &a.report, nil
}

func newMender(fs vfs.FS, dir string) *Log {
	l := &Log{fs: fs, dir: dir, cfg: DefaultConfig()}
	l.pool.init(l)
	return l
}

// Verify is Check for those who need a yes or no: the first damage is its error.
func Verify(fs vfs.FS, dir string) (segments int, bytes int64, err error) {
	r, err := Check(fs, dir)
	if err != nil {
		return 0, 0, err
	}
	return r.Segments, r.Bytes, r.Err()
}

// Err is nil when the log is well.
func (r *Report) Err() error {
	if len(r.Damage) == 0 {
		return nil
	}
	first := r.Damage[0].corrupt()
	if n := len(r.Damage) - 1; n > 0 {
		first.Reason += fmt.Sprintf(" (and %d more)", n)
	}
	return fault.WithHint(first, "`naru log fsck DIR` lists all of it, `naru log fsck DIR --repair` saves what can be read")
}

// add notes damage, once for each place.
func (r *Report) add(d *Damage) *Damage {
	for _, x := range r.Damage {
		if x.File == d.File && x.Offset == d.Offset && x.Kind == d.Kind {
			return x
		}
	}
	r.Damage = append(r.Damage, d)
	return d
}

// plain is the reason of an error without its class and, for a Corrupt, without
// the place.
func plain(err error) string {
	var c *fault.Corrupt
	if errors.As(err, &c) {
		return strings.TrimPrefix(c.Reason, errBadFrame.Error()+": ")
	}
	return strings.TrimPrefix(err.Error(), errBadFrame.Error()+": ")
}
