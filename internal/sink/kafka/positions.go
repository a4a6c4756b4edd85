package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"naru/internal/event"
	"naru/internal/fault"
)

// stored is the value of a record of the positions topic (docs/format/positions.md).
type stored struct {
	Positions event.Positions `json:"positions"`
}

// positionsKey is what a record of positions is found by: transactional id and stream.
func (s *Sink) positionsKey() string { return s.id + " of " + s.env.Stream }

// openedKey is the key of the records that mark how far an Open has to read.
func (s *Sink) openedKey() string { return s.id + " opened" }

func (s *Sink) positionsRecord(at event.Positions) *kgo.Record {
	value, err := json.Marshal(stored{Positions: at})
	if err != nil {
		panic(err) // texts and numbers
	}
	return &kgo.Record{Topic: s.cfg.PositionsTopic, Key: []byte(s.positionsKey()), Value: value}
}

// takeOver makes this sink the only writer of its transactional id and learns where
// the one before has got to.
//
// Asking for the producer's id fences off every earlier writer and ends what it has
// left open; the answer comes when that is done. Then a mark of our own goes to the
// end of the positions topic: whoever has read up to it has read every position of
// this id that was ever committed, and no other can follow.
func (s *Sink) takeOver(ctx context.Context, access []kgo.Opt) error {
	name := s.cfg.PositionsTopic
	exists, err := s.topics.exists(ctx, name)
	if err != nil {
		return err
	}
	if !exists {
		// Small segments are compacted soon: every start reads the topic.
		err := s.topics.create(ctx, name, 1, s.cfg.Create.Replication, map[string]string{
			"cleanup.policy": "compact", "segment.bytes": "16777216", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"})
		if err != nil {
			return fault.WithHint(err, "the sink keeps its positions in the topic %s: create it with one partition and cleanup.policy=compact", name)
		}
	}
	t, err := s.topics.look(ctx, name)
	if err != nil {
		return err
	}
	if t.policy != "" && !strings.Contains(t.policy, "compact") {
		return fault.WithHint(fmt.Errorf("look up topic %s: its cleanup.policy is %s, so positions would be forgotten", name, t.policy),
			"set cleanup.policy=compact on it")
	}
	producer, epoch, err := s.client.ProducerID(ctx)
	if err != nil {
		return told("begin as transactional id "+s.id, err)
	}
	mark := fmt.Sprintf("%d/%d", producer, epoch)
	if err := s.begin(); err != nil {
		return err
	}
	s.client.Produce(ctx, &kgo.Record{Topic: name, Key: []byte(s.openedKey()), Value: []byte(mark)}, s.promise)
	if err := s.flush(ctx); err != nil {
		return err
	}
	if err := s.endTransaction(ctx); err != nil {
		return err
	}
	return s.load(ctx, access, mark)
}

// load reads the positions topic up to our own mark.
func (s *Sink) load(ctx context.Context, access []kgo.Opt, mark string) error {
	reader, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.cfg.PositionsTopic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(100 * time.Millisecond),
	}, access...)...)
	if err != nil {
		return fmt.Errorf("make kafka client: %w", err)
	}
	defer reader.Close()
	var last []byte
	for {
		fetches := reader.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return told("read positions in topic "+s.cfg.PositionsTopic, e.Err)
		}
		for r := range fetches.RecordsAll() {
			switch {
			case string(r.Key) == s.positionsKey():
				last = r.Value
			case string(r.Key) == s.openedKey() && string(r.Value) == mark:
				return s.know(last)
			}
		}
	}
}

func (s *Sink) know(last []byte) error {
	if last == nil {
		return nil
	}
	var v stored
	if err := json.Unmarshal(last, &v); err != nil {
		return fault.WithHint(fmt.Errorf("read positions of %s in topic %s: %w", s.id, s.cfg.PositionsTopic, err),
			"somebody else has written to that topic: give the sink another positions_topic or transactional_id")
	}
	if v.Positions != nil {
		s.base = v.Positions
	}
	s.stored = time.Now()
	return nil
}
