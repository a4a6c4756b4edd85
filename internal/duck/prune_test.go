package duck

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"naru/internal/lake"
)

// pruneLake keeps the views that it has handed out last.
type pruneLake struct {
	*testLake
	last []*lake.View
}

func (l *pruneLake) View(ctx context.Context, t lake.Ident) (*lake.View, error) {
	v, err := l.testLake.View(ctx, t)
	if err == nil {
		l.last = append(l.last, v)
	}
	return v, err
}

// read is how many files the queries since the last call have read.
func (l *pruneLake) read() (n int) {
	for _, v := range l.last {
		n += len(v.Files)
	}
	l.last = nil
	return n
}

func long(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

func short(v int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

func double(v float64) []byte { return binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)) }

func micros(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t.UnixMicro()
}

// hours is a table of 24 files, one for each hour of a day; half of an hour's rows
// have the price NULL.
func hours(t *testing.T) *pruneLake {
	l := &pruneLake{testLake: newLake(t)}
	v := l.table("events.t", "1 _time timestamptz", "2 _offset long", "3 price double", "4 page string", "5 part int")
	start := micros("2026-03-01T00:00:00Z")
	for h := range int64(24) {
		l.file(t, v, fmt.Sprintf(`SELECT make_timestamptz(%d + i * 600000000) AS _time, %d + i AS _offset, CASE WHEN i %% 2 = 0 THEN %d + i / 10 END AS price, 'page-' || chr(%d) || '-of-the-long-names' AS page, %d::INTEGER AS part FROM range(6) t(i)`,
			start+h*3600e6, h*6, h, 'a'+h, h), `_time: 1, _offset: 2, price: 3, page: 4, part: 5`)
		page := fmt.Sprintf("page-%c-of-the-long-names", 'a'+rune(h))
		v.Files[h].Bounds = lake.PackBounds(
			map[int][]byte{1: long(start + h*3600e6), 2: long(h * 6), 3: double(float64(h)), 4: []byte(page[:16]), 5: short(int32(h))},
			map[int][]byte{1: long(start + h*3600e6 + 5*600e6), 2: long(h*6 + 5), 3: double(float64(h) + 0.4), 4: append([]byte(page[:15]), page[15]+1), 5: short(int32(h))})
	}
	return l
}

