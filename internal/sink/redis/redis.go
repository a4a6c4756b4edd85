package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/recordbatch"
	"naru/internal/sink"
)

// quiet is how often positions are stored that have moved without any row.
const quiet = time.Minute

// Sink writes to one server. Rows are kept as commands until Commit.
type Sink struct {
	cfg       *Settings
	env       sink.Env
	dial      func(context.Context) (*conn, error)
	conn      *conn
	positions string // the key of the hash
	dec       recordbatch.Decoder

	base     event.Positions // stored in the server
	end      event.Positions // behind what was written
	stored   time.Time       // when base was
	prepared bool            // the positions are watched: only Commit may follow
	broken   bool            // an error was returned: nothing can be committed any more

	data    []byte // commands of rows
	rows    []pending
	waiting []sink.Refusal // of what was written since the last commit
	refused []sink.Refusal // not yet told to the pipeline
}

// pending is a row that waits for the commit.
type pending struct {
	at       event.Position
	row      int32
	key      string
	to       int  // its commands end here in data
	commands int  // how many they are
	refused  bool // the key has another type
}

// rowBytes is what a pending row takes beside its commands, about.
const rowBytes = 96

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Resumer  = (*Sink)(nil)
	_ sink.Pending  = (*Sink)(nil)
	_ sink.Refuser  = (*Sink)(nil)
	_ sink.Preparer = (*Sink)(nil)
)

func open(ctx context.Context, cfg *Settings, env sink.Env, dial func(context.Context) (*conn, error)) (*Sink, error) {
	s := &Sink{cfg: cfg, env: env, dial: dial, positions: cfg.positionsKey(env), end: event.Positions{}}
	var err error
	if s.conn, err = dial(ctx); err != nil {
		return nil, err
	}
	if s.base, err = s.load(ctx); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	if len(s.base) > 0 {
		s.stored = time.Now()
	}
	return s, nil
}

// load reads the positions: a hash, "INCARNATION/PARTITION" to offset.
func (s *Sink) load(ctx context.Context) (event.Positions, error) {
	answer, err := s.conn.do(ctx, "HGETALL", s.positions)
	if err != nil {
		return nil, s.told("read positions", err)
	}
	list, ok := answer.([]any)
	if !ok || len(list)%2 != 0 {
		return nil, fmt.Errorf("read positions in redis: %w", errProtocol)
	}
	at := event.Positions{}
	for pair := range slices.Chunk(list, 2) {
		field, _ := pair[0].(string)
		value, _ := pair[1].(string)
		inc, part, ok := strings.Cut(field, "/")
		life, err1 := event.ParseIncarnation(inc)
		partition, err2 := strconv.ParseInt(part, 10, 32)
		offset, err3 := strconv.ParseInt(value, 10, 64)
		if err := errors.Join(err1, err2, err3); err != nil || !ok {
			return nil, fault.WithHint(fmt.Errorf("read positions in redis: %s has the field %q with %q", s.positions, field, value),
				"somebody else has written to that key: give the sink another positions_key")
		}
		at.Advance(event.Position{Incarnation: life, Partition: int32(partition), Offset: offset})
	}
	return at, nil
}

var errBroken = errors.New("write to redis: the sink has failed before")

// Write implements sink.Sink.
func (s *Sink) Write(_ context.Context, b *event.Batch) error {
	switch {
	case s.broken:
		return errBroken
	case s.prepared:
		return errors.New("write to redis: what was prepared is not committed yet")
	}
	enc, err := newEncoder(s.cfg, b)
	if err != nil {
		return err
	}
	err = s.dec.EachIn(b, func(e *event.Event) error {
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		if s.base.Covers(at) || s.end.Covers(at) {
			return nil
		}
		p, why := enc.row(&s.data, at, e)
		if why != "" {
			s.waiting = append(s.waiting, sink.Refusal{At: at, Row: e.Row, Detail: why})
			return nil
		}
		s.rows = append(s.rows, p)
		return nil
	})
	if err != nil {
		s.broken = true
		return err
	}
	s.end.Advance(b.End())
	return nil
}

// PendingBytes implements sink.Pending.
func (s *Sink) PendingBytes() int64 { return int64(len(s.data) + rowBytes*len(s.rows)) }

