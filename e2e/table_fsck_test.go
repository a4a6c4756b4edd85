package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// stage is a project whose server comes and goes while its files are harmed. Its
// events are of the types a and b, numbered from 0 on.
type stage struct {
	t   *testing.T
	dir string
	n   int
	s   *server
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, dir: project(t, "pipelines: {commit_interval: 200ms}\n")}
}

func (g *stage) path(parts ...string) string {
	return filepath.Join(append([]string{g.dir, "data"}, parts...)...)
}

// run serves, sends so many more events of each type, and waits for their rows.
func (g *stage) run(more int) *server {
	g.t.Helper()
	g.s = serve(g.t, g.dir)
	g.send(more)
	eventually(g.t, "all written", func() (bool, string) { return caughtUp(g.s) })
	return g.s
}

func (g *stage) send(more int) {
	g.t.Helper()
	if more == 0 {
		return
	}
	var body strings.Builder
	for range more {
		for _, typ := range []string{"a", "b"} {
			fmt.Fprintf(&body, `{"type":%q,"n":%d}`+"\n", typ, g.n)
			g.n++
		}
	}
	g.s.post("", "application/x-ndjson", body.String())
}

func (g *stage) stop() {
	g.t.Helper()
	if code := g.s.stop(); code != 0 {
		g.t.Fatalf("server ended with %d\n%s", code, g.s.logs)
	}
}

// exact requires the numbers from to to in the tables, each once, no place in the
// log twice.
func (g *stage) exact(from, to int) {
	g.t.Helper()
	all := `(select n, _log, _partition, _offset from a union all select n, _log, _partition, _offset from b)`
	got := g.s.cell("select count(*) || ' ' || count(distinct n) || ' ' || min(n) || ' ' || max(n) || ' ' || count(distinct (_log, _partition, _offset)) from " + all)
	want := fmt.Sprintf("%d %d %d %d %d", to-from, to-from, from, to-1, to-from)
	if got != want {
		g.t.Fatalf("rows, numbers, from, to, places: %s; want %s\n%s", got, want, g.s.logs)
	}
}

// problems waits until the status names all of want.
func (g *stage) problems(want ...string) {
	g.t.Helper()
	eventually(g.t, "status names "+strings.Join(want, ", "), func() (bool, string) {
		doc, err := g.s.status()
		if err != nil {
			return false, err.Error()
		}
		text := fmt.Sprint(doc["problems"])
		for _, w := range want {
			if !strings.Contains(text, w) {
				return false, text
			}
		}
		return true, ""
	})
}