// TestPruneReads: how many of the 24 files each query reads.
func TestPruneReads(t *testing.T) {
	l := hours(t)
	e := open(t, l, l.dir)
	for sql, want := range map[string]int{
		"SELECT count(*) FROM t":                                                                                  24,
		"SELECT count(*) FROM t WHERE _offset >= 138":                                                             1,
		"SELECT count(*) FROM events.t AS x WHERE 138 <= x._OFFSET":                                               1,
		"SELECT count(*) FROM t WHERE _offset IN (0, 143)":                                                        2,
		"SELECT count(*) FROM t WHERE _offset IN (0, 143, NULL)":                                                  24,
		"SELECT count(*) FROM t WHERE _offset BETWEEN 6 AND 3 * 4":                                                2,
		"SELECT count(*) FROM t WHERE _offset BETWEEN -1 AND 11.5":                                                24, // compared as DECIMAL
		"SELECT count(*) FROM t WHERE _offset < 12e0":                                                             2,  // compared as DOUBLE
		"SELECT count(*) FROM t WHERE _offset = 7 AND part = 3":                                                   0,
		"SELECT count(*) FROM t WHERE part = 3":                                                                   1,
		"SELECT count(*) FROM t WHERE _time >= '2026-03-01 22:00:00Z'":                                            2,
		"SELECT count(*) FROM t WHERE _time >= TIMESTAMPTZ '2026-03-01 23:00:00+01'":                              2,
		"SELECT count(*) FROM t WHERE _time < TIMESTAMP '2026-03-01 01:00:00'":                                    1,
		"SELECT count(*) FROM t WHERE _time >= DATE '2026-03-02' - INTERVAL 2 HOUR AND _time < now()":             2,
		"SELECT count(*) FROM t WHERE _time > now() - INTERVAL '10 minutes'":                                      0,
		"SELECT count(*) FROM t WHERE _time < date_trunc('month', DATE '2026-03-07') + to_hours(1)":               1,
		"SELECT count(*) FROM t WHERE price < 2.5":                                                                3,
		"SELECT count(*) FROM t WHERE price = 2":                                                                  1,
		"SELECT count(*) FROM t WHERE price > 20":                                                                 24, // there may be NaN
		"SELECT count(*) FROM t WHERE page = 'page-c-of-the-long-names'":                                          1,
		"SELECT count(*) FROM t WHERE page < 'page-b'":                                                            1,
		"SELECT count(*) FROM t WHERE page = 5":                                                                   24,
		"SELECT count(*) FROM t WHERE _offset < 6 OR part = 9":                                                    24,
		"SELECT count(*) FROM t WHERE NOT _offset < 6":                                                            19 + 4, // NOT becomes >= while parsing
		"SELECT count(*) FROM t WHERE _offset + 0 < 6":                                                            24,
		"SELECT count(*) FROM t WHERE _offset < 6 AND replace(page, 'a', 'bb') <> ''":                             1, // with a guard's macro
		"SELECT count(*) FROM t WHERE _offset < 6 AND random() < 2":                                               1,
		"SELECT count(*) FROM t WHERE _offset < NULL":                                                             24,
		"SELECT count(*) FROM t WHERE _offset < part":                                                             24,
		"SELECT count(*) FROM t AS t(a, b) WHERE b < 6":                                                           24,
		"SELECT count(*) FROM t TABLESAMPLE 100% WHERE _offset < 6":                                               24,
		"SELECT count(*) FROM t WHERE _offset < 6 USING SAMPLE 100%":                                              24,
		"SELECT (SELECT count(*) FROM t WHERE _offset < 6), (SELECT count(*) FROM t WHERE _offset >= 138)":        2,
		"SELECT (SELECT count(*) FROM t WHERE _offset < 6), (SELECT count(*) FROM t)":                             24,
		"WITH x AS (FROM t WHERE _offset < 6) SELECT count(*) FROM x, x AS y":                                     1,
		"WITH t AS (FROM events.t) SELECT count(*) FROM t WHERE _offset < 6":                                      24,
		"SELECT count(*) FROM t AS a JOIN t AS b USING (_offset) WHERE a._offset < 6 AND b._offset < 12":          2,
		"SELECT count(*) FROM t AS a JOIN t AS b USING (_offset) WHERE _offset < 6":                               24,
		"SELECT count(*) FROM t AS a, t AS b WHERE a._offset < 6 AND b._offset = 100":                             2,
		"SELECT count(*) FROM t AS a LEFT JOIN (VALUES (1)) AS b(x) ON a._offset = b.x WHERE a._offset < 6":       1,
		"SELECT count(*) FROM (VALUES (1)) AS b(x) LEFT JOIN t AS a ON a._offset = b.x WHERE a._offset < 6":       24,
		"SELECT count(*) FROM (VALUES (1)) AS b(x) ASOF JOIN t AS a ON b.x >= a._offset WHERE a._offset < 6":      24,
		"SELECT count(*) FROM (VALUES (1)) AS b(x) POSITIONAL JOIN t AS a WHERE a._offset < 6":                    24,
		"SELECT count(*) FROM (VALUES (1)) AS b(x) WHERE EXISTS (FROM t WHERE _offset < 6)":                       1,
		"SELECT count(*) FROM (VALUES (1)) AS b(x) WHERE x IN (SELECT _offset FROM t WHERE _offset < 6)":          1,
		"SELECT _offset + 6 AS o FROM t WHERE o < 7 ORDER BY ALL":                                                 24,
		"SELECT part AS _offset FROM t WHERE _offset < 6":                                                         1, // a column comes before an alias
		"SELECT count(*) FROM t WHERE _offset > 9223372036854775807 + 1":                                          24,
		"EXPLAIN SELECT count(*) FROM t WHERE _offset < 6":                                                        1,
		"FROM t SELECT count(*) WHERE _offset < 6 GROUP BY part HAVING part < 3 QUALIFY row_number() OVER () > 0": 1,
	} {
		_, err := ask(e, sql)
		if err != nil && !strings.Contains(sql, "+ 1") && !strings.Contains(sql, "page = 5") {
			t.Errorf("%s: %v", sql, err)
		}
		if got := l.read(); got != want {
			t.Errorf("%s: reads %d files, want %d", sql, got, want)
		}
	}
}

