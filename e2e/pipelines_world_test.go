package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	mysql "github.com/go-mysql-org/go-mysql/client"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// outside is a sink of the pipeline in a real server, and how its ids are read.
type outside struct {
	name, yaml string
	ids        func() ([]string, error)
}

// foreigners are the servers that test-world/engines/with has started.
func foreigners(t *testing.T) (out []outside) {
	// A table and a topic of this run: a server may have been used before.
	own := fmt.Sprintf("edits_%d", time.Now().UnixNano())
	if at := os.Getenv("NARU_TEST_POSTGRES"); at != "" {
		out = append(out, outside{"postgres", fmt.Sprintf("  - postgres: {url: %q, password_env: NARU_TEST_POSTGRES_PASSWORD, table: %s}\n", at, own), func() ([]string, error) {
			u, err := url.Parse(at)
			if err != nil {
				return nil, err
			}
			u.User = url.UserPassword(u.User.Username(), os.Getenv("NARU_TEST_POSTGRES_PASSWORD"))
			ctx := context.Background()
			c, err := pgx.Connect(ctx, u.String())
			if err != nil {
				return nil, err
			}
			defer c.Close(ctx)
			rows, err := c.Query(ctx, `SELECT "_id" FROM `+own)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowTo[string])
		}})
	}
	if at := os.Getenv("NARU_TEST_MARIADB"); at != "" {
		out = append(out, outside{"mysql", fmt.Sprintf("  - mysql: {url: %q, password_env: NARU_TEST_MARIADB_PASSWORD, table: %s}\n", at, own), func() ([]string, error) {
			u, err := url.Parse(at)
			if err != nil {
				return nil, err
			}
			c, err := mysql.Connect(u.Host, u.User.Username(), os.Getenv("NARU_TEST_MARIADB_PASSWORD"), strings.Trim(u.Path, "/"))
			if err != nil {
				return nil, err
			}
			defer c.Close()
			r, err := c.Execute("SELECT `_id` FROM " + own)
			if err != nil {
				return nil, err
			}
			var ids []string
			for i := range r.RowNumber() {
				id, err := r.GetString(i, 0)
				if err != nil {
					return nil, err
				}
				ids = append(ids, id)
			}
			return ids, nil
		}})
	}
	if at := os.Getenv("NARU_TEST_KAFKA"); at != "" {
		out = append(out, outside{"kafka", fmt.Sprintf("  - kafka: {brokers: [%q], topic: %s, create: {partitions: 1, replication: 1}}\n", at, own), func() ([]string, error) {
			c, err := kgo.NewClient(kgo.SeedBrokers(at), kgo.ConsumeTopics(own), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
			if err != nil {
				return nil, err
			}
			defer c.Close()
			var ids []string
			for {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				got := c.PollFetches(ctx)
				cancel()
				if got.NumRecords() == 0 {
					return ids, nil // the end
				}
				for _, r := range got.Records() {
					var row struct {
						ID string `json:"_id"`
					}
					if err := json.Unmarshal(r.Value, &row); err != nil {
						return nil, err
					}
					ids = append(ids, row.ID)
				}
			}
		}})
	}
	return out
}

// hasOnce tells whether a list has each wanted id once, and nothing else.
func hasOnce(ids []string, want map[string]bool) (bool, string) {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] || !want[id] {
			return false, fmt.Sprintf("%s is there twice, or should not be", id)
		}
		seen[id] = true
	}
	return len(seen) == len(want), fmt.Sprintf("%d of %d rows", len(seen), len(want))
}
