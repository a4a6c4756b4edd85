package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"naru/internal/fault"
)

// topics are those that the sink writes to: looked up once, made if that is wanted.
type topics struct {
	cfg    *Settings
	client *kgo.Client

	mu struct {
		sync.Mutex
		known map[string]*topic
	}
}

type topic struct {
	limit  int64 // bytes of a batch, the cluster's or the sink's
	policy string
}

func newTopics(cfg *Settings) *topics {
	t := &topics{cfg: cfg}
	t.mu.known = map[string]*topic{}
	return t
}

// batch is how large the client may make batches of a topic.
func (t *topics) batch(name string) int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.mu.known[name]; k != nil {
		return int32(k.limit)
	}
	return int32(t.cfg.Batch)
}

var errTooMany = errors.New("too many topics")

// get looks a topic up, and makes it if it does not exist and the sink may.
func (t *topics) get(ctx context.Context, name string) (*topic, error) {
	t.mu.Lock()
	k, n := t.mu.known[name], len(t.mu.known)
	t.mu.Unlock()
	if k != nil {
		return k, nil
	}
	if n >= t.cfg.MaxTopics {
		return nil, fmt.Errorf("topic %s: %w: max_topics is %d", name, errTooMany, t.cfg.MaxTopics)
	}
	exists, err := t.exists(ctx, name)
	if err != nil {
		return nil, err
	}
	if !exists {
		if t.cfg.Create.Partitions == 0 {
			return nil, fault.WithHint(fmt.Errorf("look up topic %s: it does not exist", name),
				"create it, or set create: {partitions: 1, replication: 1} with your numbers")
		}
		if err := t.create(ctx, name, t.cfg.Create.Partitions, t.cfg.Create.Replication, nil); err != nil {
			return nil, err
		}
	}
	if k, err = t.look(ctx, name); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.known[name] = k
	return k, nil
}

// look learns what a topic takes.
func (t *topics) look(ctx context.Context, name string) (*topic, error) {
	k := &topic{limit: int64(t.cfg.Batch)}
	values, err := t.configs(ctx, name)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseInt(values["max.message.bytes"], 10, 64); err == nil {
		if n < 1<<10 {
			return nil, fmt.Errorf("look up topic %s: its max.message.bytes is %d: less than any event takes", name, n)
		}
		k.limit = min(k.limit, n)
	}
	k.policy = values["cleanup.policy"]
	return k, nil
}

func (t *topics) exists(ctx context.Context, name string) (bool, error) {
	req := kmsg.NewPtrMetadataRequest()
	one := kmsg.NewMetadataRequestTopic()
	one.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(ctx, t.client)
	if err != nil {
		return false, told("look up topic "+name, err)
	}
	if len(resp.Topics) != 1 {
		return false, fault.Transient(fmt.Errorf("look up topic %s: the answer has %d topics", name, len(resp.Topics)))
	}
	err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return false, nil
	}
	if err != nil {
		return false, told("look up topic "+name, err)
	}
	return true, nil
}

func (t *topics) create(ctx context.Context, name string, partitions, replication int32, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(t.cfg.Timeout.Std().Milliseconds())
	one := kmsg.NewCreateTopicsRequestTopic()
	one.Topic, one.NumPartitions, one.ReplicationFactor = name, partitions, int16(replication)
	if replication == 0 {
		one.ReplicationFactor = -1 // the broker's default.replication.factor
	}
	for key, value := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, kmsg.StringPtr(value)
		one.Configs = append(one.Configs, c)
	}
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(ctx, t.client)
	if err != nil {
		return told("create topic "+name, err)
	}
	if len(resp.Topics) != 1 {
		return fault.Transient(fmt.Errorf("create topic %s: the answer has %d topics", name, len(resp.Topics)))
	}
	err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		if m := resp.Topics[0].ErrorMessage; m != nil {
			err = fmt.Errorf("%w: %s", err, *m)
		}
		return told("create topic "+name, err)
	}
	// It is there for good, but brokers learn of it one after the other.
	for {
		exists, err := t.exists(ctx, name)
		if err != nil || exists {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for topic %s: %w", name, context.Cause(ctx))
		}
	}
}

// configs are those of a topic that matter here; empty where the sink may not look.
func (t *topics) configs(ctx context.Context, name string) (map[string]string, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	one := kmsg.NewDescribeConfigsRequestResource()
	one.ResourceType, one.ResourceName = kmsg.ConfigResourceTypeTopic, name
	one.ConfigNames = []string{"max.message.bytes", "cleanup.policy"}
	req.Resources = append(req.Resources, one)
	resp, err := req.RequestWith(ctx, t.client)
	if err != nil {
		return nil, told("read settings of topic "+name, err)
	}
	out := map[string]string{}
	for _, r := range resp.Resources {
		err := kerr.ErrorForCode(r.ErrorCode)
		if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
			return nil, nil // the limit of the sink holds
		}
		if err != nil {
			return nil, told("read settings of topic "+name, err)
		}
		for _, c := range r.Configs {
			if c.Value != nil {
				out[c.Name] = strings.TrimSpace(*c.Value)
			}
		}
	}
	return out, nil
}