// moved gives what is to be stored: the entries of end that lie beyond base.
func (s *Sink) moved() event.Positions {
	out := event.Positions{}
	for inc, parts := range s.end {
		for p, off := range parts {
			if have, ok := s.base.Get(inc, p); !ok || have < off {
				out.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
			}
		}
	}
	return out
}

// nothing tells whether a commit has nothing to store that would be missed.
func (s *Sink) nothing(moved event.Positions) bool {
	return len(moved) == 0 || len(s.rows) == 0 && len(s.waiting) == 0 && !s.prepared && time.Since(s.stored) < quiet
}

// Prepare implements sink.Preparer: it makes sure that nobody else has written as
// this reader, and finds the rows whose key is taken by a value of another type.
func (s *Sink) Prepare(ctx context.Context) error {
	if s.broken {
		return errBroken
	}
	if s.prepared || s.nothing(s.moved()) {
		return nil
	}
	if err := s.prepare(ctx); err != nil {
		s.broken = true
		return err
	}
	s.prepared = true
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return nil
}

func (s *Sink) prepare(ctx context.Context) error {
	if _, err := s.conn.do(ctx, "WATCH", s.positions); err != nil {
		if _, answered := err.(replyError); answered {
			return s.told("watch positions", err)
		}
		// A server hangs up on who was silent for long; nothing was under way.
		again, err := s.dial(ctx)
		if err != nil {
			return err
		}
		_ = s.conn.Close()
		s.conn = again
		if _, err := s.conn.do(ctx, "WATCH", s.positions); err != nil {
			return s.told("watch positions", err)
		}
	}
	have, err := s.load(ctx)
	if err != nil {
		return err
	}
	if !have.Equal(s.base) {
		return fault.WithHint(fault.Transient(fmt.Errorf("write to redis: %s is at %s, this sink continues %s", s.positions, have, s.base)),
			"another process writes as this sink (two folders with a pipeline of this name need a positions_key), or the server was set back: the sink reads again from what the server has")
	}
	return s.types(ctx)
}

// types refuses the rows whose key holds something else. Strings are replaced
// whatever was there.
func (s *Sink) types(ctx context.Context) error {
	if s.cfg.Mode == modeString {
		return nil
	}
	keys := map[string]bool{} // to: has another type
	for i := range s.rows {
		keys[s.rows[i].key] = false
	}
	for some := range slices.Chunk(slices.Collect(maps.Keys(keys)), 1000) {
		var ask []byte
		for _, key := range some {
			ask = appendCommand(ask, "TYPE", key)
		}
		answers, err := s.conn.send(ctx, ask, len(some))
		if err != nil {
			return s.told("ask for the types of keys", err)
		}
		for i, a := range answers {
			if e, ok := a.(replyError); ok {
				return s.told("ask for the type of a key", e)
			}
			keys[some[i]] = a != "none" && a != s.cfg.Mode
		}
	}
	for i := range s.rows {
		if p := &s.rows[i]; keys[p.key] && !p.refused {
			p.refused = true
			s.refuse(p, fmt.Sprintf("the key %q holds no %s", p.key, s.cfg.Mode))
		}
	}
	return nil
}

func (s *Sink) refuse(p *pending, why string) {
	s.waiting = append(s.waiting, sink.Refusal{At: p.at, Row: p.row, Detail: why})
}

// Commit implements sink.Sink.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := s.Prepare(ctx); err != nil {
		return nil, err
	}
	if s.prepared {
		if err := s.transact(ctx, s.moved()); err != nil {
			s.broken = true
			return nil, err
		}
	}
	s.prepared, s.rows = false, nil
	if s.data = s.data[:0]; cap(s.data) > 1<<20 {
		s.data = nil // a burst is over
	}
	s.refused, s.waiting = append(s.refused, s.waiting...), nil
	return s.end.Clone(), nil
}

// window bounds what is sent before the answers are read, so that neither side waits
// for the other with full buffers.
const window = 256 << 10

