package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const rideContract = `apiVersion: v3.1.0
kind: DataContract
id: rides
version: 1.0.0
status: active
schema:
  - name: ride
    customProperties:
      - {property: naru.partition, value: %s}
      - {property: naru.sort, value: %s}
    properties:
      - {name: began, logicalType: timestamp}
      - {name: city, logicalType: string, customProperties: [{property: naru.enum, value: [Seoul, Busan]}]}
      - {name: driver, logicalType: integer}
      - {name: fare, logicalType: number}
`

// However a contract lays out a table, and whatever kills the server on the way, the
// rows and every answer are the same; the table is there before the contract, the
// contract changes, and all is loaded anew.
func TestLayoutOfContract(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 200ms\nlake:\n  max_partitions: 7\n")
	contract := func(partition, sort string) {
		t.Helper()
		file := filepath.Join(dir, "contracts", "ride.yaml")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, rideContract, partition, sort), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const batch = 300
	sent := 0
	rides := func() string {
		var b strings.Builder
		for range batch {
			i := sent
			sent++
			fmt.Fprintf(&b, `{"type":"ride","k":%d,"began":"2026-0%d-%02dT%02d:00:00Z","city":%q,"driver":%d,"fare":%d.5}`+"\n",
				i, 1+i%3, 1+i%28, i%24, []string{"Seoul", "Busan"}[i%2], i*7%31, i%13)
		}
		return b.String()
	}
	questions := []string{
		"select count(*) from ride",
		"select count(*) || ' ' || sum(k) from ride where city = 'Seoul'",
		"select count(*) || ' ' || sum(k) from ride where driver = 11",
		"select count(*) || ' ' || sum(k) from ride where began >= '2026-02-01' and began < '2026-02-03'",
		"select count(*) || ' ' || sum(k) from ride where fare < 2 and city > 'C' and driver between 3 and 9",
		"select count(distinct (_log, _partition, _offset)) || ' ' || sum(_offset) from ride",
	}
	answers := func() []string {
		var out []string
		n, sum := map[string]int{}, map[string]int{}
		for i := range sent {
			city, driver, month, day, fare := []string{"Seoul", "Busan"}[i%2], i*7%31, 1+i%3, 1+i%28, i%13
			for q, ok := range map[string]bool{questions[1]: city == "Seoul", questions[2]: driver == 11, questions[3]: month == 2 && day < 3,
				questions[4]: fare < 2 && city == "Seoul" && driver >= 3 && driver <= 9} {
				if ok {
					n[q]++
					sum[q] += i
				}
			}
		}
		out = append(out, fmt.Sprint(sent))
		for _, q := range questions[1:5] {
			out = append(out, fmt.Sprintf("%d %d", n[q], sum[q]))
		}
		return append(out, fmt.Sprintf("%d %d", sent, sent*(sent-1)/2))
	}
	check := func(s *server) {
		t.Helper()
		for i, want := range answers() {
			s.waitSQL(questions[i], want)
		}
	}
	s := serve(t, dir)
	for i, layout := range [][2]string{{}, {"[month(began), city]", "[driver, began desc]"}, {`[day(began), "bucket(5, driver)"]`, "[fare desc]"}, {"none", "[city]"}, {"[city, hour(_time)]", "none"}} {
		if i > 0 {
			// Not all has to be committed when the server is killed.
			s.kill()
			contract(layout[0], layout[1])
			s = serve(t, dir)
		}
		for range 2 {
			if a := s.post("", "application/x-ndjson", rides()); a.Accepted != batch {
				t.Fatalf("%+v", a)
			}
			check(s)
		}
	}
	s.settle()
	check(s)
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if out := must(t, "", "table", "show", "events.ride", dir); !strings.Contains(out, "city, hour(_time)") {
		t.Error(out)
	}
	must(t, "", "verify", "--deep", dir)
	must(t, "", "table", "fsck", dir)
	must(t, "", "table", "reload", "events.ride", dir)
	s = serve(t, dir)
	check(s)
	s.settle()
	check(s)
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)

	// A field that was taken for a text is no time, whatever a contract says later.
	text := strings.Replace(fmt.Sprintf(rideContract, "[year(note)]", "[k]"), "- {name: driver,", "- {name: note, logicalType: timestamp}\n      - {name: k, logicalType: integer}\n      - {name: driver,", 1)
	s = serve(t, dir)
	if a := s.post("", "application/x-ndjson", `{"type":"ride","k":-1,"note":"soon"}`); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	s.settle()
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := os.WriteFile(filepath.Join(dir, "contracts", "ride.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "", "check", dir); !strings.Contains(out, "schema[ride].naru.partition: files of events.ride cannot be laid out so: its column note is string and stays so") || strings.Contains(out, "naru.sort") {
		t.Error(out)
	}
}
