package native

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"naru/internal/collect"
	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/stream/memory"
)

// compile makes contracts of one file's text.
func compile(t testing.TB, text string) *contract.Set {
	t.Helper()
	set, problems := contract.Compile([]contract.File{{Name: "contracts/a.yaml", Data: []byte(text)}})
	if problems != nil {
		t.Fatal(problems)
	}
	return set
}

// always are contracts that never change.
func always(s *contract.Set) collect.Contracts { return func() *contract.Set { return s } }

const pages = `apiVersion: v3.1.0
kind: DataContract
id: web-pages
version: 1.2.0
status: active
team: {name: web, members: [{username: mina@example.com, role: owner}]}
support: [{channel: "#web"}, {channel: "web@example.com"}]
schema:
  - name: page
    properties:
      - {name: path, logicalType: string, required: true, logicalTypeOptions: {pattern: "^/"}}
      - {name: ms, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: email, logicalType: string, tags: [pii], logicalTypeOptions: {format: email}}
`

const observing = `    customProperties: [{property: naru.mode, value: observe}]
`

func TestContractRefuses(t *testing.T) {
	log, set := memory.New(), compile(t, pages)
	d, reg := newDoorWith(t, log, always(set), nil)
	body := `{"type":"page","path":"/a","ms":3}
{"type":"page","path":"a","ms":-1}
{"type":"page","path":"/a","email":"me at home"}
{"type":"other","path":7}
{"type":"page","ms":1}
`
	got := do(t, d, request("?id_prefix=p", body, "Content-Type", "application/x-ndjson"))
	if got.status != 200 || got.Accepted != 2 || len(got.Rejected) != 3 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for i, want := range []string{
		"1 p1 contract pattern $.path web-pages 1.2.0 mina@example.com [#web web@example.com]: $.path is \"a\": want the pattern ^/; $.ms is -1: want at least 0",
		"2 p2 contract format $.email web-pages 1.2.0 mina@example.com [#web web@example.com]: $.email is (personal data): want the format email",
		"4 p4 contract required $.path web-pages 1.2.0 mina@example.com [#web web@example.com]: $.path is missing",
	} {
		r := got.Rejected[i]
		if s := fmt.Sprint(r.Index, " ", r.ID, " ", r.Reason, " ", r.Rule, " ", r.Path, " ", r.Contract, " ", r.Version, " ", r.Owner, " ", r.Support, ": ", r.Detail); s != want {
			t.Errorf("%s\nwant %s", s, want)
		}
	}
	// In every stream.
	if got := do(t, d, request("?stream=other", `{"type":"page","path":"a"}`)); got.Accepted != 0 || len(got.Rejected) != 1 || got.Rejected[0].Rule != "pattern" {
		t.Error(got.body)
	}
	c := set.For("page")
	by := func(e event.Event) string {
		return fmt.Sprintf("%s %s %s", e.Contract.ID, e.Contract.Version, e.Contract.Hash)
	}
	want := "web-pages 1.2.0 " + c.Hash
	events, rejected := stored(t, log, "events"), stored(t, log, "rejected")
	if len(events) != 2 || by(events[0]) != want || events[1].Contract.ID != nil || events[0].Refusal != nil || events[0].Violations != nil {
		t.Errorf("events: %+v", events)
	}
	if len(rejected) != 4 || rejected[3].Refusal.Stream != "other" {
		t.Fatalf("%d rejected", len(rejected))
	}
	for i, e := range rejected[:3] {
		r := e.Refusal
		if by(e) != want || r.Reason != event.BadContract || r.Rule != got.Rejected[i].Rule || r.Path != got.Rejected[i].Path || r.Detail != got.Rejected[i].Detail ||
			r.Type != "page" || r.ID != got.Rejected[i].ID || r.Stream != "events" || string(e.Data) != strings.Split(body, "\n")[r.Index] {
			t.Errorf("rejection %d: %s, %+v", i, by(e), r)
		}
	}
	metrics := scrape(t, reg)
	for _, line := range []string{
		`naru_door_events_rejected_total{door="native",reason="contract"} 4`,
		`naru_contract_violations_total{mode="enforce",rule="pattern",type="page"} 2`,
		`naru_contract_violations_total{mode="enforce",rule="minimum",type="page"} 1`,
		`naru_contract_violations_total{mode="enforce",rule="required",type="page"} 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
}

// A refused CloudEvent keeps all that it would have had, so that it can be sent
// again as it was.
func TestRefusedCloudEventKeepsItsAttributes(t *testing.T) {
	log := memory.New()
	d, _ := newDoorWith(t, log, always(compile(t, pages)), nil)
	got := do(t, d, request("", `{"specversion":"1.0","id":"7","source":"/app","type":"page","subject":"u1","time":"2026-01-02T03:04:05Z","partitionkey":"k","trace":"t","data":{"path":7}}`, "Content-Type", "application/cloudevents+json"))
	if got.Accepted != 0 || len(got.Rejected) != 1 || got.Rejected[0].Rule != "type" {
		t.Fatal(got.body)
	}
	e := stored(t, log, "rejected")[0]
	if string(e.Source) != "/app" || string(e.Subject) != "u1" || e.Time.Format("15:04:05") != "03:04:05" || string(e.Key) != "k" || len(e.Extensions) != 2 ||
		e.Refusal.ID != "7" || e.Refusal.Type != "page" || string(e.Data) != `{"path":7}` || string(e.Type) != "naru.rejection" || string(e.ID) == "7" {
		t.Errorf("%s, %+v", brief(&e), e)
	}
	got = do(t, d, request("", `<page/>`, "Content-Type", "text/xml", "ce-specversion", "1.0", "ce-id", "8", "ce-source", "s", "ce-type", "page"))
	if len(got.Rejected) != 1 || got.Rejected[0].Rule != "json" {
		t.Error(got.body)
	}
}

func TestObservingContractKeeps(t *testing.T) {
	log := memory.New()
	d, reg := newDoorWith(t, log, always(compile(t, pages+observing)), nil)
	got := do(t, d, request("", `[{"type":"page","path":"a","email":"\"me\""},{"type":"page","path":"/a"}]`))
	if got.Accepted != 2 || len(got.Rejected) != 0 {
		t.Fatal(got.body)
	}
	events := stored(t, log, "events")
	if want := `[{"rule":"pattern","path":"$.path","detail":"$.path is \"a\": want the pattern ^/"},{"rule":"format","path":"$.email","detail":"$.email is (personal data): want the format email"}]`; string(events[0].Violations) != want {
		t.Errorf("%s", events[0].Violations)
	}
	if events[1].Violations != nil || string(events[0].Contract.ID) != "web-pages" {
		t.Errorf("%+v", events)
	}
	if line := `naru_contract_violations_total{mode="observe",rule="format",type="page"} 1`; !strings.Contains(scrape(t, reg), line+"\n") {
		t.Error("metrics lack", line)
	}
}

// All events of a request are judged by the same contracts, the next request by
// those that are in force then.
func TestContractsChange(t *testing.T) {
	log := memory.New()
	first, second := compile(t, pages), compile(t, strings.ReplaceAll(strings.Replace(pages, "1.2.0", "2.0.0", 1), `"^/"`, `"^h"`))
	asked := 0
	d, _ := newDoorWith(t, log, func() *contract.Set {
		if asked++; asked == 1 {
			return first
		}
		return second
	}, nil)
	body := strings.Repeat(`{"type":"page","path":"/a"}`+"\n", 3)
	if got := do(t, d, request("", body)); got.Accepted != 3 {
		t.Error(got.body)
	}
	if got := do(t, d, request("", body)); got.Accepted != 0 || got.Rejected[0].Version != "2.0.0" {
		t.Error(got.body)
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	if e := stored(t, log, "rejected"); string(e[0].Contract.Hash) == first.For("page").Hash || string(stored(t, log, "events")[0].Contract.Hash) != first.For("page").Hash {
		t.Error("a verdict names another contract")
	}
}

// nine is the nine-field contract of the performance table.
func nine(t testing.TB) *contract.Set {
	t.Helper()
	text, err := os.ReadFile("../../contract/testdata/page.odcs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, string(text))
}

func TestContractAllocatesLittle(t *testing.T) {
	d, _ := newDoorWith(t, &sink{Log: memory.New()}, always(nine(t)), nil)
	post := poster(t, d, "?type=page", corpus(t, 500))
	if n := testing.AllocsPerRun(50, post); n > 40 {
		t.Errorf("%v allocations for a body of 500 events", n)
	}
}

// The record names the strings that become columns, so that nobody asks the
// contract again.
func TestRecordNamesJSONStrings(t *testing.T) {
	log := memory.New()
	text := strings.Replace(pages, "      - {name: ms,", "      - {name: extra, logicalType: object}\n      - {name: list, logicalType: array, items: {logicalType: object}}\n      - {name: ms,", 1)
	d, _ := newDoorWith(t, log, always(compile(t, text+"    customProperties: [{property: naru.jsonStrings, value: [extra, \"list[]\"]}]\n")), nil)
	data := `{"type":"page","path":"/","extra":"{\"a\":1}","list":["{}"]}`
	if got := do(t, d, request("", data)); got.Accepted != 1 {
		t.Fatal(got.body)
	}
	if e := stored(t, log, "events")[0]; string(e.JSONStrings) != `["extra"]` || string(e.Data) != data {
		t.Errorf("%s %s", e.JSONStrings, e.Data)
	}
}

// An answer stays small, whatever a contract says of itself.
func TestAnswerIsBounded(t *testing.T) {
	long := strings.Repeat("日本", 10_000)
	text := strings.NewReplacer("id: web-pages", "id: "+long, "username: mina@example.com", "username: "+long, `{channel: "#web"}`, strings.Repeat("{channel: "+long+"}, ", 10)+`{channel: "#web"}`).Replace(pages)
	log := memory.New()
	d, _ := newDoorWith(t, log, always(compile(t, text)), nil)
	got := do(t, d, request("", strings.Repeat(`{"type":"page"}`, 100)))
	if len(got.Rejected) != 100 || len(got.body) > 100*3000 || len(got.Rejected[0].Support) != 5 {
		t.Fatalf("%d rejected in %d bytes", len(got.Rejected), len(got.body))
	}
	if e := stored(t, log, "rejected")[0]; len(e.Contract.ID) == 0 || len(e.Contract.ID) > 128 || !utf8.Valid(e.Contract.ID) {
		t.Errorf("%q", e.Contract.ID)
	}
}