func (g *stage) catalog(query string, args ...any) []string {
	g.t.Helper()
	db, err := sql.Open("sqlite", g.path("catalog.db"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(query, args...)
	if err != nil {
		g.t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var one sql.NullString
		if err := rows.Scan(&one); err != nil {
			g.t.Fatal(err)
		}
		out = append(out, one.String)
	}
	if err := rows.Err(); err != nil {
		g.t.Fatal(err)
	}
	return out
}

func (g *stage) copied(from, to string) {
	g.t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		g.t.Fatalf("copy: %v: %s", err, out)
	}
}

func (g *stage) removed(parts ...string) {
	g.t.Helper()
	if err := os.RemoveAll(g.path(parts...)); err != nil {
		g.t.Fatal(err)
	}
}

// fsck runs naru table fsck and returns the paths of what is damaged.
func (g *stage) fsck(want int, args ...string) (paths []string) {
	g.t.Helper()
	r := naru(g.t, "", append(append([]string{"table", "fsck"}, args...), g.dir, "--json")...)
	if r.code != want {
		g.t.Fatalf("fsck: exit %d, want %d\n%s%s", r.code, want, r.stdout, r.stderr)
	}
	var report struct {
		Damage []struct{ Path, Reason, Cure string } `json:"damage"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		g.t.Fatalf("fsck: %v\n%s%s", err, r.stdout, r.stderr)
	}
	for _, d := range report.Damage {
		if d.Reason == "" || d.Cure == "" {
			g.t.Errorf("no reason or cure: %+v", d)
		}
		paths = append(paths, d.Path)
	}
	slices.Sort(paths)
	return paths
}

// reload runs naru table reload; what it prints has to hold want.
func (g *stage) reload(code int, want string, args ...string) {
	g.t.Helper()
	r := naru(g.t, "", append(append([]string{"table", "reload"}, args...), g.dir, "--json")...)
	if got := strings.Join(strings.Fields(r.stdout), " "); r.code != code || !strings.Contains(got, want) {
		g.t.Fatalf("reload %v: exit %d, want %d; %s\n%s%s", args, r.code, code, want, r.stdout, r.stderr)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found
}

// Files of the lake are harmed in turn: fsck names each, beside a server and
// without one, and reload gets the rows back.
func TestTableFsckAndReload(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(20)
	g.stop()
	g.run(20)
	g.fsck(0)
	g.stop()
	g.fsck(0)
	g.fsck(0, "a")
	data := glob(t, g.path("lake/events/a/data/*/*.parquet"))
	files := []string{data[0], glob(t, g.path("lake/events/a/metadata/*.avro"))[0], glob(t, g.path("lake/events/b/metadata/*.metadata.json"))[0]}
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		flipped := slices.Clone(b)
		flipped[len(b)/2] ^= 1
		for _, harm := range [][]byte{flipped, b[:len(b)/2], nil} {
			if harm == nil {
				err = os.Remove(p)
			} else {
				err = os.WriteFile(p, harm, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := g.fsck(1); !slices.Equal(got, []string{p}) {
				t.Errorf("damage: %v, want %s", got, p)
			}
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g.copied(data[1], data[0])
	if got := g.fsck(1, "a", "b"); !slices.Equal(got, data[:1]) {
		t.Errorf("damage: %v, want %v", got, data[:1])
	}
	// Out of one file another was made: the table is loaded anew.
	text := naru(t, "", "table", "fsck", g.dir)
	if text.code != 1 || !strings.Contains(text.stdout, "naru table reload events.a") || !strings.Contains(text.stdout, data[0]) {
		t.Errorf("exit %d\n%s%s", text.code, text.stdout, text.stderr)
	}
	if err := os.Remove(data[0]); err != nil {
		t.Fatal(err)
	}
	g.reload(0, `"rows": 40, "returns": 40, "lost": 0, "unknown": 0, "reloaded": true`, "a") // the log has what the file had
	g.run(5)
	g.exact(0, g.n)
	if r := naru(t, "", "table", "reload", "a", g.dir); r.code != 1 || !strings.Contains(r.stderr, "stop") {
		t.Errorf("reload beside a server: exit %d\n%s", r.code, r.stderr)
	}
	g.stop()
	g.fsck(0)
	g.run(0)
	g.exact(0, g.n)
}

// The catalog's row is set back to the metadata file before, by another process
// and while the server is stopped or runs.
func TestCatalogRowSetBack(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(10)
	g.stop()
	g.run(10)
	g.stop()
	back := `update iceberg_tables set metadata_location = previous_metadata_location where table_name = 'a' returning metadata_location`
	if got := g.catalog(back); len(got) != 1 || got[0] == "" {
		t.Fatalf("rows set back: %v", got)
	}
	g.run(0)
	eventually(t, "rows are loaded again", func() (bool, string) {
		n := g.s.cell("select count(_offset) from a")
		return n == "20", n
	})
	g.exact(0, 40)
	g.send(10)
	eventually(t, "all written", func() (bool, string) { return caughtUp(g.s) })
	if got := g.catalog(back); len(got) != 1 {
		t.Fatalf("rows set back: %v", got)
	}
	g.send(10) // the next commit meets it
	eventually(t, "rows are loaded again", func() (bool, string) {
		if ok, what := caughtUp(g.s); !ok {
			return false, what
		}
		n := g.s.cell("select count(_offset) from a")
		return n == "40", n
	})
	g.exact(0, 80)
}

// The lake is removed, with its catalog or without it, and the log stays.
func TestLakeRemoved(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(30)
	g.stop()
	g.removed("lake")
	for _, name := range []string{"catalog.db", "catalog.db-wal", "catalog.db-shm"} {
		g.removed(name)
	}
	g.run(5)
	g.exact(0, g.n)
	g.stop()

	// Without its catalog the lake is not touched.
	g.copied(g.path("catalog.db"), g.path("catalog.kept"))
	g.removed("catalog.db")
	if s, err := tryServe(t, g.dir); err == nil {
		t.Error("served without the catalog")
	} else if code := s.wait(); code != 1 || !strings.Contains(s.logs.String(), "catalog") {
		t.Errorf("exit %d\n%s", code, s.logs)
	}
	if r := naru(t, "", "table", "fsck", g.dir); r.code != 1 || !strings.Contains(r.stderr, "catalog.db") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(g.path("catalog.db")); err == nil {
		t.Error("an empty catalog was made")
	}
	g.copied(g.path("catalog.kept"), g.path("catalog.db"))

	// The catalog alone is left: its tables stop, with the cure, and others go on.
	g.removed("lake")
	g.s = serve(t, g.dir)
	g.s.post("", "application/x-ndjson", `{"type":"c","n":1}`+"\n")
	g.problems("events.a", "events.b", "naru table reload events.a")
	eventually(t, "other tables go on", func() (bool, string) {
		out, err := g.s.trySQL("select count(_offset) from c")
		return err == nil && len(out.Rows) == 1 && text(out.Rows[0][0]) == "1", fmt.Sprint(out, err)
	})
	g.stop()
	g.reload(1, `"reloaded": false`, "a") // nobody knows what it had
	must(t, "", "table", "reload", "a", g.dir, "--yes")
	must(t, "", "table", "reload", "events.b", g.dir, "--yes")
	g.run(5)
	g.exact(0, g.n)
	if got := g.s.cell("select count(_offset) from c"); got != "1" {
		t.Errorf("c has %s rows", got)
	}
	g.stop()
	g.fsck(0)
}

// An older copy of the lake, with its catalog, is put back under the log: all
// that came since is loaded again, once.
func TestOlderLakeUnderItsLog(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(10)
	g.stop()
	g.copied(g.path("lake"), g.path("older.lake"))
	g.copied(g.path("catalog.db"), g.path("older.db"))
	g.run(10)
	g.stop()
	g.removed("lake")
	for _, name := range []string{"catalog.db", "catalog.db-wal", "catalog.db-shm"} {
		g.removed(name)
	}
	g.copied(g.path("older.lake"), g.path("lake"))
	g.copied(g.path("older.db"), g.path("catalog.db"))
	g.run(5)
	eventually(t, "rows are loaded again", func() (bool, string) {
		n := g.s.cell("select (select count(*) from a) + (select count(*) from b)")
		return n == fmt.Sprint(g.n), n
	})
	g.exact(0, g.n)
	g.stop()
	must(t, "", "verify", g.dir, "--deep")
	g.fsck(0)
}

// The log is removed and the lake stays: what was written stays, and what comes
// is of a new life of the log. An older copy of the log comes back: its tables
// are stopped, and the cure works.
func TestLogResetAndOlderLog(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(10)
	g.stop()
	g.copied(g.path("log"), g.path("older"))
	first := g.n
	g.run(10)
	g.exact(0, g.n)
	g.stop()

	g.copied(g.path("log"), g.path("newest"))
	g.removed("log")
	g.run(10)
	g.exact(0, g.n)
	g.stop()
	g.run(0)
	g.exact(0, g.n)
	g.stop()

	g.removed("log")
	g.copied(g.path("older"), g.path("log"))
	g.s = serve(t, g.dir)
	g.s.post("", "application/x-ndjson", `{"type":"c","n":1}`+"\n")
	g.problems("events.a", "events.b", "ahead of the log", "naru table reload events.a")
	eventually(t, "other tables go on", func() (bool, string) {
		out, err := g.s.trySQL("select count(_offset) from c")
		return err == nil && len(out.Rows) == 1 && text(out.Rows[0][0]) == "1", fmt.Sprint(out, err)
	})
	g.stop()
	text := naru(t, "y\n", "table", "reload", "a", g.dir) // nobody is asked: this is no terminal
	if text.code != 1 || !strings.Contains(text.stdout, "events.a has 30 rows") || !strings.Contains(text.stderr, "20 rows would be lost") || !strings.Contains(text.stderr, "--yes") {
		t.Errorf("exit %d\n%s%s", text.code, text.stdout, text.stderr)
	}
	g.reload(1, `"rows": 30, "returns": 10, "lost": 20, "unknown": 0, "reloaded": false`, "a")
	g.reload(1, `"rows": 30, "returns": 10, "lost": 20, "unknown": 0, "reloaded": false`, "a") // and nothing was changed
	g.reload(0, `"rows": 30, "returns": 10, "lost": 20, "unknown": 0, "reloaded": true`, "a", "--yes")
	must(t, "", "table", "reload", "b", g.dir, "--yes")
	g.n = first
	g.run(5)
	g.exact(0, g.n) // what the older log has, and what came since
}

// Another process holds the catalog, longer than naru waits for it at once: at the
// start that is refused with the cause, and while running it is waited for.
func TestCatalogLockedForLong(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.run(10)
	hold := func(mode string) (release func()) {
		db, err := sql.Open("sqlite", "file:"+g.path("catalog.db")+"?_pragma=busy_timeout(20000)&_pragma=locking_mode("+mode+")")
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		if _, err := db.Exec("begin exclusive"); err != nil {
			t.Fatal(err)
		}
		return func() {
			if _, err := db.Exec("commit"); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if os.Getenv("NARU_SOAK") != "" { // a commit waits half a minute before it says so
		release := hold("normal")
		g.send(10)
		g.problems("locked", "catalog.db")
		release()
		eventually(t, "all written", func() (bool, string) { return caughtUp(g.s) })
		g.exact(0, g.n)
	}
	g.stop()

	release := hold("exclusive")
	begun := time.Now()
	s, err := tryServe(t, g.dir)
	if err == nil {
		t.Error("started although the catalog is locked")
	} else if code := s.wait(); code != 1 || !strings.Contains(s.logs.String(), "keeps "+g.path("catalog.db")+" locked") {
		t.Errorf("exit %d after %v\n%s", code, time.Since(begun), s.logs)
	}
	release()
	g.run(5)
	g.exact(0, g.n)
	g.stop()
	g.fsck(0)
}
