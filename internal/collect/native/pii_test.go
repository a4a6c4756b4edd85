package native

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"naru/internal/collect"
	"naru/internal/contract"
	"naru/internal/obs"
	"naru/internal/stream/memory"
	"naru/internal/vfs"
)

const signups = `apiVersion: v3.1.0
kind: DataContract
id: signups
version: 1.0.0
status: active
schema:
  - name: signup
    properties:
      - {name: email, logicalType: string, logicalTypeOptions: {format: email}, customProperties: [{property: naru.pii, value: hash}]}
      - {name: phone, logicalType: string, required: true, customProperties: [{property: naru.pii, value: drop}]}
      - {name: ip, logicalType: string, customProperties: [{property: naru.pii, value: ip}]}
      - {name: plan, logicalType: string, required: true}
`

// newPIIDoor makes a door with the contract of signups, changed by pairs of texts.
func newPIIDoor(t *testing.T, changes ...string) (*Door, *memory.Log, *contract.Keys) {
	t.Helper()
	keys, err := contract.LoadKeys(vfs.NewMemory(), "/", contract.PIIConfig{Keys: []string{"k1=env:KEY"}}, func(string) string { return "0123456789abcdef" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := memory.New()
	e, err := collect.New(collect.DefaultConfig(), collect.Deps{Log: log, Contracts: always(compile(t, strings.NewReplacer(changes...).Replace(signups))), Keys: keys, Registry: obs.NewRegistry(), Logger: obs.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return d, log, keys
}

// Nothing personal is stored, in whatever way an event ends.
func TestPersonalDataIsNotStored(t *testing.T) {
	d, log, keys := newPIIDoor(t)
	body := `{"type":"signup","email":"secret@example.com","phone":"secret1","ip":"203.0.113.99","plan":"free"}
{"type":"signup","email":"secret@example.com","phone":"secret2","plan":7}
{"type":"signup","email":"not secret","phone":"secret3","plan":"free"}
{"type":"other","email":"anybody"}
`
	got := do(t, d, request("", body, "Content-Type", "application/x-ndjson"))
	if got.Accepted != 2 || len(got.Rejected) != 2 || strings.Contains(got.body, "secret") {
		t.Fatal(got.body)
	}
	token := keys.Tokens("secret@example.com")[0]
	events, rejected := stored(t, log, "events"), stored(t, log, "rejected")
	if want := fmt.Sprintf(`{"type":"signup","email":"%s","ip":"203.0.113.0","plan":"free"}`, token); string(events[0].Data) != want {
		t.Errorf("%s\nwant %s", events[0].Data, want)
	}
	if len(events[0].Sent) != 16 || events[1].Sent != nil || string(events[1].Data) != `{"type":"other","email":"anybody"}` {
		t.Errorf("%+v", events)
	}
	if want := fmt.Sprintf(`{"type":"signup","email":"%s","plan":7}`, token); string(rejected[0].Data) != want || !rejected[0].Refusal.Changed || len(rejected[0].Sent) != 16 {
		t.Errorf("%s\nwant %s", rejected[0].Data, want)
	}
	// What is refused for another reason is cleaned too, where its type is known;
	// what cannot be read is not kept then.
	large := `{"type":"signup","email":"secret@example.com","phone":"secret","pad":"` + strings.Repeat("x", 1<<20) + `"}`
	do(t, d, request("", large, "Content-Type", "application/x-ndjson"))
	do(t, d, request("?type=signup", `{"email":"secret@example.com"`+"\n"+`"secret"`+"\n{}", "Content-Type", "application/x-ndjson"))
	do(t, d, request("", `[{"specversion":"1.0","id":"1","type":"signup","data":{"email":"secret@example.com","phone":"secret","plan":"x"}},
		{"specversion":"1.0","id":"1","type":"signup","data":"secret","data_base64":"c2VjcmV0"}]`, "Content-Type", batchType))
	do(t, d, request("", "<secret/>", "Content-Type", "text/xml", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "signup"))
	rejected = stored(t, log, "rejected")
	if len(rejected) != 2+1+3+2+1 {
		t.Fatalf("%d rejected", len(rejected))
	}
	for _, e := range rejected {
		text := fmt.Sprintf("%s %+v", e.Data, e.Refusal)
		if strings.Contains(string(e.Data), "secret") || strings.Contains(text, "secret@") || strings.Contains(text, "c2VjcmV0") || !e.Refusal.Changed && string(e.Data) != "{}" {
			t.Errorf("%.300s", text)
		}
		if len(e.Data) == 0 && !strings.Contains(e.Refusal.Detail, "the bytes were not kept") {
			t.Errorf("no bytes and no word: %s", e.Refusal.Detail)
		}
	}
}

// An observing contract cleans as well, and what it cannot clean it does not keep.
func TestPersonalDataIsNotStoredWhenObserving(t *testing.T) {
	d, log, _ := newPIIDoor(t, "      - {name: plan,", "      - {name: who, logicalType: object, properties: [{name: email, logicalType: string, customProperties: [{property: naru.pii, value: drop}]}]}\n      - {name: plan,",
		"status: active\n", "status: active\ncustomProperties: [{property: naru.mode, value: observe}]\n")
	got := do(t, d, request("", `{"type":"signup","email":"secret","who":"secret","phone":7}`))
	if got.Accepted != 1 {
		t.Fatal(got.body)
	}
	do(t, d, request("", "<secret/>", "Content-Type", "text/xml", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "signup"))
	for _, e := range stored(t, log, "events") {
		if strings.Contains(fmt.Sprintf("%s %s", e.Data, e.Violations), "secret") || e.Violations == nil {
			t.Errorf("%s %s", e.Data, e.Violations)
		}
	}
}

// The digest of what was sent tells resends from others, and attributes belong to
// what was sent.
func TestDigestOfWhatWasSent(t *testing.T) {
	d, log, _ := newPIIDoor(t)
	for _, body := range []string{
		`{"type":"signup","phone":"1","plan":"a"}`, `{"type":"signup","phone":"1","plan":"a"}`,
		`{"type":"signup","phone":"2","plan":"a"}`,
	} {
		do(t, d, request("", body))
	}
	for _, subject := range []string{"a", "a", "b"} {
		do(t, d, request("", `{"phone":"1","plan":"a"}`, "Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "signup", "ce-subject", subject))
	}
	var sent []string
	for _, e := range stored(t, log, "events") {
		if string(e.Data) == "" || strings.Contains(string(e.Data), "phone") {
			t.Errorf("%s", e.Data)
		}
		sent = append(sent, string(e.Sent))
	}
	if len(sent) != 6 || sent[0] != sent[1] || sent[0] == sent[2] || sent[3] != sent[4] || sent[3] == sent[5] || sent[0] == sent[3] {
		t.Errorf("%q", sent)
	}
}

// naru.unknownFields discard is a matter of tables: what is stored is what was sent,
// but for PII actions.
func TestDiscardChangesNothingStored(t *testing.T) {
	discard := []string{"status: active\n", "status: active\ncustomProperties: [{property: naru.unknownFields, value: discard}]\n"}
	d, log, _ := newPIIDoor(t, append(discard, "name: plan", "name: type, logicalType: string}\n      - {name: plan")...)
	got := do(t, d, request("", `[{"type":"signup","plan":"a","phone":"1","x":1},{"type":"signup","x":2,"phone":"1"}, {"type":"signup","phone":null, "plan":"b" , "y":[1, {}]}]`))
	if got.Accepted != 1 {
		t.Fatal(got.body)
	}
	if e := stored(t, log, "events")[0]; string(e.Data) != `{"type":"signup","plan":"a","x":1}` || len(e.Sent) != 16 {
		t.Errorf("%s, sent %s", e.Data, e.Sent)
	}
	if e := stored(t, log, "rejected")[0]; string(e.Data) != `{"type":"signup","x":2}` {
		t.Errorf("a refused event: %s", e.Data)
	}
	// Without PII actions it is what was sent, byte for byte, and needs no digest.
	log2 := memory.New()
	d, _ = newDoorWith(t, log2, always(compile(t, strings.NewReplacer(discard...).Replace(pages))), nil)
	data := `{"type":"page", "path" : "/" , "x":{"y":[1, 2]},"ms":1, "z":"\u00e9"}`
	if got := do(t, d, request("", data)); got.Accepted != 1 {
		t.Fatal(got.body)
	}
	if e := stored(t, log2, "events")[0]; string(e.Data) != data || e.Sent != nil {
		t.Errorf("%s, sent %s", e.Data, e.Sent)
	}
	// A dry run says which fields are to have no column.
	var r report
	got = do(t, d.Validator(), request("", data+`{"type":"page","path":"/"}{"type":"other","x":1}`))
	if err := json.Unmarshal([]byte(got.body), &r); err != nil || r.Valid != 3 {
		t.Fatal(got.body, err)
	}
	if left := fmt.Sprint(r.Results[0].LeftOut, r.Results[1].LeftOut, r.Results[2].LeftOut); left != "[$.type $.x $.z] [$.type] []" || r.Results[0].Stored != nil {
		t.Errorf("%s: %s", left, got.body)
	}
}

type report struct {
	Valid, Invalid int
	Results        []struct {
		Index                                                int
		Valid                                                bool
		ID, Type, Reason, Detail, Rule, Path, Owner, Version string
		Violations                                           []struct{ Rule, Path, Detail string }
		Stored                                               json.RawMessage
		LeftOut                                              []string `json:"left_out"`
	}
}

func TestValidate(t *testing.T) {
	d, log, keys := newPIIDoor(t)
	validate := func(query, body string, headers ...string) (result, report) {
		t.Helper()
		got := do(t, d.Validator(), request(query, body, headers...))
		var r report
		if err := json.Unmarshal([]byte(got.body), &r); err != nil {
			t.Fatalf("%s: %v", got.body, err)
		}
		return got, r
	}
	got, r := validate("", `{"type":"signup","email":"me@example.com","phone":"1","plan":"a"}
{"type":"signup","email":"me","plan":7}
nonsense
{"type":"other"}`, "Content-Type", "application/x-ndjson")
	if got.status != 200 || r.Valid != 2 || r.Invalid != 2 || len(r.Results) != 4 {
		t.Fatal(got.body)
	}
	if one := r.Results[0]; !one.Valid || one.Type != "signup" || one.Version != "1.0.0" || string(one.Stored) != `{"type":"signup","email":"`+keys.Tokens("me@example.com")[0]+`","plan":"a"}` {
		t.Errorf("%+v", one)
	}
	if one := r.Results[1]; one.Valid || one.Reason != "contract" || one.Rule != "format" || one.Path != "$.email" || len(one.Violations) != 3 || one.Index != 1 || one.Stored != nil {
		t.Errorf("%+v", one)
	}
	if one := r.Results[2]; one.Valid || one.Reason != "not_json" || one.Index != 2 {
		t.Errorf("%+v", one)
	}
	if one := r.Results[3]; !one.Valid || one.Version != "" || one.Violations != nil {
		t.Errorf("%+v", one)
	}
	if got, r := validate("?strict=1", `[{"type":"other"},{"type":"signup"}]`); got.status != 422 || r.Invalid != 1 || len(r.Results) != 2 {
		t.Error(got.body)
	}
	if got, _ := validate("?strict=1", `{"type":"other"}`); got.status != 200 {
		t.Error(got.body)
	}
	if got := do(t, d.Validator(), request("", `[{"a":1}`)); got.status != 400 {
		t.Error(got.body)
	}
	if got := do(t, d.Validator(), request("", strings.Repeat("{}", 10_001))); got.status != 413 {
		t.Errorf("%d %.200s", got.status, got.body)
	}
	if len(stored(t, log, "events"))+len(stored(t, log, "rejected")) != 0 {
		t.Error("something was stored")
	}
	// The request is pooled: the next one stores.
	if got := do(t, d, request("", `{"type":"other"}`)); got.Accepted != 1 || len(stored(t, log, "events")) != 1 {
		t.Error(got.body)
	}
}
