// Package kafka is the sink that produces rows to topics of Apache Kafka, exactly
// once: each Commit is one transaction, which has the rows and the positions that
// they stand for.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/row"
	"naru/internal/sink"
	"naru/internal/sink/secure"
)

// Kind is `kafka` in `to:` of a pipeline.
func Kind() sink.Kind {
	return sink.Kind{
		Name:      "kafka",
		Settings:  func() sink.Settings { return defaults() },
		Guarantee: "exactly once for readers of committed records: rows and positions are one transaction; with transactional: false at least once, the key is the header naru_key",
	}
}

// Settings of one sink. Sizes are bytes.
type Settings struct {
	Brokers []string `yaml:"brokers"`
	// Topic may be made of the type: "naru.{_type}".
	Topic string `yaml:"topic"`
	// Key is the column that becomes the record's key; empty: the event's own key.
	Key         string `yaml:"key"`
	Format      string `yaml:"format"`
	Compression string `yaml:"compression"`

	Transactional bool `yaml:"transactional"`
	// TransactionalID is what fences writers off and what positions are kept under;
	// empty: "naru/" and the reader's name. Two folders that have a pipeline of one
	// name and write to one cluster need it.
	TransactionalID    string            `yaml:"transactional_id"`
	TransactionTimeout quantity.Duration `yaml:"transaction_timeout"`
	PositionsTopic     string            `yaml:"positions_topic"`

	Create Create `yaml:"create"`
	// MaxTopics bounds how many topics a template may name.
	MaxTopics int `yaml:"max_topics"`
	// Buffer bounds what is produced and not yet acknowledged.
	Buffer quantity.Bytes `yaml:"buffer"`
	// Batch bounds a record batch before compression, and so a record; a topic with
	// a lower max.message.bytes has that.
	Batch quantity.Bytes `yaml:"batch"`
	// Timeout is how long an answer may take, with the client's own attempts.
	Timeout quantity.Duration `yaml:"timeout"`

	SASL SASL       `yaml:"sasl"`
	TLS  secure.TLS `yaml:"tls"`

	topic *row.Template
	dial  func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

// Create says how topics are made that do not exist; Partitions 0: they are not.
type Create struct {
	Partitions  int32 `yaml:"partitions"`
	Replication int32 `yaml:"replication"` // 0: as the cluster has it
}

// SASL is how the sink says who it is.
type SASL struct {
	Mechanism   string `yaml:"mechanism"` // plain, scram-sha-256, scram-sha-512; empty: none
	User        string `yaml:"user"`
	PasswordEnv string `yaml:"password_env"`
}

func defaults() *Settings {
	return &Settings{
		Format: "json", Compression: "snappy", Transactional: true,
		TransactionTimeout: quantity.Duration(time.Minute), PositionsTopic: "naru_positions",
		MaxTopics: 100, Buffer: 16 << 20, Batch: 1_000_000, Timeout: quantity.Duration(30 * time.Second),
	}
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// Validate implements sink.Settings.
func (s *Settings) Validate() error {
	if len(s.Brokers) == 0 {
		return errors.New(`brokers: is missing: write brokers: ["127.0.0.1:9092"]`)
	}
	for _, b := range s.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			return fmt.Errorf("brokers: %q is no host:port", b)
		}
	}
	if s.Topic == "" {
		return errors.New(`topic: is missing: write a name, or "naru.{_type}" for one topic a type`)
	}
	t, err := row.ParseTemplate(s.Topic)
	if err != nil {
		return fmt.Errorf("topic: %w", err)
	}
	if names := t.Columns(); len(names) > 1 || len(names) == 1 && names[0] != "_type" {
		return errors.New("topic: only {_type} may be in it")
	}
	if len(t.Columns()) == 0 && !validTopic(s.Topic) {
		return fmt.Errorf("topic: %q is no name of a topic: letters, digits, '.', '_' and '-', at most 249", s.Topic)
	}
	s.topic = t
	if s.Format != "json" && s.Format != "event" {
		return fmt.Errorf("format: must be json or event, not %q", s.Format)
	}
	if _, ok := codecs[s.Compression]; !ok {
		return fmt.Errorf("compression: must be none, gzip, snappy, lz4 or zstd, not %q", s.Compression)
	}
	if !validTopic(s.PositionsTopic) {
		return fmt.Errorf("positions_topic: %q is no name of a topic", s.PositionsTopic)
	}
	if s.Topic == s.PositionsTopic {
		return errors.New("topic: is the one of positions; rows need another one")
	}
	// Brokers allow at most 15 minutes (transaction.max.timeout.ms).
	if d := s.TransactionTimeout.Std(); d < time.Second || d > 15*time.Minute {
		return errors.New("transaction_timeout: must be between 1s and 15m")
	}
	if d := s.Timeout.Std(); d < time.Second || d > 10*time.Minute {
		return errors.New("timeout: must be between 1s and 10m")
	}
	if s.Batch < 1<<10 || s.Batch > 512<<20 {
		return errors.New("batch: must be between 1KiB and 512MiB")
	}
	if s.Buffer < 2*s.Batch {
		return fmt.Errorf("buffer: must be at least twice batch, which is %s", s.Batch)
	}
	if s.MaxTopics < 1 {
		return errors.New("max_topics: must be at least 1")
	}
	if s.Create.Partitions < 0 || s.Create.Replication < 0 || s.Create.Replication > 1000 {
		return errors.New("create: partitions and replication are at least 1, replication is at most 1000")
	}
	if s.Create.Replication > 0 && s.Create.Partitions == 0 {
		return errors.New("create.partitions: is missing")
	}
	return s.validateAccess()
}

