package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"naru/internal/event"
	"naru/internal/quantity"
	"naru/internal/sink"
	"naru/internal/sink/sinktest"
	"naru/internal/vfs"
)

// brokers gives the cluster that a test runs on: Apache Kafka where
// test-world/engines/with has started it, else one inside the process.
func brokers(t *testing.T) []string {
	if os.Getenv("NARU_TEST_KAFKA") != "" || os.Getenv("NARU_TEST_ENGINES") != "" {
		return []string{sinktest.Engine(t, "kafka")}
	}
	return fake(t).ListenAddrs()
}

func fake(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

var names = struct {
	sync.Mutex
	n int
}{}

// named is a name of the test's own: tests share a real cluster.
func named(t *testing.T, what string) string {
	names.Lock()
	defer names.Unlock()
	names.n++
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r == '#' {
			return '-'
		}
		return r
	}, t.Name())
	return fmt.Sprintf("%s-%s-%d-%d", what, clean, os.Getpid(), names.n)
}

// settings of a sink with topics of its own, on a cluster.
func settings(t *testing.T, brokers []string) *Settings {
	s := defaults()
	s.Brokers, s.Topic, s.PositionsTopic = brokers, named(t, "rows"), named(t, "positions")
	s.TransactionalID = named(t, "id")
	s.Create = Create{Partitions: 3, Replication: 1}
	s.Timeout, s.TransactionTimeout = quantity.Duration(10*time.Second), quantity.Duration(20*time.Second)
	return s
}

func env() sink.Env {
	return sink.Env{Pipeline: "edits", Name: "kafka", Stream: sinktest.Stream, Reader: "pipeline/edits/kafka", FS: vfs.OS(),
		Getenv: func(string) string { return "" }}
}

func opened(t *testing.T, s *Settings) sink.Sink {
	t.Helper()
	require.NoError(t, s.Validate())
	out, err := s.Open(t.Context(), env())
	require.NoError(t, err)
	t.Cleanup(func() { _ = out.Close() })
	return out
}

// makeTopic makes a topic as an operator might have done.
func makeTopic(t *testing.T, s *Settings, name string, config map[string]string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers...))
	require.NoError(t, err)
	defer cl.Close()
	tt := newTopics(s)
	tt.client = cl
	require.NoError(t, tt.create(t.Context(), name, 1, 1, config))
}

// contents are the committed records of the topics that begin with a prefix.
func contents(t *testing.T, brokers []string, prefix string) (records []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	require.NoError(t, err)
	defer cl.Close()
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	require.NoError(t, err)
	list := kmsg.NewPtrListOffsetsRequest()
	for _, topic := range meta.Topics {
		if topic.Topic == nil || !strings.HasPrefix(*topic.Topic, prefix) {
			continue
		}
		lt := kmsg.NewListOffsetsRequestTopic()
		lt.Topic = *topic.Topic
		for _, p := range topic.Partitions {
			lp := kmsg.NewListOffsetsRequestTopicPartition()
			lp.Partition, lp.Timestamp = p.Partition, -1
			lt.Partitions = append(lt.Partitions, lp)
		}
		list.Topics = append(list.Topics, lt)
	}
	ends, err := list.RequestWith(ctx, cl)
	require.NoError(t, err)
	left := map[string]int64{} // partitions with their ends
	from := map[string]map[int32]kgo.Offset{}
	for _, topic := range ends.Topics {
		from[topic.Topic] = map[int32]kgo.Offset{}
		for _, p := range topic.Partitions {
			require.NoError(t, kerr.ErrorForCode(p.ErrorCode))
			if p.Offset > 0 {
				left[fmt.Sprint(topic.Topic, p.Partition)] = p.Offset
				from[topic.Topic][p.Partition] = kgo.NewOffset().AtStart()
			}
		}
	}
	cl.AddConsumePartitions(from)
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			require.NoError(t, e.Err)
		}
		for r := range fetches.RecordsAll() {
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if p := fmt.Sprint(r.Topic, r.Partition); r.Offset+1 >= left[p] {
				delete(left, p)
			}
		}
	}
	return records
}

func idOf(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == "ce_id" {
			return string(h.Value)
		}
	}
	var v struct {
		ID string `json:"_id"`
	}
	_ = json.Unmarshal(r.Value, &v)
	return v.ID
}

func idsOf(t *testing.T, brokers []string, prefix string) (ids []string) {
	for _, r := range contents(t, brokers, prefix) {
		ids = append(ids, idOf(r))
	}
	slices.Sort(ids)
	return ids
}

func harness(change func(*Settings), exact bool) func(t *testing.T) sinktest.Harness {
	return func(t *testing.T) sinktest.Harness {
		at := brokers(t)
		s := settings(t, at)
		prefix := s.Topic
		change(s)
		return sinktest.Harness{
			Exact: exact,
			Open:  func(t *testing.T) sink.Sink { return opened(t, s) },
			IDs:   func(t *testing.T) []string { return idsOf(t, at, prefix) },
		}
	}
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, harness(func(*Settings) {}, true))
}

