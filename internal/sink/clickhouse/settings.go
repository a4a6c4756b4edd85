// Package clickhouse is the sink that inserts rows into a table of ClickHouse over
// its HTTP interface. ClickHouse has no transactions: what is inserted next is put
// down first, and inserted again under the same name when the outcome is unknown,
// which the table recognizes as long as it remembers its last inserts.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
)

// Kind is the kind of sink `clickhouse`.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "clickhouse",
		Settings:  func() sink.Settings { return defaults() },
		Tabular:   func(sink.Settings) bool { return true },
		Guarantee: "exactly once as long as the table remembers its last inserts (a deduplication window), else at least once; every row carries its key (_key)",
	}
}

// Settings of a sink.
type Settings struct {
	URL         string            `yaml:"url"`          // http://host:8123
	User        string            `yaml:"user"`         //
	PasswordEnv string            `yaml:"password_env"` // the variable that has the password
	Table       string            `yaml:"table"`        // database.table
	RowKey      string            `yaml:"row_key"`      // the column for the row's key; empty: none
	Create      bool              `yaml:"create"`       // tables and columns that are missing
	Engine      string            `yaml:"engine"`       // of a new table
	OrderBy     []string          `yaml:"order_by"`     // of a new table
	Timeout     quantity.Duration `yaml:"timeout"`
}

func defaults() *Settings {
	return &Settings{User: "default", RowKey: "_key", Create: true, Engine: "MergeTree", Timeout: quantity.Duration(time.Minute)}
}

// positionsTable is beside the table: what was put down to be inserted, and what was
// inserted.
const positionsTable = "naru_positions"

// goodEngine is an engine of the MergeTree family with plain arguments.
var goodEngine = regexp.MustCompile(`^[A-Za-z]*MergeTree(\([\w, '/{}.-]*\))?$`)

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if s.URL == "" {
		return errors.New("url: is missing, as in http://127.0.0.1:8123")
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("url: must be http://host:8123 or https://host:8443") // without it: it may hold a password
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return errors.New("url: has a password in it: name the environment variable that holds it by password_env")
	}
	switch {
	case u.User != nil:
		return errors.New("url: has a user in it: set user")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("url: takes no parameters")
	case s.User == "":
		return errors.New("user: is missing, as in default")
	case s.Table == "":
		return errors.New("table: is missing: the table to write, as in orders or sales.orders")
	case strings.Count(s.Table, ".") > 1 || slices.Contains(strings.Split(s.Table, "."), ""):
		return fmt.Errorf("table: %q is neither table nor database.table", s.Table)
	case !goodEngine.MatchString(s.Engine):
		return fmt.Errorf("engine: %q is none of the MergeTree family, as in ReplacingMergeTree; for anything else create the table yourself", s.Engine)
	case slices.Contains(s.OrderBy, ""):
		return errors.New("order_by: has an empty name")
	case s.RowKey != "" && event.InEnvelope(s.RowKey):
		return fmt.Errorf("row_key: %s is a column of the event's own", s.RowKey)
	case s.Timeout.Std() <= 0:
		return errors.New("timeout: must be more than 0s")
	}
	return nil
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	var password string
	if s.PasswordEnv != "" {
		if password = env.Getenv(s.PasswordEnv); password == "" {
			return nil, fault.WithHint(fmt.Errorf("open sink %s: the variable %s is not set", env.Name, s.PasswordEnv),
				"start naru serve with %s in its environment", s.PasswordEnv)
		}
	}
	out := newSink(s, env, newClient(s, password))
	if err := out.load(ctx); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}