// CommitsEvery implements sink.Seldom: a transaction is open from the first row to the
// commit, and the broker ends one that is older than its timeout.
func (s *Settings) CommitsEvery(interval time.Duration) error {
	if s.Transactional && interval >= s.TransactionTimeout.Std() {
		return fmt.Errorf("transaction_timeout: the sink commits every %s, and the broker would abort its transactions after %s: raise transaction_timeout (15m at most), or lower every", quantity.Duration(interval), s.TransactionTimeout)
	}
	return nil
}

func (s *Settings) validateAccess() error {
	switch s.SASL.Mechanism {
	case "":
		if s.SASL.User != "" || s.SASL.PasswordEnv != "" {
			return errors.New("sasl.mechanism: is missing: plain, scram-sha-256 or scram-sha-512")
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if s.SASL.User == "" || s.SASL.PasswordEnv == "" {
			return errors.New("sasl: wants user, and password_env, which names the environment variable with the password")
		}
	default:
		return fmt.Errorf("sasl.mechanism: must be plain, scram-sha-256 or scram-sha-512, not %q", s.SASL.Mechanism)
	}
	return s.TLS.Validate()
}

func validTopic(name string) bool {
	return topicName.MatchString(name) && name != "." && name != ".."
}

// id names the writer for good.
func (s *Settings) id(env sink.Env) string {
	if s.TransactionalID != "" {
		return s.TransactionalID
	}
	return "naru/" + env.Reader
}

// Open implements sink.Settings.
func (s *Settings) Open(ctx context.Context, env sink.Env) (sink.Sink, error) {
	if s.topic == nil {
		if err := s.Validate(); err != nil {
			return nil, err
		}
	}
	access, err := s.access(env)
	if err != nil {
		return nil, err
	}
	// A topic that was made a moment ago is where the client may lose count (see
	// errNotCommitted); with a new one the topic is known.
	for attempt := 1; ; attempt++ {
		out, err := open(ctx, s, env, access)
		if err == nil {
			return out, nil
		}
		if !errors.Is(err, errNotCommitted) || attempt == 5 {
			return nil, err
		}
	}
}

// access is how every client of the sink gets to the cluster.
func (s *Settings) access(env sink.Env) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(s.Brokers...), kgo.ClientID("naru"), kgo.SoftwareNameAndVersion("naru", "1"), kgo.DisableClientMetrics(),
		kgo.DialTimeout(min(10*time.Second, s.Timeout.Std())), kgo.RetryTimeout(s.Timeout.Std()),
		kgo.MetadataMinAge(250 * time.Millisecond), // a topic that was made a moment ago is looked for again soon
	}
	if s.dial != nil {
		opts = append(opts, kgo.Dialer(s.dial))
	}
	if s.SASL.Mechanism != "" {
		password := env.Getenv(s.SASL.PasswordEnv)
		if password == "" {
			return nil, fault.WithHint(fmt.Errorf("log in to kafka as %s: the environment variable %s is empty", s.SASL.User, s.SASL.PasswordEnv),
				"start naru with the password in %s", s.SASL.PasswordEnv)
		}
		switch s.SASL.Mechanism {
		case "plain":
			opts = append(opts, kgo.SASL(plain.Auth{User: s.SASL.User, Pass: password}.AsMechanism()))
		case "scram-sha-256":
			opts = append(opts, kgo.SASL(scram.Auth{User: s.SASL.User, Pass: password}.AsSha256Mechanism()))
		case "scram-sha-512":
			opts = append(opts, kgo.SASL(scram.Auth{User: s.SASL.User, Pass: password}.AsSha512Mechanism()))
		}
	}
	cfg, err := s.TLS.Config(env)
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		opts = append(opts, kgo.DialTLSConfig(cfg))
	}
	return opts, nil
}