// TestPruneOpensNothing: a file that is left out is not even looked for.
func TestPruneOpensNothing(t *testing.T) {
	l := hours(t)
	e := open(t, l, l.dir)
	for _, f := range l.tables[lake.Ident{Namespace: "events", Name: "t"}].Files[:23] {
		if err := os.Remove(f.Path); err != nil {
			t.Fatal(err)
		}
	}
	check(t, e, map[string]string{"SELECT count(*) FROM t WHERE _time >= '2026-03-01T23:00:00Z'": "6"})
	if _, err := ask(e, "SELECT count(*) FROM t WHERE _time >= '2026-03-01T22:00:00Z'"); err == nil {
		t.Error("a file that is missing was not missed")
	}
}

// TestPruneNow: the time that files are chosen by is the time that rows are. The
// rows' times pass while the test asks.
func TestPruneNow(t *testing.T) {
	l := &pruneLake{testLake: newLake(t)}
	v := l.table("events.t", "1 _time timestamptz")
	db, err := openDatabase()
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	c, err := db.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const files, step = 60, 5_000
	first := time.Now().Add(time.Second).UnixMicro()
	for i := range int64(files) {
		at, path := first+i*step, filepath.Join(l.dir, fmt.Sprint(i, ".parquet"))
		if err := c.exec(fmt.Sprintf("COPY (SELECT make_timestamptz(%d) AS _time) TO %s (FORMAT parquet, FIELD_IDS {_time: 1})", at, literal(path))); err != nil {
			t.Fatal(err)
		}
		v.Files = append(v.Files, lake.File{Path: path, Bounds: lake.PackBounds(map[int][]byte{1: long(at)}, map[int][]byte{1: long(at)})})
	}
	e := open(t, l, l.dir)
	sql := fmt.Sprintf("SELECT greatest(0, least(%d, (epoch_us(now()) - %d + %d) // %d)) - (SELECT count(*) FROM t WHERE _time < now())", files, first, step-1, step)
	for time.Now().UnixMicro() < first+files*step {
		if got, err := ask(e, sql); err != nil || got != "0" {
			t.Fatalf("%s rows too few: %v", got, err)
		}
	}
}

// cut16 is a text's bound as Iceberg's writers make it.
func cut16(s string, up bool) []byte {
	if utf8.RuneCountInString(s) <= 16 {
		return []byte(s)
	}
	r := []rune(s)[:16]
	if up {
		r[15]++
	}
	return []byte(string(r))
}

