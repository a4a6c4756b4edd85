package cassandra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"naru/internal/fault"
	"naru/internal/sink"
)

// database is what the sink needs of Cassandra.
type database interface {
	// Columns are those of a table of the keyspace as the cluster has it now, in order
	// of their names; none: there is no such table.
	Columns(ctx context.Context, table string) ([]column, error)
	// Define changes the schema.
	Define(ctx context.Context, statement string) error
	// Clock returns the base that a key of the clocks has, which is the one given if
	// it had none.
	Clock(ctx context.Context, key string, base int64) (int64, error)
	// Insert runs a statement with each of the values; several are one unlogged batch
	// within one partition. errInvalid: the cluster refuses a value, or the statement.
	Insert(ctx context.Context, statement string, values [][]any) error
	Close()
}

// column is one of a table.
type column struct {
	name, kind string // kind: partition_key, clustering, regular, static
	cql        string // its type: text, bigint, frozen<list<text>>
}

// errInvalid marks what will not be taken however often it is sent.
type errInvalid struct{ text string }

func (e *errInvalid) Error() string { return e.text }

var consistencies = map[string]gocql.Consistency{
	"one": gocql.One, "two": gocql.Two, "three": gocql.Three, "quorum": gocql.Quorum, "all": gocql.All,
	"local_quorum": gocql.LocalQuorum, "each_quorum": gocql.EachQuorum, "local_one": gocql.LocalOne,
}

// session is a database over the driver.
type session struct {
	cfg *Settings
	cql *gocql.Session
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

func connect(cfg *Settings, env sink.Env, password string) (*session, error) {
	c := gocql.NewCluster(cfg.Hosts...)
	c.Consistency = consistencies[cfg.Consistency]
	c.Timeout, c.WriteTimeout, c.ConnectTimeout = cfg.Timeout.Std(), cfg.Timeout.Std(), cfg.Timeout.Std()
	c.DefaultTimestamp = false // every row has its own
	c.Logger = gocql.NewLogger(gocql.LogLevelNone)
	c.RetryPolicy = &gocql.ExponentialBackoffRetryPolicy{NumRetries: 3, Min: 100 * time.Millisecond, Max: 2 * time.Second}
	policy := gocql.RoundRobinHostPolicy()
	if cfg.Datacenter != "" {
		policy = gocql.DCAwareRoundRobinPolicy(cfg.Datacenter)
	}
	c.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(policy)
	if cfg.User != "" {
		c.Authenticator = gocql.PasswordAuthenticator{Username: cfg.User, Password: password}
	}
	if cfg.dial != nil {
		c.Dialer = dialer(cfg.dial)
	}
	encrypted, err := cfg.TLS.Config(env)
	if err != nil {
		return nil, err
	}
	if encrypted != nil {
		c.SslOpts = &gocql.SslOptions{Config: encrypted, EnableHostVerification: true}
	}
	s, err := c.CreateSession()
	if err != nil {
		return nil, told("connect to cassandra", err)
	}
	return &session{cfg: cfg, cql: s}, nil
}

func (s *session) Close() { s.cql.Close() }

func (s *session) Columns(ctx context.Context, table string) (out []column, err error) {
	iter := s.cql.Query(`SELECT column_name, kind, type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?`,
		s.cfg.Keyspace, table).IterContext(ctx)
	var c column
	for iter.Scan(&c.name, &c.kind, &c.cql) {
		out = append(out, c)
	}
	if err := iter.Close(); err != nil {
		return nil, told("read columns of "+table, err)
	}
	return out, nil
}

func (s *session) Define(ctx context.Context, statement string) error {
	if err := s.cql.Query(statement).ExecContext(ctx); err != nil {
		return told("change schema of "+s.cfg.Keyspace, err)
	}
	if err := s.cql.AwaitSchemaAgreement(ctx); err != nil {
		return told("wait for schema of "+s.cfg.Keyspace, err)
	}
	return nil
}

func (s *session) Clock(ctx context.Context, key string, base int64) (int64, error) {
	var have string
	var value int64
	applied, err := s.cql.Query(fmt.Sprintf(`INSERT INTO %s.%s (writer, base) VALUES (?, ?) IF NOT EXISTS`, quote(s.cfg.Keyspace), clocks), key, base).
		ScanCASContext(ctx, &have, &value)
	if err != nil {
		return 0, told("read the clock "+key, err)
	}
	if applied {
		return base, nil
	}
	return value, nil
}

func (s *session) Insert(ctx context.Context, statement string, values [][]any) error {
	var err error
	if len(values) == 1 {
		err = s.cql.Query(statement, values[0]...).Idempotent(true).ExecContext(ctx)
	} else {
		b := s.cql.Batch(gocql.UnloggedBatch)
		for _, v := range values {
			b.Entries = append(b.Entries, gocql.BatchEntry{Stmt: statement, Args: v, Idempotent: true})
		}
		err = b.ExecContext(ctx)
	}
	if err != nil {
		return told("write to "+s.cfg.Table, err)
	}
	return nil
}

// told makes an error of the driver one for the operator.
func told(doing string, err error) error {
	var e gocql.RequestError
	if !errors.As(err, &e) {
		text := err.Error()
		err = fmt.Errorf("%s: %w", doing, err)
		if strings.Contains(text, "Bad credentials") || strings.Contains(text, "authentication") {
			return fault.WithHint(err, "check user, and the password in the variable that password_env names")
		}
		return fault.Transient(err)
	}
	wrapped := fmt.Errorf("%s: %w", doing, err)
	switch e.Code() {
	case gocql.ErrCodeInvalid, gocql.ErrCodeSyntax:
		return &errInvalid{text: e.Message()}
	case gocql.ErrCodeCredentials:
		return fault.WithHint(wrapped, "check user, and the password in the variable that password_env names")
	case gocql.ErrCodeUnauthorized:
		return fault.WithHint(wrapped, "the user needs MODIFY and SELECT on the keyspace, with create: true CREATE and ALTER too")
	case gocql.ErrCodeConfig, gocql.ErrCodeAlreadyExists:
		return fault.WithHint(wrapped, "look at what the keyspace has")
	}
	return fault.Transient(wrapped)
}
