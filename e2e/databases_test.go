package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/jackc/pgx/v5/pgconn"
)

// engine is where a real server is (test-world/engines/with); none: the test is left
// out, but not where the servers were started for it.
func engine(t *testing.T, name string) (at, password string) {
	name = "NARU_TEST_" + strings.ToUpper(name)
	if os.Getenv(name) == "" {
		if os.Getenv("NARU_TEST_ENGINES") != "" {
			t.Fatalf("%s is not set", name)
		}
		t.Skip("needs real servers: test-world/run databases stores")
	}
	return os.Getenv(name), os.Getenv(name + "_PASSWORD")
}

// TestDatabasesOfPages runs the examples of the sinks' pages.
func TestDatabasesOfPages(t *testing.T) {
	pgURL, pgPassword := engine(t, "postgres")
	myURL, myPassword := engine(t, "mariadb")
	chURL, chPassword := engine(t, "clickhouse")
	for _, tool := range []string{"psql", "mariadb", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			needs(t, "%s, to run the examples of the sinks' pages", tool)
		}
	}
	at := func(text string) *url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	pg, my, ch := at(pgURL), at(myURL), at(chURL)
	for _, create := range []*exec.Cmd{
		exec.Command("psql", "-q", pgURL, "-c", "CREATE DATABASE shop"),
		exec.Command("mariadb", "-h", my.Hostname(), "-P", my.Port(), "-u", "naru", "-e", "CREATE DATABASE shop"),
		exec.Command("curl", "-sS", "-f", chURL+"/?query=CREATE+DATABASE+shop", "-X", "POST", "-H", "X-ClickHouse-User: naru", "-H", "X-ClickHouse-Key: "+chPassword),
	} {
		create.Env = append(os.Environ(), "PGPASSWORD="+pgPassword, "MYSQL_PWD="+myPassword)
		if out, err := create.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", create, err, out)
		}
	}
	for _, page := range []string{"postgres", "mysql", "clickhouse"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(repoRoot(), "docs", "sinks", page+".md"))
			if err != nil {
				t.Fatal(err)
			}
			blocks := shellBlocks(string(text), "bash")
			if len(blocks) == 0 {
				t.Error("the page has no example")
			}
			runPage(t, blocks, "127.0.0.1:5432", pg.Host, "127.0.0.1:3306", my.Host, "127.0.0.1 -P 3306", my.Hostname()+" -P "+my.Port(), "127.0.0.1:8123", ch.Host)
		})
	}
}

