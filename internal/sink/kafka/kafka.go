package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// HeaderKey is the header with the row's key (sink.AppendKey).
const HeaderKey = "naru_key"

// quiet is how often positions are stored that have moved without any row.
const quiet = time.Minute

// Sink produces to one cluster. Rows are produced as they are written, in a
// transaction that the next Commit ends.
type Sink struct {
	cfg    *Settings
	env    sink.Env
	id     string // transactional
	client *kgo.Client
	topics *topics
	dec    recordbatch.Decoder

	base   event.Positions // stored in the cluster
	end    event.Positions // behind what was written
	stored time.Time       // when base was
	began  bool            // a transaction is open
	broken bool            // an error was returned: nothing can be committed any more

	rows    int64 // in the transaction
	judged  bool  // Prepare has told refusals that no commit covers yet
	bytes   int64
	waiting []sink.Refusal // of what was written since the last commit
	refused []sink.Refusal // not yet told to the pipeline
	arena   []byte

	ends ends

	failed struct {
		sync.Mutex
		err error // the first of the promises
	}
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Resumer  = (*Sink)(nil)
	_ sink.Pending  = (*Sink)(nil)
	_ sink.Refuser  = (*Sink)(nil)
	_ sink.Preparer = (*Sink)(nil)
)

func open(ctx context.Context, cfg *Settings, env sink.Env, access []kgo.Opt) (_ *Sink, err error) {
	s := &Sink{cfg: cfg, env: env, id: cfg.id(env), base: event.Positions{}, end: event.Positions{}}
	s.topics = newTopics(cfg)
	opts := append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codecs[cfg.Compression]),
		kgo.ProducerBatchMaxBytesFn(s.topics.batch),
		kgo.MaxBufferedBytes(int(cfg.Buffer)),
		kgo.RecordPartitioner(partitioner{Partitioner: kgo.StickyKeyPartitioner(nil), positions: cfg.PositionsTopic}),
		kgo.RecordDeliveryTimeout(cfg.Timeout.Std()),
	}, access...)
	if cfg.Transactional {
		opts = append(opts, kgo.WithLogger(&s.ends), kgo.TransactionalID(s.id), kgo.TransactionTimeout(cfg.TransactionTimeout.Std()))
	}
	if s.client, err = kgo.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("make kafka client: %w", err)
	}
	s.topics.client = s.client
	defer func() {
		if err != nil {
			s.client.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout.Std()+cfg.TransactionTimeout.Std())
	defer cancel()
	if err := s.client.Ping(ctx); err != nil {
		err = told("reach kafka", err)
		if fault.HintOf(err) == "" && errors.Is(err, io.EOF) {
			err = fault.WithHint(err, "a broker that hangs up at once wants TLS (tls.enabled), or another login (sasl.user, sasl.mechanism, sasl.password_env)")
		}
		return nil, err
	}
	if len(cfg.topic.Columns()) == 0 { // what is wrong with it is told at once, not at the first row
		if _, err := s.topics.get(ctx, cfg.Topic); err != nil {
			return nil, err
		}
	}
	if cfg.Transactional {
		if err := s.takeOver(ctx, access); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// partitioner puts positions into partition 0 and rows where Kafka's own clients do.
type partitioner struct {
	kgo.Partitioner
	positions string
}

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	if topic == p.positions {
		return kgo.ManualPartitioner().ForTopic(topic)
	}
	return p.Partitioner.ForTopic(topic)
}

// Write implements sink.Sink.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	if s.broken {
		return errBroken
	}
	if err := s.write(ctx, b); err != nil {
		s.broken = true
		return err
	}
	s.end.Advance(b.End())
	return nil
}

var errBroken = errors.New("write to kafka: the sink has failed before")

func (s *Sink) write(ctx context.Context, b *event.Batch) error {
	enc, err := newEncoder(s.cfg, b)
	if err != nil {
		return err
	}
	return s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		if s.base.Covers(at) || s.end.Covers(at) {
			return nil
		}
		name, err := s.topicOf(e)
		if err != nil {
			s.refuse(at, e, err.Error())
			return nil
		}
		t, err := s.topics.get(ctx, name)
		if errors.Is(err, errTooMany) {
			s.refuse(at, e, err.Error())
			return nil
		} else if err != nil {
			return err
		}
		r := enc.record(&s.arena, at, e)
		r.Topic = name
		if n := size(r); n > t.limit {
			s.refuse(at, e, fmt.Sprintf("the record takes %d bytes; topic %s takes at most %d in a batch (max.message.bytes, and batch of the sink)", n, name, t.limit))
			return nil
		}
		if err := s.begin(); err != nil {
			return err
		}
		n := int64(len(r.Key) + len(r.Value))
		// Produce would wait without end for a cluster that does not answer.
		if s.client.BufferedProduceBytes()+size(r) > int64(s.cfg.Buffer) {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		s.rows++
		s.bytes += n
		s.client.Produce(ctx, r, s.promise)
		return s.failure()
	})
}

func (s *Sink) refuse(at event.Position, e *event.Event, detail string) {
	s.waiting = append(s.waiting, sink.Refusal{At: at, Row: e.Row, Detail: detail})
}

// begin opens a transaction if none is.
func (s *Sink) begin() error {
	if !s.cfg.Transactional || s.began {
		return nil
	}
	if err := s.client.BeginTransaction(); err != nil {
		return told("begin kafka transaction", err)
	}
	s.began = true
	return nil
}

// promise keeps the first error: a record that is not in the log of its topic takes
// the transaction with it.
func (s *Sink) promise(r *kgo.Record, err error) {
	if err == nil {
		return
	}
	s.failed.Lock()
	defer s.failed.Unlock()
	if s.failed.err == nil {
		s.failed.err = told("produce to topic "+r.Topic, err)
	}
}

