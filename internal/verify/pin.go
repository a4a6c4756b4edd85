package verify

import (
	"context"
	"errors"
	"fmt"

	"naru/internal/event"
	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/iceberg"
)

// pinned is a table at one snapshot.
type pinned struct {
	ident  lake.Ident
	number int
	audit  *iceberg.Audit // nil when it is not in the catalog, or cannot be read
	err    error          // why it cannot be read
	start  event.Positions
	absent bool // not in the catalog

	rows, foreign int64
	first         map[*lane]int64 // lowest offset of its rows
}

// pin takes the newest snapshot of every table.
func (v *verifier) pin(ctx context.Context) error {
	for _, st := range v.before.Streams {
		if event.Internal(st.Stream) {
			continue
		}
		v.stream(st.Stream)
	}
	if v.Lake == nil {
		return nil
	}
	// What is being loaded again before the tables: it may be done meanwhile.
	var err error
	if v.loading, err = v.Lake.Loading(); err != nil {
		return err
	}
	list, err := v.Lake.List(ctx)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for i, id := range list {
		v.tell("tables", int64(i), int64(len(list)))
		if err := v.pinOne(ctx, id); err != nil {
			return err
		}
	}
	// Claims after the tables: a claim that came since is of a table that is not
	// pinned, and so covers nothing yet.
	claims, err := v.Lake.Claims()
	if err != nil {
		return err
	}
	for id, from := range claims {
		s := v.stream(id.Namespace)
		t := s.byName[id.Name]
		if t == nil {
			t = s.add(&pinned{ident: id, absent: true})
		}
		t.start = from
	}
	return nil
}

func (s *streamState) add(t *pinned) *pinned {
	t.number, t.first = len(s.tables), map[*lane]int64{}
	s.tables = append(s.tables, t)
	s.byName[t.ident.Name] = t
	return t
}

func (v *verifier) pinOne(ctx context.Context, id lake.Ident) error {
	a, err := v.Lake.Audit(ctx, id)
	switch {
	case errors.Is(err, lake.ErrNoTable):
		return nil // dropped since it was listed
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil && v.gone(err):
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	if err == nil && !a.Own {
		if _, stream := v.streams[id.Namespace]; !stream {
			a.Release()
			return nil // another engine's, in a namespace of its own
		}
	}
	if err == nil && a.Stream != "" {
		v.filled = append(v.filled, &filled{ident: id, audit: a, lanes: map[laneID]*filledLane{}})
		return nil
	}
	t := v.stream(id.Namespace).add(&pinned{ident: id, audit: a, err: err})
	if err == nil {
		t.err = a.Err
	}
	if t.err != nil {
		v.stopped(t, t.err.Error(), fault.HintOf(t.err))
		return nil
	}
	if len(a.Refused) > 0 {
		v.stopped(t, fmt.Sprintf("it is ahead of the log, which ended at %s when naru found it so; naru loads nothing into it", a.Refused),
			"bring back the log that belongs to the table and remove lake/"+iceberg.RefusedFile+", or drop the table so that it is loaded anew")
	}
	if a.Schema == nil && a.Own {
		v.stopped(t, "its columns are not those that naru made", "naru table show "+id.String())
	}
	for _, f := range a.Files {
		v.files = append(v.files, dataFile{t, f})
	}
	return nil
}

func (v *verifier) stopped(t *pinned, detail, hint string) {
	v.wrong.note(Difference{Kind: Stopped, Stream: t.ident.Namespace, Table: t.ident.String(), Detail: detail, Hint: hint})
}

// route tells which table an event of a type, judged by a contract, belongs into:
// by the function that the sink uses, among the tables that there are. Nil: one
// that is yet to be made.
func (s *streamState) route(typ, judged []byte) *pinned {
	if s.name == event.RejectedStream {
		return s.named(event.RejectedStream)
	}
	if s.shape != nil && len(judged) > 0 {
		if asked := s.shape(judged).Name(); asked != "" {
			return s.named(asked)
		}
	}
	if t, ok := s.types[string(typ)]; ok {
		return t
	}
	t := s.named(lake.TableName(string(typ)))
	if len(s.types) >= maxTypes {
		clear(s.types)
	}
	s.types[string(typ)] = t
	return t
}

// tableOf is the name of the table that an event belongs into.
func (s *streamState) tableOf(e *event.Event) string {
	if s.shape != nil {
		if asked := s.shape(e.Contract.Hash).Name(); asked != "" {
			return asked
		}
	}
	return lake.TableName(string(e.Type))
}

// named gives the table of that name, or _other in its place; nil for neither.
func (s *streamState) named(name string) *pinned {
	if t := s.byName[name]; t != nil {
		return t
	}
	return s.byName[lake.OtherTable]
}

// maxTypes bounds the cache of types.
const maxTypes = 10_000

// rolledBack tells whether the event is one that naru reads again, because
// somebody rolled its table back.
func (t *pinned) rolledBack(l *lane, offset int64) bool {
	return t.audit != nil && t.audit.RolledBack.Covers(event.Position{Incarnation: l.inc, Partition: l.partition, Offset: offset})
}