// TestDatabasesUnderKills: one pipeline into PostgreSQL, MariaDB and ClickHouse, with
// SIGKILLs and connections that the servers end. Each has every row once, but for
// those that it refuses, and they are rejections.
func TestDatabasesUnderKills(t *testing.T) {
	pgURL, pgPassword := engine(t, "postgres")
	myURL, myPassword := engine(t, "mariadb")
	chURL, chPassword := engine(t, "clickhouse")
	lines, err := wikipediaLines()
	if err != nil {
		t.Fatal(err)
	}
	lines = lines[:short(8_000, len(lines))]

	// All values of what a query gives, of the three, as texts.
	cfg, err := pgconn.ParseConfig(pgURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = pgPassword
	pg, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(context.Background())
	inPostgres := func(sql string) (out []string) {
		t.Helper()
		r, err := pg.Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range r[len(r)-1].Rows {
			for _, v := range row {
				out = append(out, string(v))
			}
		}
		return out
	}
	u, err := url.Parse(myURL)
	if err != nil {
		t.Fatal(err)
	}
	my, err := client.Connect(u.Host, u.User.Username(), myPassword, "naru")
	if err != nil {
		t.Fatal(err)
	}
	defer my.Close()
	inMaria := func(sql string) (out []string) {
		t.Helper()
		r, err := my.Execute(sql)
		if err != nil {
			t.Fatal(err)
		}
		if r.Resultset == nil {
			return nil
		}
		for i := range r.RowNumber() {
			for j := range r.ColumnNumber() {
				v, err := r.GetString(i, j)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, strings.Clone(v))
			}
		}
		return out
	}
	inClickHouse := func(sql string) []string {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, chURL+"/?query="+url.QueryEscape(sql), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-ClickHouse-User", "naru")
		req.Header.Set("X-ClickHouse-Key", chPassword)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", sql, body, err)
		}
		return strings.Fields(strings.ReplaceAll(string(body), "\t", "\n"))
	}

	// The tables refuse one row of 97.
	inPostgres(`CREATE TABLE edits (_id text, added bigint CHECK (added % 97 <> 0))`)
	inMaria("CREATE TABLE edits (_id VARCHAR(100) PRIMARY KEY, added BIGINT CHECK (added % 97 <> 0))")
	inClickHouse("CREATE TABLE default.edits (_id String, added Int64, CONSTRAINT refuse CHECK added % 97 != 0) ENGINE = MergeTree ORDER BY _id SETTINGS non_replicated_deduplication_window = 100")

	dir := project(t, "log:\n  segment: 4MiB\npipelines:\n  commit_interval: 200ms\n  backoff_max: 1s\n")
	if err := os.MkdirAll(filepath.Join(dir, "pipelines"), 0o755); err != nil {
		t.Fatal(err)
	}
	definition := `
from: {types: [wikipedia_edit]}
steps:
  - sql: SELECT _id, _time, n, channel, page, "user", CAST(added AS BIGINT) AS added, isNew FROM input WHERE NOT isRobot AND added > 0
to:
  - postgres: {url: "` + pgURL + `", password_env: PG, table: edits}
    every: 200ms
  - postgres: {url: "` + pgURL + `", password_env: PG, table: channels, mode: upsert, key: [channel]}
    name: channels
    every: 200ms
  - mysql: {url: "` + myURL + `", password_env: MY, table: edits, mode: upsert, key: [_id]}
    every: 200ms
  - clickhouse: {url: "` + chURL + `", user: naru, password_env: CH, table: default.edits}
    every: 400ms
`
	if err := os.WriteFile(filepath.Join(dir, "pipelines", "edits.yaml"), []byte(definition), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PG", pgPassword)
	t.Setenv("MY", myPassword)
	t.Setenv("CH", chPassword)
	s := serve(t, dir)

	var want []string
	last := map[string]int{} // of each channel
	refused := 0
	var bodies []string
	var b strings.Builder
	for n, line := range lines {
		var e struct {
			IsRobot bool    `json:"isRobot"`
			Added   float64 `json:"added"`
			Channel string  `json:"channel"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("edit-", n)
		fmt.Fprintf(&b, `{"n":%d,"k":%q,%s`+"\n", n, id, line[1:])
		if (n+1)%200 == 0 || n == len(lines)-1 {
			bodies = append(bodies, b.String())
			b.Reset()
		}
		if e.IsRobot || e.Added <= 0 {
			continue
		}
		last[e.Channel] = n
		if int(e.Added)%97 == 0 {
			refused++
		} else {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	kills, ended := 0, 0
	for _, body := range bodies {
		switch rng.IntN(5) {
		case 0:
			if kills++; kills <= 8 {
				s.kill()
				s = serve(t, dir)
			}
		case 1:
			ended += len(inPostgres("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'naru'"))
			for _, id := range inMaria("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = 'naru' AND ID <> CONNECTION_ID()") {
				if _, err := my.Execute("KILL " + id); err == nil { // it may have gone by itself
					ended++
				}
			}
		}
		s.post("?type=wikipedia_edit&id_field=k&source=/wiki", "application/x-ndjson", body)
	}
	t.Logf("%d events, %d kills, %d connections ended, seed %d", len(lines), min(kills, 8), ended, seed)

	for _, target := range []struct {
		name string
		ids  func() []string
	}{
		{"PostgreSQL", func() []string { return inPostgres("SELECT _id FROM edits") }},
		{"MariaDB", func() []string { return inMaria("SELECT _id FROM edits") }},
		{"ClickHouse", func() []string { return inClickHouse("SELECT _id FROM default.edits") }},
	} {
		var got []string
		eventually(t, target.name+" has all rows", func() (bool, string) {
			got = target.ids()
			return len(got) >= len(want), fmt.Sprintf("%d of %d", len(got), len(want))
		})
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %d rows, %d different ones, want %d", target.name, len(got), len(slices.Compact(got)), len(want))
		}
	}
	eventually(t, "each channel has its last edit", func() (bool, string) {
		got := inPostgres("SELECT count(*), sum(n) FROM channels")
		sum := 0
		for _, n := range last {
			sum += n
		}
		return slices.Equal(got, []string{fmt.Sprint(len(last)), fmt.Sprint(sum)}), fmt.Sprint(got)
	})
	for _, sink := range []string{"postgres", "mysql", "clickhouse"} {
		s.waitCell("select count(*) from rejected where reason = 'sink' and path = '"+sink+"'", fmt.Sprint(refused))
		s.waitCell("select count(distinct event_id) from rejected where reason = 'sink' and path = '"+sink+"'", fmt.Sprint(refused))
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", dir, "--deep")
}
