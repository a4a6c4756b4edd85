package rejection

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"naru/internal/event"
	"naru/internal/fault"
)

// Contact says whom to ask about a type.
type Contact struct {
	Owner   string   `json:"owner,omitempty"`
	Support []string `json:"support,omitempty"` // channels
}

// Group is rejections that have the same to say of themselves.
type Group struct {
	Stream  string `json:"stream"`
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Rule    string `json:"rule,omitempty"`
	Path    string `json:"path,omitempty"`
	Source  string `json:"source"`
	Version string `json:"contract_version,omitempty"`

	Count     int64     `json:"count"`
	Open      int64     `json:"open"`
	Replayed  int64     `json:"replayed"`
	Discarded int64     `json:"discarded"`
	First     time.Time `json:"first_seen"`
	Last      time.Time `json:"last_seen"`
	Sample    string    `json:"sample"` // the name of the last one
	Detail    string    `json:"detail"` // of the sample
	Contact   Contact   `json:"ask,omitzero"`
}

// maxGroups is the most groups of an answer; those with most open ones stay.
const maxGroups = 1000

// List is what naru rejected ls shows.
type List struct {
	Groups []Group `json:"groups"`
	// More groups there are than an answer shows: choose with the filter.
	More bool `json:"more,omitempty"`
}

// Detail is one rejection.
type Detail struct {
	ID       string    `json:"id"`
	State    State     `json:"state"`
	Stream   string    `json:"stream"`
	Type     string    `json:"type"`
	Reason   string    `json:"reason"`
	Rule     string    `json:"rule,omitempty"`
	Path     string    `json:"path,omitempty"`
	Detail   string    `json:"detail"`
	EventID  string    `json:"event_id,omitempty"`
	Source   string    `json:"source"`
	Contract string    `json:"contract,omitempty"`
	Version  string    `json:"contract_version,omitempty"`
	Received time.Time `json:"received_at"`
	Index    int64     `json:"item_index"`
	Media    string    `json:"content_type"`
	Size     int64     `json:"bytes"`
	// Original is the bytes as they are kept, when they are text; else Base64.
	Original string    `json:"original,omitempty"`
	Base64   []byte    `json:"original_base64,omitempty"`
	Attempts []Attempt `json:"attempts"` // replays and what came of them, and the discard
	Contact  Contact   `json:"ask,omitzero"`
}

// Attempt is one record of the rejection's states.
type Attempt struct {
	At     time.Time `json:"at"`
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Detail string    `json:"detail,omitempty"`
	// Event is where the event is now, of a replayed one: STREAM/LOG/PARTITION/OFFSET.
	Event string `json:"event,omitempty"`
	// Duplicate: that event was found to be one of an event that came before, so it
	// has no row. Said as long as the log has the verdict.
	Duplicate bool `json:"duplicate,omitempty"`
}

// ErrNone: there is no such rejection.
var ErrNone = errors.New("no such rejection")

// column is an expression for a column that the table may not have.
func column(has map[string]bool, name string) string {
	if has[name] {
		return "coalesce(" + name + ", '')"
	}
	return "''"
}

// states is the table of final states, and its alias s; a table without rows
// when nothing was ever changed.
func (t *Tables) states(ctx context.Context) (string, error) {
	ok, err := t.has(ctx, event.RejectedStates)
	if err != nil {
		return "", err
	}
	if !ok {
		return "(SELECT '' AS l, 0 AS p, -1 AS o, '' AS st WHERE false) s", nil
	}
	return "(SELECT rejection_log AS l, rejection_partition AS p, rejection_offset AS o, max(state) AS st FROM " + statesTable +
		" WHERE state IN ('replayed', 'discarded') GROUP BY ALL) s", nil
}

// List groups the rejections that f chooses. state is empty for all.
func (t *Tables) List(ctx context.Context, f Filter, state State, ask func(typ string) Contact) (*List, error) {
	out := &List{Groups: []Group{}}
	has, err := t.columns(ctx, event.RejectedStream)
	if err != nil || has == nil {
		return out, err
	}
	cond, err := where(f, has)
	if err != nil {
		return nil, err
	}
	states, err := t.states(ctx)
	if err != nil {
		return nil, err
	}
	keep := ""
	if state != "" {
		keep = " WHERE coalesce(st, 'open') = " + quote(string(state))
	}
	sql := `SELECT g_stream, g_type, g_reason, g_rule, g_path, g_source, g_version, count(*) AS n,
 count(*) FILTER (st IS NULL) AS n_open, count(*) FILTER (st = 'replayed'), count(*) FILTER (st = 'discarded'),
 min(r_at), max(r_at), max_by(r_id, r_at), max_by(r_detail, r_at)
FROM (SELECT stream AS g_stream, event_type AS g_type, reason AS g_reason, ` + column(has, "rule") + ` AS g_rule, ` + column(has, "path") + ` AS g_path,
 _source AS g_source, ` + column(has, "contract_version") + ` AS g_version, _received_at AS r_at,
 concat(_log, '/', _partition, '/', _offset) AS r_id, detail AS r_detail, _log AS r_l, _partition AS r_p, _offset AS r_o
 FROM ` + table + ` WHERE ` + cond + `) r
LEFT JOIN ` + states + ` ON r.r_l = s.l AND r.r_p = s.p AND r.r_o = s.o` + keep + fmt.Sprintf(`
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY n_open DESC, n DESC, 1, 2, 3, 4, 5, 6, 7 LIMIT %d`, maxGroups+1)
	_, err = t.rows(ctx, sql, func(v []any) error {
		g := Group{Stream: text(v[0]), Type: text(v[1]), Reason: text(v[2]), Rule: text(v[3]), Path: text(v[4]), Source: text(v[5]), Version: text(v[6]),
			Count: number(v[7]), Open: number(v[8]), Replayed: number(v[9]), Discarded: number(v[10]),
			First: instant(v[11]), Last: instant(v[12]), Sample: text(v[13]), Detail: text(v[14])}
		if ask != nil {
			g.Contact = ask(g.Type)
		}
		out.Groups = append(out.Groups, g)
		return nil
	})
	if len(out.Groups) > maxGroups {
		out.Groups, out.More = out.Groups[:maxGroups], true
	}
	return out, err
}

