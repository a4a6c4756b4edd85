package kafka

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/sink/secure"
)

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"brokers: is missing":                         func(s *Settings) { s.Brokers = nil },
		`brokers: "kafka" is no host:port`:            func(s *Settings) { s.Brokers = []string{"kafka"} },
		"topic: is missing":                           func(s *Settings) { s.Topic = "" },
		"topic: only {_type} may be in it":            func(s *Settings) { s.Topic = "{page}" },
		`topic: "a b" is no name`:                     func(s *Settings) { s.Topic = "a b" },
		"topic: is the one of positions":              func(s *Settings) { s.Topic = s.PositionsTopic },
		"format: must be":                             func(s *Settings) { s.Format = "avro" },
		"compression: must be":                        func(s *Settings) { s.Compression = "br" },
		"transaction_timeout: must be":                func(s *Settings) { s.TransactionTimeout = quantity.Duration(time.Hour) },
		"buffer: must be at least twice batch":        func(s *Settings) { s.Buffer = 1 << 20 },
		"create.partitions: is missing":               func(s *Settings) { s.Create = Create{Replication: 3} },
		"sasl.mechanism: is missing":                  func(s *Settings) { s.SASL.User = "u" },
		"sasl: wants user":                            func(s *Settings) { s.SASL.Mechanism = "plain" },
		"tls.enabled: must be true":                   func(s *Settings) { s.TLS.CA = "ca.pem" },
		"tls: cert and key go together":               func(s *Settings) { s.TLS = secure.TLS{Enabled: true, Cert: "c.pem"} },
		`positions_topic: "" is no name`:              func(s *Settings) { s.PositionsTopic = "" },
		"sasl.mechanism: must be plain, scram-sha-25": func(s *Settings) { s.SASL.Mechanism = "gssapi" },
	} {
		s := settings(t, []string{"127.0.0.1:9092"})
		change(s)
		require.ErrorContains(t, s.Validate(), want)
	}
}

// A transaction that the broker ends before its commit would never get through.
func TestSeldomCommits(t *testing.T) {
	s := settings(t, nil)
	s.Transactional, s.TransactionTimeout = true, quantity.Duration(time.Minute)
	require.NoError(t, s.CommitsEvery(59*time.Second))
	require.EqualError(t, s.CommitsEvery(time.Minute), "transaction_timeout: the sink commits every 1m0s, and the broker would abort its transactions after 1m0s: raise transaction_timeout (15m at most), or lower every")
	s.Transactional = false
	require.NoError(t, s.CommitsEvery(time.Hour))
}

func TestSASL(t *testing.T) {
	c := fake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "naru", "secret"))
	s := settings(t, c.ListenAddrs())
	s.SASL = SASL{Mechanism: "scram-sha-256", User: "naru", PasswordEnv: "KAFKA_PASSWORD"}
	e := env()
	require.NoError(t, s.Validate())
	_, err := s.Open(t.Context(), e)
	require.ErrorContains(t, err, "the environment variable KAFKA_PASSWORD is empty")
	e.Getenv = func(name string) string { return map[string]string{"KAFKA_PASSWORD": "wrong-one"}[name] }
	_, err = s.Open(t.Context(), e)
	require.Error(t, err)
	require.Contains(t, fault.HintOf(err), "sasl.password_env", err)
	require.NotContains(t, err.Error(), "wrong-one")
	e.Getenv = func(name string) string { return map[string]string{"KAFKA_PASSWORD": "secret"}[name] }
	out, err := s.Open(t.Context(), e)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

func TestTopicThatDoesNotExist(t *testing.T) {
	s := settings(t, brokers(t))
	s.Create = Create{}
	require.NoError(t, s.Validate())
	_, err := s.Open(t.Context(), env())
	require.ErrorContains(t, err, "does not exist")
	require.Contains(t, fault.HintOf(err), "create: {partitions")
}

// Positions in a topic that forgets them would be worse than none.
func TestPositionsTopicThatForgets(t *testing.T) {
	s := settings(t, brokers(t))
	makeTopic(t, s, s.PositionsTopic, map[string]string{"cleanup.policy": "delete"})
	_, err := s.Open(t.Context(), env())
	require.ErrorContains(t, err, "cleanup.policy is delete")
}
