package http

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/klauspost/compress/gzip"

	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/recordbatch"
	"naru/internal/row"
	"naru/internal/sink"
)

// Sink sends rows in the order of the log, one request at a time.
type Sink struct {
	cfg    Settings
	url    string
	place  string // of the target, for people: the URL may be a secret
	header http.Header
	secret []byte // nil: requests are not signed
	client *http.Client

	dec  recordbatch.Decoder
	held batch
	end  event.Positions // of everything written so far

	refused []sink.Refusal // since the last Commit
	covered []sink.Refusal // by the last Commit

	body, zipped bytes.Buffer
	gzip         *gzip.Writer
}

var (
	_ sink.Sink    = (*Sink)(nil)
	_ sink.Refuser = (*Sink)(nil)
)

// batch is rows that are not sent yet.
type batch struct {
	text []byte // of all rows, one behind the other
	rows []one
}

// one is a row of a batch.
type one struct {
	start, end int // in text
	at         event.Position
	row        int32
	key        event.Position // the place that its key names
}

func (b *batch) reset() { b.text, b.rows = b.text[:0], b.rows[:0] }

// Write implements sink.Sink. It sends what makes a whole batch.
func (s *Sink) Write(ctx context.Context, b *event.Batch) error {
	err := s.dec.EachIn(b, func(e *event.Event) error {
		start := len(s.held.text)
		at := event.Position{Incarnation: b.Incarnation, Partition: b.Partition, Offset: e.Offset}
		s.held.text = s.appendRow(s.held.text, b.Columns, e, at)
		s.held.rows = append(s.held.rows, one{start: start, end: len(s.held.text), at: at, row: e.Row, key: e.Place(at)})
		if n := len(s.held.rows); n > 1 && len(s.held.text) > int(s.cfg.BatchBytes) {
			// It does not fit: what stood before it goes, and it begins the next batch.
			last := s.held.rows[n-1]
			s.held.rows = s.held.rows[:n-1]
			if err := s.send(ctx, s.held.rows); err != nil {
				return err
			}
			n := copy(s.held.text, s.held.text[last.start:last.end])
			last.start, last.end = 0, n
			s.held.text, s.held.rows = s.held.text[:n], append(s.held.rows[:0], last)
		}
		if len(s.held.rows) < s.cfg.Batch && len(s.held.text) < int(s.cfg.BatchBytes) {
			return nil
		}
		return s.flush(ctx)
	})
	if err != nil {
		return err
	}
	s.end.Advance(b.End())
	return nil
}

// appendRow appends a row as a JSON object. Its key is the last member: of two with
// one name, readers of JSON take the last, whatever a client has sent.
func (s *Sink) appendRow(dst []byte, columns []event.Column, e *event.Event, at event.Position) []byte {
	start := len(dst)
	dst = row.AppendJSON(dst, columns, e, at.Partition)
	if s.cfg.Key == "" {
		return dst
	}
	dst = dst[:len(dst)-1] // without the brace
	if len(dst) > start+1 {
		dst = append(dst, ',')
	}
	dst = append(jsonscan.AppendQuoted(dst, s.cfg.Key), `:"`...)
	return append(sink.AppendKey(dst, e.Place(at), e.Row), `"}`...)
}

func (s *Sink) flush(ctx context.Context) error {
	if len(s.held.rows) == 0 {
		return nil
	}
	if err := s.send(ctx, s.held.rows); err != nil {
		return err
	}
	s.held.reset()
	return nil
}

// Commit implements sink.Sink: everything is sent and answered for.
func (s *Sink) Commit(ctx context.Context) (event.Positions, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	s.covered, s.refused = append(s.covered, s.refused...), nil
	return s.end.Clone(), nil
}

// Refused implements sink.Refuser.
func (s *Sink) Refused() []sink.Refusal {
	list := s.covered
	s.covered = nil
	return list
}

// Close implements sink.Sink.
func (s *Sink) Close() error {
	s.held = batch{}
	s.client.CloseIdleConnections()
	return nil
}

// encode makes the body of a request, and the key of its content: bodies with one
// key are the same to the last byte.
func (s *Sink) encode(rows []one) (body []byte, key string, err error) {
	s.body.Reset()
	for i, r := range rows {
		switch {
		case s.cfg.Format == ndjson:
		case i == 0:
			s.body.WriteByte('[')
		default:
			s.body.WriteByte(',')
		}
		s.body.Write(s.held.text[r.start:r.end])
		if s.cfg.Format == ndjson {
			s.body.WriteByte('\n')
		}
	}
	if s.cfg.Format == jsonArray {
		s.body.WriteByte(']')
	}
	first, last := rows[0], rows[len(rows)-1]
	text := append(sink.AppendKey(nil, first.at, first.row), ".."...)
	text = append(sink.AppendKey(text, last.at, last.row), ".."...)
	sum := sha256.Sum256(s.body.Bytes())
	key = string(hex.AppendEncode(text, sum[:8]))
	if s.cfg.Compress != gzipped {
		return s.body.Bytes(), key, nil
	}
	s.zipped.Reset()
	if s.gzip == nil {
		s.gzip = gzip.NewWriter(&s.zipped)
	} else {
		s.gzip.Reset(&s.zipped)
	}
	if _, err := s.gzip.Write(s.body.Bytes()); err != nil {
		return nil, "", fmt.Errorf("compress %d rows: %w", len(rows), err)
	}
	if err := s.gzip.Close(); err != nil {
		return nil, "", fmt.Errorf("compress %d rows: %w", len(rows), err)
	}
	return s.zipped.Bytes(), key, nil
}