// spread are random rows in random files, and what manifests would say of them.
func spread(t *testing.T, rng *rand.Rand) (bounded, blind *pruneLake) {
	bounded, blind = &pruneLake{testLake: newLake(t)}, &pruneLake{testLake: newLake(t)}
	columns := []string{"1 _time timestamptz", "2 _offset long", "3 n long", "4 d double", "5 s string", "6 old double", "7 odd string"}
	v, w := bounded.table("events.t", columns...), blind.table("events.t", columns...)
	bounded.dir = blind.dir
	offset := 0
	for f := range 12 {
		lower, upper := map[int][]byte{}, map[int][]byte{}
		var rows []string
		center := rng.IntN(100)
		var times, offsets, ns []int64
		var ds, olds []float64
		var ss []string
		for range 1 + rng.IntN(20) {
			cells := make([]string, 7)
			for i := range cells {
				cells[i] = "NULL"
			}
			at := micros("2026-03-28T20:00:00Z") + int64(center+rng.IntN(10))*600e6
			times, cells[0] = append(times, at), fmt.Sprintf("make_timestamptz(%d)", at)
			offsets, cells[1] = append(offsets, int64(offset)), fmt.Sprint(offset)
			offset++
			if n := int64(center + rng.IntN(8) - 50); rng.IntN(3) > 0 {
				ns, cells[2] = append(ns, n), fmt.Sprint(n)
			}
			switch d := float64(center+rng.IntN(8)-50) / 4; rng.IntN(8) {
			case 0:
			case 1:
				cells[3] = "'nan'"
			case 2:
				ds, cells[3] = append(ds, math.Inf(1)), "'inf'"
			case 3:
				ds, cells[3] = append(ds, math.Copysign(0, -1)), "'-0.0'"
			default:
				ds, cells[3] = append(ds, d), fmt.Sprintf("'%g'", d)
			}
			if s := randomText(rng, center); rng.IntN(4) > 0 {
				ss, cells[4] = append(ss, s), literal(s)
			}
			if o := float64(center + rng.IntN(8)); rng.IntN(3) > 0 {
				olds, cells[5] = append(olds, o), fmt.Sprint(o)
			}
			cells[6] = literal(randomText(rng, rng.IntN(100)))
			rows = append(rows, "("+strings.Join(cells, ", ")+")")
		}
		put := func(id int, lo, hi []byte) {
			if rng.IntN(6) > 0 {
				lower[id] = lo
			}
			if rng.IntN(6) > 0 {
				upper[id] = hi
			}
		}
		put(1, long(slices.Min(times)), long(slices.Max(times)))
		put(2, long(slices.Min(offsets)), long(slices.Max(offsets)))
		nType, oldType := "BIGINT", "DOUBLE"
		if len(ns) > 0 && f%3 == 0 { // from before the column became long
			nType = "INTEGER"
			put(3, short(int32(slices.Min(ns))), short(int32(slices.Max(ns))))
		} else if len(ns) > 0 {
			put(3, long(slices.Min(ns)), long(slices.Max(ns)))
		}
		if len(ds) > 0 {
			put(4, double(slices.Min(ds)), double(slices.Max(ds)))
		}
		if len(ss) > 0 {
			put(5, cut16(slices.Min(ss), false), cut16(slices.Max(ss), true))
		}
		if len(olds) > 0 && f%3 == 1 { // from before the column became double
			oldType = "FLOAT"
			put(6, short(int32(math.Float32bits(float32(slices.Min(olds))))), short(int32(math.Float32bits(float32(slices.Max(olds))))))
		} else if len(olds) > 0 {
			put(6, double(slices.Min(olds)), double(slices.Max(olds)))
		}
		names := []string{"_time", "_offset", "n", "d", "s", "old", "odd"}
		types := []string{"TIMESTAMPTZ", "BIGINT", nType, "DOUBLE", "VARCHAR", oldType, "VARCHAR"}
		var list, ids []string
		for i, name := range names {
			if i == 6 && f%4 == 0 {
				continue // from before the column existed
			}
			list = append(list, fmt.Sprintf("CAST(%s AS %s) AS %s", name, types[i], name))
			ids = append(ids, fmt.Sprintf("%s: %d", name, i+1))
		}
		sql := "SELECT " + strings.Join(list, ", ") + " FROM (VALUES " + strings.Join(rows, ", ") + ") t(" + strings.Join(names, ", ") + ")"
		blind.file(t, w, sql, strings.Join(ids, ", "))
		v.Files = append(v.Files, w.Files[f])
		v.Files[f].Bounds = lake.PackBounds(lower, upper)
	}
	return bounded, blind
}