// transact makes rows and positions visible at once.
func (s *Sink) transact(ctx context.Context, moved event.Positions) error {
	tx := transaction{conn: s.conn}
	tx.add(appendCommand(nil, "MULTI"), 1)
	from := 0
	for i := range s.rows {
		p := &s.rows[i]
		if !p.refused {
			if err := tx.more(ctx, s.data[from:p.to], p.commands); err != nil {
				return s.told("send rows", err)
			}
		}
		from = p.to
	}
	set := []string{"HSET", s.positions}
	for inc, parts := range moved {
		for partition, off := range parts {
			set = append(set, fmt.Sprintf("%s/%d", inc, partition), strconv.FormatInt(off, 10))
		}
	}
	if err := tx.more(ctx, appendCommand(nil, set...), 1); err != nil {
		return s.told("send positions", err)
	}
	if err := tx.flush(ctx); err != nil {
		return s.told("send rows", err)
	}
	answer, err := s.conn.do(ctx, "EXEC")
	if err != nil {
		return s.told("commit rows", err)
	}
	answers, ok := answer.([]any)
	if !ok {
		return fault.WithHint(fault.Transient(fmt.Errorf("commit rows to redis: %s was changed by somebody else", s.positions)),
			"another process writes as this sink; two folders with a pipeline of this name need a positions_key")
	}
	s.judge(answers)
	for inc, parts := range moved {
		for p, off := range parts {
			s.base.Advance(event.Position{Incarnation: inc, Partition: p, Offset: off})
		}
	}
	s.stored = time.Now()
	return nil
}

// judge finds rows of which a command has failed although the transaction has been
// made: their key became something else between Prepare and Commit.
func (s *Sink) judge(answers []any) {
	for i := range s.rows {
		p := &s.rows[i]
		if p.refused {
			continue
		}
		for _, a := range answers[:min(p.commands, len(answers))] {
			if e, ok := a.(replyError); ok && !p.refused {
				p.refused = true
				s.refuse(p, string(e))
			}
		}
		answers = answers[min(p.commands, len(answers)):]
	}
}

// transaction sends commands between MULTI and EXEC.
type transaction struct {
	conn     *conn
	buf      []byte
	commands int
}

func (t *transaction) add(commands []byte, n int) {
	t.buf, t.commands = append(t.buf, commands...), t.commands+n
}

func (t *transaction) more(ctx context.Context, commands []byte, n int) error {
	if t.add(commands, n); len(t.buf) < window {
		return nil
	}
	return t.flush(ctx)
}

// flush sends what is there. A command that the server does not take ends it: EXEC
// would do nothing.
func (t *transaction) flush(ctx context.Context) error {
	answers, err := t.conn.send(ctx, t.buf, t.commands)
	if err != nil {
		return err
	}
	t.buf, t.commands = t.buf[:0], 0
	for _, a := range answers {
		if e, ok := a.(replyError); ok {
			return e
		}
	}
	return nil
}

// told makes an error one for the operator.
func (s *Sink) told(doing string, err error) error {
	var e replyError
	answered := errors.As(err, &e)
	err = fmt.Errorf("%s in redis %s: %w", doing, s.cfg.Address, err)
	if !answered {
		return fault.Transient(err)
	}
	switch e.code() {
	case "OOM":
		return fault.WithHint(err, "the server has reached maxmemory and may not drop keys: make room, or set maxlen or ttl")
	case "NOAUTH", "WRONGPASS", "NOPERM":
		return fault.WithHint(err, "check user and password_env, and what the user may do (docs/sinks/redis.md)")
	case "MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN":
		return fault.WithHint(err, "rows and positions are one transaction, which a cluster makes on one node only: address a single server, or put the same {hash tag} into key and positions_key and address its node")
	case "READONLY":
		return fault.WithHint(fault.Transient(err), "this is a replica: address the primary")
	case "MISCONF":
		return fault.WithHint(fault.Transient(err), "the server cannot write its snapshot or append-only file: look into its log")
	case "WRONGTYPE":
		return fault.WithHint(err, "%s is no hash: give the sink another positions_key", s.positions)
	}
	return fault.Transient(err)
}

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	r := s.refused
	s.refused = nil
	return r
}

// Resume implements sink.Resumer.
func (s *Sink) Resume(_ context.Context, stream string) (event.Positions, error) {
	if len(s.base) == 0 || stream != s.env.Stream {
		return nil, nil
	}
	return s.base.Clone(), nil
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	_ = s.conn.Close() // what was not committed is gone with the connection
	return nil
}
