// Package cassandra is the sink that writes rows into a table of Apache Cassandra. A
// row is written under its primary key, with a timestamp that stands for its place in
// the log: written again, it is the same, and an older one never wins.
package cassandra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/secure"
)

// Kind is `cassandra` in `to:` of a pipeline.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "cassandra",
		Settings:  func() sink.Settings { return defaults() },
		Tabular:   func(sink.Settings) bool { return true },
		Guarantee: "at least once; the key is the primary key (by default _key), and an older row never wins over a newer one",
	}
}

// keyColumn is the column that has the row's key (sink.AppendKey), if a table has it.
const keyColumn = "_key"

// Settings of one sink.
type Settings struct {
	Hosts      []string `yaml:"hosts"` // some of the cluster, host:port
	Datacenter string   `yaml:"datacenter"`
	Keyspace   string   `yaml:"keyspace"`
	Table      string   `yaml:"table"`
	// Create makes the table, and columns that it lacks.
	Create bool `yaml:"create"`
	// Partition and Cluster are the primary key of a table that is made; without them
	// it is _key alone.
	Partition []string `yaml:"partition"`
	Cluster   []string `yaml:"cluster"`
	// TTL is how long rows stay; 0: for ever.
	TTL quantity.Duration `yaml:"ttl"`
	// Generation is counted up by hand before a rewind, so that rows that are written
	// again win over those that are there.
	Generation  int               `yaml:"generation"`
	Consistency string            `yaml:"consistency"`
	Batch       int               `yaml:"batch"`    // rows that wait, at most
	InFlight    int               `yaml:"inflight"` // requests at a time
	Timeout     quantity.Duration `yaml:"timeout"`  // of one request
	User        string            `yaml:"user"`
	PasswordEnv string            `yaml:"password_env"`
	TLS         secure.TLS        `yaml:"tls"`

	dial func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

func defaults() *Settings {
	return &Settings{Consistency: "local_quorum", Batch: 1000, InFlight: 16, Timeout: quantity.Duration(10 * time.Second)}
}

// goodName: what Cassandra takes for keyspaces and tables.
var goodName = regexp.MustCompile(`^[a-zA-Z0-9_]{1,48}$`)

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if len(s.Hosts) == 0 {
		return errors.New(`hosts: is missing: write hosts: ["127.0.0.1:9042"]`)
	}
	for _, h := range s.Hosts {
		host, port, err := net.SplitHostPort(h)
		if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
			return fmt.Errorf("hosts: %q is no host:port", h)
		}
	}
	if !goodName.MatchString(s.Keyspace) {
		return fmt.Errorf("keyspace: %q is no name of a keyspace: letters, digits and _, at most 48", s.Keyspace)
	}
	if !goodName.MatchString(s.Table) {
		return fmt.Errorf("table: %q is no name of a table: letters, digits and _, at most 48", s.Table)
	}
	if s.Table == clocks {
		return fmt.Errorf("table: %s is where the sink keeps its own", clocks)
	}
	switch key := slices.Concat(s.Partition, s.Cluster); {
	case len(key) > 0 && !s.Create:
		return errors.New("partition: is for tables that are made: set create: true, or leave partition and cluster to the table")
	case len(s.Cluster) > 0 && len(s.Partition) == 0:
		return errors.New("partition: is missing: the columns that say where in the cluster a row is")
	case slices.Contains(key, ""):
		return errors.New("partition: a column has no name")
	case len(slices.Compact(slices.Sorted(slices.Values(key)))) != len(key):
		return errors.New("cluster: a column is in the key twice")
	}
	if s.TTL != 0 && (s.TTL.Std() < time.Second || s.TTL.Std() > 20*365*24*time.Hour) {
		return errors.New("ttl: must be between 1s and 20 years")
	}
	if s.Generation < 0 {
		return errors.New("generation: is a number from 0")
	}
	if _, ok := consistencies[s.Consistency]; !ok {
		return fmt.Errorf("consistency: must be one, two, three, quorum, local_quorum, each_quorum, local_one or all, not %q", s.Consistency)
	}
	if s.Batch < 1 || s.Batch > 100_000 {
		return errors.New("batch: must be between 1 and 100000")
	}
	if s.InFlight < 1 || s.InFlight > 1000 {
		return errors.New("inflight: must be between 1 and 1000")
	}
	if d := s.Timeout.Std(); d < 100*time.Millisecond || d > 10*time.Minute {
		return errors.New("timeout: must be between 100ms and 10m")
	}
	if (s.User == "") != (s.PasswordEnv == "") {
		return errors.New("user: goes together with password_env, the variable with the password")
	}
	return s.TLS.Validate()
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	password := ""
	if s.User != "" {
		if password = env.Getenv(s.PasswordEnv); password == "" {
			return nil, fault.WithHint(fmt.Errorf("log in to cassandra as %s: the environment variable %s is empty", s.User, s.PasswordEnv),
				"start naru with the password in %s", s.PasswordEnv)
		}
	}
	db, err := connect(s, env, password)
	if err != nil {
		return nil, err
	}
	return open(ctx, s, env, db)
}
