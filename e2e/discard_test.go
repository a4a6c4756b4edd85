package e2e

import (
	"fmt"
	"strings"
	"testing"
)

const signups = `apiVersion: v3.1.0
kind: DataContract
id: signups
version: 1.0.0
status: active
schema:
  - name: signup
    properties:
      - {name: plan, logicalType: string, required: true}
      - {name: who, logicalType: object, properties: [{name: country, logicalType: string}]}
      - {name: steps, logicalType: array, items: {logicalType: object, properties: [{name: at, logicalType: integer}]}}
      - {name: extra, logicalType: object, properties: [{name: ref, logicalType: string}]}
    customProperties:
      - {property: naru.unknownFields, value: discard}
      - {property: naru.jsonStrings, value: [extra]}
`

// Fields that the contract does not know have no column, whoever builds the rows and
// whenever: the hot tail, the loader, a replay, a start after a SIGKILL, a reload.
// The log has what was sent, and so do duplicates go by it.
func TestDiscard(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 200ms\n")
	writeContract(t, dir, "signup.yaml", signups)
	s := serve(t, dir)
	one := `{"plan":"a", "x":1, "who":{"country":"KR","name":"Mina"}, "steps":[{"at":1,"ip":"203.0.113.7"},{"ip":""}], "extra":"{\"ref\":\"r\",\"y\":[2]}", "_id":"odd"}`
	post := func(id, data string) ack {
		t.Helper()
		return s.post("", "application/cloudevents+json", `{"specversion":"1.0","id":"`+id+`","source":"/web","type":"signup","data":`+data+`}`)
	}
	if a := post("1", one); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	const query = `select plan, who_country, steps, extra_ref, _rescued from signup order by _offset`
	row := `a|KR|[{"at":1},{}]|r|NULL`
	same := func(when string, rows ...string) {
		t.Helper()
		if got := strings.Join(s.sql(query).lines(), "\n"); got != strings.Join(rows, "\n") {
			t.Errorf("%s: %s\nwant %s", when, got, strings.Join(rows, "\n"))
		}
		var names []string
		for _, c := range s.sql("select * from signup").Columns {
			if !strings.HasPrefix(c.Name, "_") {
				names = append(names, c.Name)
			}
		}
		if got := strings.Join(names, " "); got != "plan who_country steps extra_ref" {
			t.Errorf("%s: the columns are %s", when, got)
		}
	}
	same("in the hot tail", row)
	s.settle()
	same("in the table", row)

	// The same again is a duplicate; another value of an unknown field is not the same.
	post("1", one)
	post("1", strings.Replace(one, `"x":1`, `"x":2`, 1))
	s.settle()
	same("sent again", row, row)
	if n := s.metric("naru_stream_events_total", "stream=events", "fate=duplicate"); n != 1 {
		t.Errorf("%g duplicates", n)
	}
	if n := s.metric("naru_dedupe_id_conflicts_total", "stream=events"); n != 1 {
		t.Errorf("%g conflicts", n)
	}

	change := func(from, to string) {
		t.Helper()
		before := s.metric("naru_contracts_changes_total", "result=taken")
		writeContract(t, dir, "signup.yaml", strings.Replace(signups, from, to, 1))
		eventually(t, "the changed contract in force", func() (bool, string) {
			return s.metric("naru_contracts_changes_total", "result=taken") > before, s.logs.last(2000)
		})
	}
	// What was refused is sent again as it was, and judged by the rules of then.
	if a := post("2", strings.Replace(one, `"plan":"a", `, "", 1)); len(a.Rejected) != 1 {
		t.Fatalf("%+v", a)
	}
	change(", required: true", "")
	must(t, "", "rejected", "replay", "--type", "signup", "--url", s.url)
	s.settle()
	replayed := `NULL` + strings.TrimPrefix(row, "a")
	same("replayed", row, row, replayed)

	s.kill()
	s = serve(t, dir)
	same("after a SIGKILL", row, row, replayed)
	out := must(t, "", "log", "cat", "events", dir)
	for _, sent := range []string{one, strings.Replace(one, `"x":1`, `"x":2`, 1), strings.Replace(one, `"plan":"a", `, "", 1)} {
		if !strings.Contains(out, sent) {
			t.Errorf("the log has not %s", sent)
		}
	}

	// From now on they have columns; rows of before are as they were, also when they
	// are made anew.
	change("value: discard", "value: evolve")
	post("3", one)
	s.settle()
	const all = `select plan, x, who_name, extra_y[1], json_extract_string(_rescued, '$._id') from signup order by _offset`
	want := "a|NULL|NULL|NULL|NULL\na|NULL|NULL|NULL|NULL\nNULL|NULL|NULL|NULL|NULL\na|1|Mina|2|odd"
	if got := strings.Join(s.sql(all).lines(), "\n"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
	must(t, "", "table", "reload", "signup", dir, "--yes")
	s = serve(t, dir)
	eventually(t, "the table loaded again", func() (bool, string) {
		out, err := s.trySQL("select count(_offset) from signup")
		return err == nil && strings.Join(out.lines(), "") == "4", fmt.Sprint(out, err)
	})
	if got := strings.Join(s.sql(all).lines(), "\n"); got != want {
		t.Errorf("loaded again: %s\nwant %s", got, want)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)
}
