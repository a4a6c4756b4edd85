package native

import (
	"strings"
	"testing"

	"naru/internal/event"
)

// judgeAgain judges what is in the stream rejected again, by the contracts in force.
func judgeAgain(t *testing.T, d *Door, rejected []event.Event) []string {
	t.Helper()
	p, err := d.Replay(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	var rules []string
	for i := range rejected {
		refusal, _, _, err := p.Judge(&rejected[i])
		if err != nil {
			t.Fatal(err)
		}
		if refusal == nil {
			rules = append(rules, "accepted")
		} else {
			rules = append(rules, refusal.Rule)
		}
	}
	return rules
}

// What a PII action has changed is not judged again when a rejection is sent again:
// a hash is no address. What none has changed is, although the contract has such
// actions by now.
func TestReplayOfCleanedEvents(t *testing.T) {
	body := `{"type":"signup","email":"me@example.com","phone":"1","plan":7}`
	d, log, _ := newPIIDoor(t)
	if got := do(t, d, request("", body)); len(got.Rejected) != 1 {
		t.Fatal(got.body)
	}
	cleaned := stored(t, log, "rejected")
	if got := judgeAgain(t, d, cleaned); got[0] != "type" {
		t.Errorf("by the same contract: %v", got)
	}
	loose, _, _ := newPIIDoor(t, "{name: plan, logicalType: string, required: true}", "{name: plan}")
	if got := judgeAgain(t, loose, cleaned); got[0] != "accepted" {
		t.Errorf("loosened: %v", got)
	}

	// Refused before there were any actions, and stored as it was sent.
	plain, log, _ := newPIIDoor(t, ", customProperties: [{property: naru.pii, value: hash}]", "", ", customProperties: [{property: naru.pii, value: drop}]", "")
	for _, body := range []string{`{"type":"signup","email":"me at home","phone":"1","plan":7}`, `{"type":"signup","email":"me@example.com","plan":7}`, body} {
		do(t, plain, request("", body))
	}
	asSent := stored(t, log, "rejected")
	if len(asSent) != 3 || asSent[0].Refusal.Changed {
		t.Fatalf("%+v", asSent)
	}
	if got := strings.Join(judgeAgain(t, loose, asSent), " "); got != "format required accepted" {
		t.Errorf("by a contract that has actions now: %s", got)
	}
}