// Show gives one rejection: ErrNone when there is none of that name.
func (t *Tables) Show(ctx context.Context, id string, ask func(typ string) Contact) (*Detail, error) {
	at, err := ParseID(id)
	if err != nil {
		return nil, err
	}
	has, err := t.columns(ctx, event.RejectedStream)
	if err != nil {
		return nil, err
	}
	none := fault.WithHint(fmt.Errorf("%w: %s", ErrNone, id), "naru rejected ls shows the names of samples, and SQL all: select concat(_log, '/', _partition, '/', _offset) from rejected")
	if has == nil {
		return nil, none
	}
	cond, err := where(Filter{ID: id}, has)
	if err != nil {
		return nil, err
	}
	var d *Detail
	_, err = t.rows(ctx, "SELECT stream, event_type, reason, "+column(has, "rule")+", "+column(has, "path")+", detail, event_id, _source, "+
		column(has, "contract")+", "+column(has, "contract_version")+", _received_at, item_index, content_type, original FROM "+table+" WHERE "+cond+" LIMIT 1",
		func(v []any) error {
			d = &Detail{ID: at.String(), State: Open, Stream: text(v[0]), Type: text(v[1]), Reason: text(v[2]), Rule: text(v[3]), Path: text(v[4]),
				Detail: text(v[5]), EventID: text(v[6]), Source: text(v[7]), Contract: text(v[8]), Version: text(v[9]), Received: instant(v[10]),
				Index: number(v[11]), Media: text(v[12]), Attempts: []Attempt{}}
			original := blob(v[13])
			d.Size = int64(len(original))
			if utf8.Valid(original) {
				d.Original = string(original)
			} else {
				d.Base64 = original
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, none
	}
	if ask != nil {
		d.Contact = ask(d.Type)
	}
	return d, t.attempts(ctx, at, d)
}

// attempts reads the states of a rejection, oldest first.
func (t *Tables) attempts(ctx context.Context, at event.Position, d *Detail) error {
	has, err := t.columns(ctx, event.RejectedStates)
	if err != nil || has == nil {
		return err
	}
	want := func(name, none string) string {
		if has[name] {
			return name
		}
		return none
	}
	_, err = t.rows(ctx, "SELECT _received_at, state, "+strings.Join([]string{want("reason", "''"), want("detail", "''"), want("event_stream", "''"),
		want("event_log", "''"), want("event_partition", "0"), want("event_offset", "0")}, ", ")+" FROM "+statesTable+
		fmt.Sprintf(" WHERE rejection_log = '%s' AND rejection_partition = %d AND rejection_offset = %d ORDER BY _log, _partition, _offset LIMIT 1000",
			at.Incarnation, at.Partition, at.Offset), func(v []any) error {
		a := Attempt{At: instant(v[0]), State: State(text(v[1])), Reason: text(v[2]), Detail: text(v[3])}
		if a.State == Replayed {
			inc, err := event.ParseIncarnation(text(v[5]))
			if err != nil {
				return err
			}
			at := event.Position{Incarnation: inc, Partition: int32(number(v[6])), Offset: number(v[7])}
			a.Event = text(v[4]) + "/" + at.String()
			if t.Duplicate != nil {
				if a.Duplicate, err = t.Duplicate(ctx, text(v[4]), at); err != nil {
					return fmt.Errorf("look for the verdict on %s: %w", a.Event, err)
				}
			}
		}
		if a.State != Open {
			d.State = a.State
		}
		d.Attempts = append(d.Attempts, a)
		return nil
	})
	return err
}

// MarshalText is what a State is over HTTP.
func (s State) MarshalText() ([]byte, error) { return []byte(s), nil }

// UnmarshalText reads one that is known.
func (s *State) UnmarshalText(b []byte) error {
	switch v := State(b); v {
	case Open, Replayed, Discarded:
		*s = v
		return nil
	}
	return fmt.Errorf("state %q: want open, replayed or discarded", b)
}