func (s *Sink) failure() error {
	s.failed.Lock()
	defer s.failed.Unlock()
	return s.failed.err
}

// flush waits until all that was produced has been acknowledged.
func (s *Sink) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	if err := s.client.Flush(ctx); err != nil {
		return errors.Join(fault.Transient(fmt.Errorf("flush kafka records: %w", err)), s.failure())
	}
	return s.failure()
}

// Prepare implements sink.Preparer.
func (s *Sink) Prepare(ctx context.Context) error {
	if s.broken {
		return errBroken
	}
	if err := s.flush(ctx); err != nil {
		s.broken = true
		return err
	}
	s.judged = s.judged || len(s.waiting) > 0
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return nil
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if s.broken {
		return nil, errBroken
	}
	if err := s.commit(ctx); err != nil {
		s.broken = true
		return nil, err
	}
	s.rows, s.bytes, s.judged = 0, 0, false
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return s.end.Clone(), nil
}

func (s *Sink) commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.cfg.Transactional {
		return s.flush(ctx)
	}
	next := s.base.Clone()
	moved := false
	for inc, parts := range s.end {
		for p, off := range parts {
			moved = next.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off}) || moved
		}
	}
	if !moved || s.rows == 0 && !s.judged && len(s.waiting) == 0 && time.Since(s.stored) < quiet {
		return nil // nothing to store, or nothing that would be missed
	}
	if err := s.begin(); err != nil {
		return err
	}
	s.client.Produce(ctx, s.positionsRecord(next), s.promise)
	if err := s.flush(ctx); err != nil {
		return err
	}
	// What a lost answer leaves open is decided when the sink is opened again: the
	// transaction is finished or aborted, and the stored positions say which.
	if err := s.endTransaction(ctx); err != nil {
		return err
	}
	s.base, s.stored = next, time.Now()
	return nil
}

func (s *Sink) endTransaction(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	s.ends.committed.Store(false)
	if err := s.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return told("commit kafka transaction", err)
	}
	s.began = false
	if !s.ends.committed.Load() {
		return errNotCommitted
	}
	return nil
}

// errNotCommitted: franz-go 1.22.2 sometimes takes the partitions of a transaction for
// not written to although their records were acknowledged; it then aborts where it was
// asked to commit, or asks nothing of the broker, and returns no error.
var errNotCommitted = fault.Transient(errors.New("commit kafka transaction: the client did not commit it"))

// ends listens to what the client says of the end of transactions, since what it
// returns does not tell a commit from an abort.
type ends struct{ committed atomic.Bool }

// Level implements kgo.Logger.
func (*ends) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log implements kgo.Logger.
func (e *ends) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	if msg != "end transaction response successfully received" {
		return
	}
	for pair := range slices.Chunk(keyvals, 2) {
		if pair[0] == "commit" && len(pair) == 2 {
			e.committed.Store(fmt.Sprint(pair[1]) == "true")
		}
	}
}

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	r := s.refused
	s.refused = nil
	return r
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return s.bytes }

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if len(s.base) == 0 || stream != s.env.Stream {
		return nil, nil
	}
	return s.base.Clone(), nil
}

// goodbye is what a cluster that does not answer may cost at Close: the next Open
// aborts the transaction too.
const goodbye = time.Second

// Close implements sink.Sink. An open transaction is aborted, so that nobody who
// reads committed records waits for it.
func (s *Sink) Close() error {
	if s.began {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		if s.client.AbortBufferedRecords(ctx) == nil {
			if err := s.client.EndTransaction(ctx, kgo.TryAbort); err != nil && s.env.Logger != nil {
				s.env.Logger.Debug("transaction left to the next start", "error", err)
			}
		}
	}
	s.client.Close()
	return nil
}

// told makes an error of the client one for the operator.
func told(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	switch {
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.InvalidTxnState), errors.Is(err, kerr.InvalidProducerIDMapping):
		return fault.WithHint(err, "another writer has the same transactional id (two naru folders with a pipeline of this name need transactional_id), or the transaction was open for longer than transaction_timeout, which must be longer than the pipeline's commit interval")
	case errors.Is(err, kerr.InvalidTransactionTimeout):
		return fault.WithHint(err, "transaction_timeout is longer than the broker's transaction.max.timeout.ms")
	case errors.Is(err, kerr.MessageTooLarge):
		return fault.WithHint(err, "set batch to at most the topic's max.message.bytes")
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fault.WithHint(err, "check sasl.user, sasl.mechanism and the password in the variable that sasl.password_env names")
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fault.WithHint(err, "the user needs the rights that docs/sinks/kafka.md lists")
	}
	return fault.Transient(err)
}

// topicOf is the topic of a row.
func (s *Sink) topicOf(e *event.Event) (string, error) {
	if len(s.cfg.topic.Columns()) == 0 {
		return s.cfg.Topic, nil
	}
	text, missing := s.cfg.topic.Append(nil, []any{string(e.Type)})
	if missing != "" {
		return "", fmt.Errorf("topic %s: %s is null", s.cfg.Topic, missing)
	}
	for i, c := range text {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			text[i] = '_'
		}
	}
	name := string(text)
	switch {
	case !validTopic(name):
		return "", fmt.Errorf("topic %s: %q is no name of a topic", s.cfg.Topic, name)
	case name == s.cfg.PositionsTopic:
		return "", fmt.Errorf("topic %s: %q is the topic of positions", s.cfg.Topic, name)
	}
	return name, nil
}

// size is what a record takes in a batch of its own, at most.
func size(r *kgo.Record) int64 {
	const batch, record, header = 61, 40, 10 // heads and varints
	n := batch + record + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += header + len(h.Key) + len(h.Value)
	}
	return int64(n)
}