func randomText(rng *rand.Rand, center int) string {
	s := strings.Repeat([]string{"a", "é", "가", "𝄞"}[center%4], center%20)
	return s + fmt.Sprintf("%02d", center+rng.IntN(4)) + strings.Repeat("z", rng.IntN(3))
}

// randomTerm is something that a WHERE may say of a table called a.
func randomTerm(rng *rand.Rand, a string) string {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	col := pick("_time", "_offset", "n", "d", "s", "old", "N", "_TIME")
	if rng.IntN(8) == 0 {
		col = pick("s", "odd")
	}
	name := strings.ToLower(col)
	constant := func() string {
		k := rng.IntN(110)
		switch name {
		case "_time":
			at := time.UnixMicro(micros("2026-03-28T20:00:00Z") + int64(k)*600e6).UTC()
			return pick(
				at.Format("'2006-01-02 15:04:05Z'"), at.Format("'2006-01-02 15:04:05'"), at.Format("TIMESTAMPTZ '2006-01-02 15:04:05+05:30'"),
				at.Format("TIMESTAMP '2006-01-02 15:04:05'"), at.Format("DATE '2006-01-02'"), at.Format("'2006-01-02'"),
				at.Format("'2006-01-02 15:04:05 Europe/Berlin'"), at.Format("TIMESTAMPTZ '2006-01-02 15:04:05 Asia/Seoul' - INTERVAL '90 minutes'"),
				at.Format("DATE '2006-01-02' + INTERVAL 1 MONTH - INTERVAL '31 days'"), at.Format("TIMESTAMP '2006-01-02 15:04:05' + to_hours(2)"),
				"now() - INTERVAL '1 month'", "today()", "to_timestamp("+fmt.Sprint(at.Unix())+")", "'infinity'", at.Format("DATE '2006-01-02' + 1"),
				at.Format("make_timestamptz(2006, 1, 2, 15, 4, 5.5)"), at.Format("date_trunc('hour', TIMESTAMP '2006-01-02 15:04:05')"))
		case "s", "odd":
			return pick(literal(randomText(rng, k)), "''", literal(strings.Repeat("가", k%20)), "'zz'", "CAST('a' AS VARCHAR)", "'5'")
		case "d", "old":
			return pick(fmt.Sprint(k-50), fmt.Sprintf("%g", float64(k-50)/4), fmt.Sprintf("%d.25", k), "'nan'::DOUBLE", "'-inf'::DOUBLE", "-0.0", "0e0", fmt.Sprintf("%de-1", k), "1e308", fmt.Sprintf("'%d'", k))
		}
		return pick(fmt.Sprint(k-50), fmt.Sprint(k), fmt.Sprintf("%d.5", k-50), fmt.Sprintf("%de0", k-50), fmt.Sprintf("%d::BIGINT", k), "9223372036854775807", "9223372036854775808", "-170141183460469231731687303715884105728",
			fmt.Sprintf("'%d'", k-50), fmt.Sprintf("CAST('%d' AS INTEGER)", k), fmt.Sprintf("(%d - %d)", k, rng.IntN(50)), fmt.Sprintf("%d * 2", k-50), "NULL", "0.1", "1e19")
	}
	if a != "" {
		col = a + "." + col
	}
	op := pick("<", "<=", ">", ">=", "=", "<>")
	switch rng.IntN(12) {
	case 0:
		return col + " BETWEEN " + constant() + " AND " + constant()
	case 1:
		return col + " NOT BETWEEN " + constant() + " AND " + constant()
	case 2:
		return col + pick(" IN (", " NOT IN (") + constant() + ", " + constant() + ", " + constant() + ")"
	case 3:
		return constant() + " " + op + " " + col
	case 4:
		return "(" + randomTerm(rng, a) + " OR " + randomTerm(rng, a) + ")"
	case 5:
		return "NOT (" + randomTerm(rng, a) + ")"
	case 6:
		return "(" + randomTerm(rng, a) + " AND " + randomTerm(rng, a) + ")"
	case 7:
		return col + pick(" IS NULL", " IS NOT NULL")
	case 8:
		return col + pick(" IS DISTINCT FROM ", " IS NOT DISTINCT FROM ") + constant()
	}
	return col + " " + op + " " + constant()
}

