package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"naru/internal/pipeline/definition"
)

// Behind Path/NAME: what reads events again. Backfill is also read: those that go on.
const (
	RewindAction   = "rewind"
	BackfillAction = "backfill"
	CancelAction   = "backfill/cancel"
)

// BackfillList is the answer that shows the backfills of a pipeline.
type BackfillList struct {
	Backfills []BackfillReport `json:"backfills"`
}

// Cancel is the body of what gives up backfills.
type Cancel struct {
	Sink string `json:"sink,omitempty"` // empty: all
}

// errBody: the request cannot be read.
var errBody = errors.New("bad request")

// rereadTime bounds what a rewind waits for sinks that stand still, the log and targets.
const rereadTime = 2 * time.Minute

func rereading(action string) bool {
	return action == RewindAction || action == BackfillAction || action == CancelAction
}

// reread serves those paths.
func (h *Handler) reread(w http.ResponseWriter, r *http.Request, name, action string, get bool) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), rereadTime)
	defer cancel()
	if get {
		if action != BackfillAction {
			return nil, errMethod
		}
		all, err := h.Configured.Backfills(ctx, name)
		return BackfillList{all}, err
	}
	switch action {
	case RewindAction:
		var ask struct {
			Rewind
			To *definition.Start `json:"to"`
		}
		if err := body(w, r, &ask); err != nil {
			return nil, err
		}
		if ask.To == nil {
			return nil, fmt.Errorf("%w: to is missing: a time, or earliest", errBody)
		}
		ask.Rewind.To = *ask.To
		return h.Configured.Rewind(ctx, name, ask.Rewind)
	case BackfillAction:
		var ask struct {
			Backfill
			From *definition.Start `json:"from"`
		}
		if err := body(w, r, &ask); err != nil {
			return nil, err
		}
		if ask.From == nil {
			return nil, fmt.Errorf("%w: from is missing: a time, or earliest", errBody)
		}
		ask.Backfill.From = *ask.From
		return h.Configured.Backfill(ctx, name, ask.Backfill)
	}
	var ask Cancel
	if err := body(w, r, &ask); err != nil {
		return nil, err
	}
	if err := h.Configured.CancelBackfill(ctx, name, ask.Sink); err != nil {
		return nil, err
	}
	all, err := h.Configured.Backfills(ctx, name)
	return BackfillList{all}, err
}

// maxBody is the longest body of such a request.
const maxBody = 64 << 10

func body(w http.ResponseWriter, r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = errors.New("there is text behind the JSON object")
		}
	}
	if err != nil {
		return fmt.Errorf(`%w: the body is to be a JSON object such as {"to": "earliest"}: %w`, errBody, err)
	}
	return nil
}
