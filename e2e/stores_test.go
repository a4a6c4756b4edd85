package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestStoresUnderKills: one pipeline into Apache Kafka, Redis and Apache Cassandra,
// with SIGKILLs and connections that Redis ends. Each has every row once, but for
// those that it refuses, and they are rejections.
func TestStoresUnderKills(t *testing.T) {
	brokers, _ := engine(t, "kafka")
	redisAt, _ := engine(t, "redis")
	cassandraAt, _ := engine(t, "cassandra")
	lines, err := wikipediaLines()
	if err != nil {
		t.Fatal(err)
	}
	lines = lines[:short(8_000, len(lines))]

	host, port, _ := strings.Cut(redisAt, ":")
	inRedis := func(args ...string) []string {
		t.Helper()
		out, err := exec.Command("redis-cli", append([]string{"-h", host, "-p", port, "-n", "1", "--raw"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %s: %v: %s", args, err, out)
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	cluster := gocql.NewCluster(cassandraAt)
	cluster.Timeout, cluster.ConnectTimeout = 20*time.Second, 20*time.Second
	cql, err := cluster.CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	defer cql.Close()
	if err := cql.Query("CREATE KEYSPACE IF NOT EXISTS naru_e2e WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").Exec(); err != nil {
		t.Fatal(err)
	}

	dir := project(t, "log:\n  segment: 4MiB\npipelines:\n  commit_interval: 200ms\n  backoff_max: 1s\n")
	if err := os.MkdirAll(filepath.Join(dir, "pipelines"), 0o755); err != nil {
		t.Fatal(err)
	}
	definition := `
from: {types: [wikipedia_edit]}
steps:
  - sql: SELECT _id, _time, n, channel, page, CAST(added AS BIGINT) AS added FROM input WHERE NOT isRobot AND added > 0
to:
  - kafka: {brokers: ["` + brokers + `"], topic: e2e.edits, key: channel, positions_topic: e2e.positions, create: {partitions: 3, replication: 1}}
    every: 300ms
  - redis: {address: "` + redisAt + `", db: 1, key: edits}
    every: 200ms
  - redis: {address: "` + redisAt + `", db: 1, mode: hash, key: "edit:{n}"}
    name: hashes
    every: 200ms
  - cassandra: {hosts: ["` + cassandraAt + `"], keyspace: naru_e2e, table: edits, create: true}
    every: 300ms
  - cassandra: {hosts: ["` + cassandraAt + `"], keyspace: naru_e2e, table: channels, create: true, partition: [channel]}
    name: channels
    every: 300ms
`
	if err := os.WriteFile(filepath.Join(dir, "pipelines", "edits.yaml"), []byte(definition), 0o644); err != nil {
		t.Fatal(err)
	}

	var want, refused, bodies []string
	last := map[string]int64{} // of each channel
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
		fmt.Fprintf(&b, `{"n":%d,"k":"edit-%d",%s`+"\n", n, n, line[1:])
		if (n+1)%200 == 0 || n == len(lines)-1 {
			bodies = append(bodies, b.String())
			b.Reset()
		}
		if e.IsRobot || e.Added <= 0 {
			continue
		}
		want = append(want, fmt.Sprint("edit-", n))
		last[e.Channel] = int64(n)
		if n%97 == 0 { // somebody else has that key
			refused = append(refused, fmt.Sprint("edit:", n))
			inRedis("SET", fmt.Sprint("edit:", n), "taken")
		}
	}
	slices.Sort(want)
	s := serve(t, dir)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	kills := 0
	for _, body := range bodies {
		switch rng.IntN(5) {
		case 0:
			if kills++; kills <= 8 {
				s.kill()
				s = serve(t, dir)
			}
		case 1:
			inRedis("CLIENT", "KILL", "TYPE", "normal")
		}
		s.post("?type=wikipedia_edit&id_field=k&source=/wiki", "application/x-ndjson", body)
	}
	t.Logf("%d events, %d kills, seed %d", len(lines), min(kills, 8), seed)

	for _, target := range []struct {
		name string
		ids  func() []string
	}{
		{"Kafka", func() []string { return kafkaIDs(t, brokers, "e2e.edits") }},
		{"Redis", func() (ids []string) {
			out := inRedis("XRANGE", "edits", "-", "+")
			for i, text := range out[:len(out)-1] {
				if text == "_id" {
					ids = append(ids, out[i+1])
				}
			}
			return ids
		}},
		{"Cassandra", func() (ids []string) {
			iter := cql.Query(`SELECT "_id" FROM naru_e2e.edits`).Iter()
			var id string
			for iter.Scan(&id) {
				ids = append(ids, id)
			}
			_ = iter.Close() // the table may not be there yet
			return ids
		}},
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
		iter := cql.Query(`SELECT channel, n FROM naru_e2e.channels`).Iter()
		got := map[string]int64{}
		var channel string
		var n int64
		for iter.Scan(&channel, &n) {
			got[channel] = n
		}
		_ = iter.Close()
		wrong := 0
		for channel, n := range last {
			if got[channel] != n {
				wrong++
			}
		}
		return wrong == 0 && len(got) == len(last), fmt.Sprintf("%d channels, %d of %d with another edit", len(got), wrong, len(last))
	})
	eventually(t, "the hashes are there", func() (bool, string) {
		n := len(inRedis("--scan", "--pattern", "edit:*"))
		return n == len(want), fmt.Sprintf("%d of %d", n, len(want))
	})
	s.waitCell("select count(*) from rejected where reason = 'sink' and path = 'hashes'", fmt.Sprint(len(refused)))
	s.waitCell("select count(distinct event_id) from rejected where reason = 'sink' and path = 'hashes'", fmt.Sprint(len(refused)))
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, "", "verify", dir, "--deep")
}

// kafkaIDs are the ids of the committed records of a topic: those that have come
// when nothing more comes for two seconds.
func kafkaIDs(t *testing.T, brokers, topic string) (ids []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for quiet := false; !quiet; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		fetches := cl.PollFetches(ctx)
		cancel()
		quiet = fetches.NumRecords() == 0
		for r := range fetches.RecordsAll() {
			var row struct {
				ID string `json:"_id"`
			}
			if err := json.Unmarshal(r.Value, &row); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, row.ID)
		}
	}
	return ids
}