func randomWhere(rng *rand.Rand, a string) string {
	terms := []string{randomTerm(rng, a)}
	for rng.IntN(2) == 0 {
		terms = append(terms, randomTerm(rng, a))
	}
	return " WHERE " + strings.Join(terms, " AND ")
}

var pruneRounds = flag.Int("prune-rounds", 3, "random tables that TestPruneChangesNoAnswer asks 50 questions each")

// TestPruneChangesNoAnswer compares answers with and without bounds over random
// rows and questions.
func TestPruneChangesNoAnswer(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	sums := func(a string) string {
		return fmt.Sprintf("count(*), sum(%[1]s_offset), min(%[1]s_time), max(%[1]sn), max(%[1]ss), count(%[1]sd), count(%[1]sold)", a)
	}
	left, wrong := 0, 0
	for range *pruneRounds {
		bounded, blind := spread(t, rng)
		pruning, plain := open(t, bounded, bounded.dir), open(t, blind, blind.dir)
		for range 50 {
			var sql string
			switch rng.IntN(12) {
			case 0:
				sql = "SELECT " + sums("x.") + " FROM events.t AS x" + randomWhere(rng, "x")
			case 1:
				sql = "SELECT " + sums("a.") + " FROM t a JOIN t b ON a._offset = b._offset + 1" + randomWhere(rng, "a") + strings.Replace(randomWhere(rng, "b"), " WHERE ", " AND ", 1)
			case 2:
				sql = "SELECT " + sums("a.") + ", count(b._offset) FROM t a " + []string{"LEFT", "RIGHT", "FULL", "ASOF LEFT"}[rng.IntN(3)] + " JOIN t b ON a._offset = b._offset + 3" + randomWhere(rng, []string{"a", "b"}[rng.IntN(2)])
			case 3:
				sql = "SELECT (SELECT count(*) FROM t" + randomWhere(rng, "") + "), (SELECT max(_offset) FROM t" + randomWhere(rng, "") + ")"
			case 4:
				sql = "WITH x AS (FROM t" + randomWhere(rng, "t") + ") SELECT " + sums("x.") + " FROM x" + randomWhere(rng, "x")
			case 5:
				sql = "SELECT count(*) FROM t a WHERE EXISTS (FROM t b" + randomWhere(rng, "b") + " AND b.n = a.n) AND " + randomTerm(rng, "a")
			case 6:
				sql = "SELECT count(*), sum(q) FROM (SELECT _offset AS q FROM t" + randomWhere(rng, "") + " UNION ALL SELECT n FROM t" + randomWhere(rng, "") + ")"
			case 7:
				sql = "SELECT count(*) FROM t a ASOF JOIN t b ON a.n >= b._offset" + randomWhere(rng, "b")
			case 8:
				sql = "SELECT n + 1 AS n, d AS s, count(*) FROM t" + randomWhere(rng, "") + " GROUP BY ALL ORDER BY ALL"
			default:
				sql = "SELECT " + sums("") + " FROM t" + randomWhere(rng, "")
			}
			want, werr := ask(plain, sql)
			got, gerr := ask(pruning, sql)
			left += blind.read() - bounded.read()
			// An error over a row may or may not be met.
			if werr == nil && (gerr != nil || got != want) {
				t.Errorf("seed %d: %s:\n got %s %v\nwant %s", seed, sql, got, gerr, want)
			}
			if werr != nil {
				wrong++
			}
		}
	}
	if left < 50**pruneRounds || wrong > 10**pruneRounds {
		t.Errorf("seed %d: %d files were left out, and %d questions are errors: little is proved", seed, left, wrong)
	}
	t.Logf("seed %d: %d files left out, %d questions with errors", seed, left, wrong)
}