func TestConformanceOfEvents(t *testing.T) {
	sinktest.Run(t, harness(func(s *Settings) { s.Format, s.Topic, s.Compression = "event", s.Topic+".{_type}", "zstd" }, true))
}

func TestConformanceWithoutTransactions(t *testing.T) {
	sinktest.Run(t, harness(func(s *Settings) { s.Transactional = false }, false))
}

func TestPage(t *testing.T) { sinktest.Page(t, Kind(), "../../../docs/sinks/kafka.md") }

func TestRefusals(t *testing.T) {
	at := brokers(t)
	s := settings(t, at)
	prefix := s.Topic
	s.Topic += ".{_type}"
	s.MaxTopics, s.Batch, s.Buffer = 2, 1<<16, 1<<20
	out := opened(t, s)
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 0,
		sinktest.Spec{ID: "fits", Type: "a b", Data: `{}`},
		sinktest.Spec{ID: "large", Type: "a b", Data: `{"text":"` + strings.Repeat("x", 1<<16) + `"}`},
		sinktest.Spec{ID: "name", Type: strings.Repeat("n", 250), Data: `{}`},
		sinktest.Spec{ID: "second", Type: "b", Data: `{}`},
		sinktest.Spec{ID: "third", Type: "c", Data: `{}`}))
	refused := out.(sink.Refuser).Refused()
	require.Len(t, refused, 3)
	require.Contains(t, refused[0].Detail, "takes at most 65536")
	require.EqualValues(t, 1, refused[0].At.Offset)
	require.Contains(t, refused[1].Detail, "is no name of a topic")
	require.Contains(t, refused[2].Detail, "max_topics is 2")
	require.Empty(t, out.(sink.Refuser).Refused())
	require.Equal(t, []string{"fits", "second"}, idsOf(t, at, prefix))
	require.Len(t, contents(t, at, prefix+".a_b"), 1)

	// A batch of refusals alone moves the positions: none of them is judged again.
	out = opened(t, s)
	s.MaxTopics = 3
	next := sinktest.Batch(sinktest.Lives[0], 0, 5, sinktest.Spec{ID: "name2", Type: strings.Repeat("m", 250), Data: `{}`})
	require.NoError(t, out.Write(t.Context(), next))
	require.NoError(t, out.(sink.Preparer).Prepare(t.Context()))
	require.Len(t, out.(sink.Refuser).Refused(), 1)
	_, err := out.Commit(t.Context())
	require.NoError(t, err)
}

func TestTopicsSmallerBatchesHold(t *testing.T) {
	at := brokers(t)
	s := settings(t, at)
	makeTopic(t, s, s.Topic, map[string]string{"max.message.bytes": "4096"})
	s.Compression = "none"
	out := opened(t, s)
	var all []sinktest.Spec
	for i := range 100 {
		all = append(all, sinktest.Spec{ID: fmt.Sprint("e", i), Type: "x", Data: `{"text":"` + strings.Repeat("y", 300) + `"}`})
	}
	all = append(all, sinktest.Spec{ID: "large", Type: "x", Data: `{"text":"` + strings.Repeat("y", 4000) + `"}`})
	sinktest.Put(t, out, sinktest.Batch(sinktest.Lives[0], 0, 0, all...))
	require.Len(t, out.(sink.Refuser).Refused(), 1)
	require.Len(t, idsOf(t, at, s.Topic), 100)
}

func TestKeysAndHeaders(t *testing.T) {
	at := brokers(t)
	s := settings(t, at)
	s.Key = "page"
	out := opened(t, s)
	b := &event.Batch{Stream: sinktest.Stream, Incarnation: sinktest.Lives[0], Next: 9,
		Columns: []event.Column{{Name: "_id", Type: event.StringColumn}, {Name: "page", Type: event.StringColumn}},
		Rows: event.RowsOf(
			event.Event{ID: []byte("a"), Type: []byte("x"), Offset: 7, Data: []byte(`{"page":"Home"}`)},
			event.Event{ID: []byte("a"), Type: []byte("x"), Offset: 7, Row: 1, Data: []byte(`{}`)},
		)}
	sinktest.Put(t, out, b)
	got := map[string]string{}
	for _, r := range contents(t, at, s.Topic) {
		require.Len(t, r.Headers, 1)
		got[string(r.Headers[0].Value)] = string(r.Key) + " " + string(r.Value)
	}
	require.Equal(t, map[string]string{
		"a1000000000000000000000000000000/0/7/0": `Home {"_id":"a","page":"Home"}`,
		"a1000000000000000000000000000000/0/7/1": ` {"_id":"a"}`,
	}, got)

	s.Key = "gone"
	out = opened(t, s)
	b.Rows.List[0].Offset, b.Next = 9, 10
	require.ErrorContains(t, out.Write(t.Context(), b), "the steps give no column gone")
}
