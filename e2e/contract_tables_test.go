package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const orderContract = `apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
  - name: order
    customProperties: [{property: naru.table, value: %s}, {property: naru.mode, value: observe}]
    properties:
      - {name: paid_at, logicalType: timestamp}
      - {name: due, logicalType: date}
      - {name: amount, logicalType: number}
      - {name: coupon, logicalType: string}
`

// Columns have the types of the contract, in the hot tail and in the table; a
// contract that names another table while events are in the log, unloaded, and the
// server is killed, moves those that come from then on and no other.
func TestTableFollowsContract(t *testing.T) {
	t.Parallel()
	dir := project(t, "pipelines:\n  commit_interval: 1h\n")
	file := filepath.Join(dir, "contracts", "order.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(table string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, orderContract, table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sales")
	s := serve(t, dir)
	body := `{"type":"order","n":1,"paid_at":"2026-01-31T09:00:00.5+09:00","due":"2026-02-14","amount":5}` + "\n" + `{"type":"order","n":2,"paid_at":"soon","amount":7.0}` + "\n"
	if a := s.post("", "application/x-ndjson", body); a.Accepted != 2 {
		t.Fatalf("%+v", a)
	}
	types := `select string_agg(distinct typeof(paid_at) || ' ' || typeof(due) || ' ' || typeof(amount) || ' ' || typeof(coupon), ',') from sales`
	wantTypes := "TIMESTAMP WITH TIME ZONE DATE DOUBLE VARCHAR"
	rows := `select string_agg(n || ' ' || coalesce(epoch_ms(paid_at)::varchar, '-') || ' ' || coalesce(due::varchar, '-') || ' ' || amount || ' ' || coalesce(_rescued, '-'), ', ' order by n) from sales`
	wantRows := `1 1769817600500 2026-02-14 5.0 -, 2 - - 7.0 {"paid_at":"soon"}`
	s.waitSQL(types, wantTypes)
	s.waitSQL(rows, wantRows)
	s.kill()

	write("paid")
	s = serve(t, dir)
	s.waitSQL(rows, wantRows)
	if a := s.post("", "application/x-ndjson", strings.ReplaceAll(body, `"n":`, `"n":1`)); a.Accepted != 2 {
		t.Fatalf("%+v", a)
	}
	s.waitSQL(`select string_agg(n, ' ' order by n) from paid`, "11 12")
	s.waitSQL(rows, wantRows)
	if out := must(t, "", "contract", "init", "--from-data", "order", "--url", s.url); !strings.Contains(out, "# A draft from 2 events of type order") {
		t.Errorf("no draft from the table that the contract names: %s", out)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)

	write("sales")
	s = serve(t, dir)
	s.waitSQL(types, wantTypes)
	if a := s.post("", "application/json", `{"type":"order","n":3,"amount":1}`); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	s.waitSQL(`select string_agg(n, ' ' order by n) from sales`, "1 2 3")
	s.waitSQL(`select string_agg(n, ' ' order by n) from paid`, "11 12")

	// Two types for one table: refused, and the old contracts go on.
	other := strings.Replace(fmt.Sprintf(orderContract, "sales"), "name: order", "name: refund", 1)
	if err := os.WriteFile(filepath.Join(dir, "contracts", "refund.yaml"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the two seen", func() (bool, string) {
		out := must(t, "", "status", "--url", s.url)
		return strings.Contains(out, "the table sales is that of the type order already"), out
	})
	if r := naru(t, "", "check", dir); r.code != 1 || !strings.Contains(r.stdout, "give one of the two another name") {
		t.Errorf("exit code %d\n%s", r.code, r.stdout)
	}
	if a := s.post("", "application/json", `{"type":"order","n":4,"amount":1}`); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	s.waitSQL(`select string_agg(n, ' ' order by n) from sales`, "1 2 3 4")
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", "--deep", dir)

	// A column keeps its type; the check says so before anybody wonders.
	if err := os.Remove(filepath.Join(dir, "contracts", "refund.yaml")); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "", "check", dir); strings.Contains(out, "stays so") {
		t.Error(out)
	}
	// The columns of a pipeline's events are those of the table that the contract names.
	steps := filepath.Join(dir, "pipelines", "orders.yaml")
	if err := os.MkdirAll(filepath.Dir(steps), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(steps, []byte("from: {types: [order]}\nsteps:\n  - filter: amont > 1\nto: [{table: large}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := naru(t, "", "check", dir); r.code != 1 || !strings.Contains(r.stdout, "pipelines/orders.yaml:3: steps: step 1 filter: no event has had the column amont: did you mean amount?") {
		t.Errorf("exit code %d\n%s", r.code, r.stdout)
	}
	if err := os.Remove(steps); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(fmt.Sprintf(orderContract, "sales"), "amount, logicalType: number", "amount, logicalType: string", 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := must(t, "", "check", dir); !strings.Contains(out, "order.yaml:12: schema[order].amount: the column amount of events.sales is double and stays so, the contract wants string") {
		t.Error(out)
	}
}
