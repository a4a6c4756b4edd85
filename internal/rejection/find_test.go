package rejection

import (
	"context"
	"strings"
	"testing"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
)

func TestAttributesOfTheTable(t *testing.T) {
	for _, c := range []struct{ subject, text, key, want string }{
		{"", "", "", ""},
		{"u1", "", "u1", ""},
		{"u1", `{"b":"1","a":"x\"y"}`, "u1", `b=1 a=x"y`},
		{"u1", `{"partitionkey":"p"}`, "p", "partitionkey=p"},
		{"", `{"partitionkey":""}`, "", "partitionkey="},
	} {
		e := event.Event{}
		if c.subject != "" {
			e.Subject = []byte(c.subject)
		}
		if err := attributes(&e, c.text); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		var got []string
		for _, x := range e.Extensions {
			got = append(got, string(x.Name)+"="+string(x.Value))
		}
		if strings.Join(got, " ") != c.want || string(e.Key) != c.key {
			t.Errorf("%s of %q: %q, key %q", c.text, c.subject, got, e.Key)
		}
	}
	for _, bad := range []string{"{", `{"a":1}`, `{"a"`} {
		if err := attributes(&event.Event{}, bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestWhere(t *testing.T) {
	has := map[string]bool{"event_type": true, "reason": true, "stream": true, "_source": true}
	got, err := where(Filter{Type: "it's", Reason: "contract"}, has)
	if err != nil || got != "true AND event_type = 'it''s' AND reason = 'contract'" {
		t.Errorf("%s, %v", got, err)
	}
	if got, _ := where(Filter{Rule: "maximum"}, has); got != "true AND false" {
		t.Errorf("a rule without its column: %s", got)
	}
	if _, err := where(Filter{ID: "7"}, has); err == nil {
		t.Error("a bad name: no error")
	}
}

// Without its table nobody knows what was replayed before the log's oldest state.
func TestStatesAreGone(t *testing.T) {
	tables := &Tables{Newest: func(context.Context) ([]lake.Ident, error) { return nil, nil }}
	err := tables.Closed(t.Context(), func(event.Position) error { return nil })
	if err == nil || !strings.Contains(fault.HintOf(err), "from a backup") {
		t.Errorf("%v, %s", err, fault.HintOf(err))
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("7c0d9f0e-6b1f-4a53-9a68-0f5a3a3e6a11/0/17")
	f.Fuzz(func(t *testing.T, id string) {
		if p, err := ParseID(id); err == nil && p.String() != id {
			t.Errorf("%q is read as %s", id, p)
		}
	})
}

func FuzzChange(f *testing.F) {
	f.Add([]byte(`{"rejection_log":"7c0d9f0e-6b1f-4a53-9a68-0f5a3a3e6a11","rejection_partition":0,"rejection_offset":17,"state":"open","reason":"not_json"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseChange(data)
		if err != nil {
			return
		}
		at := event.Position{Offset: 5}
		again, err := parseChange(c.appendJSON(nil, at))
		if err != nil || again.Position() != c.Position() || again.State != c.State {
			t.Errorf("%s: %+v, then %+v, %v", data, c, again, err)
		}
		if len(c.appendJSON(nil, at)) != len(c.appendJSON(nil, event.Position{Offset: 1 << 62})) {
			t.Error("the length depends on the place")
		}
	})
}
