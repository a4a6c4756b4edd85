package http

import (
	"encoding/json"
	"fmt"
	"strings"

	"naru/internal/sink"
)

// results reads what became of each row: {"records": [{"recordId", "result",
// "error"}]}, with result Ok, Dropped or ProcessingFailed, as the transformation
// contract of Amazon Data Firehose has it. An answer that does not name every row
// once is an error: nobody knows what the target has.
func (s *Sink) results(body []byte, rows []one) ([]sink.Refusal, error) {
	var said struct {
		Records []struct {
			ID     string `json:"recordId"`
			Result string `json:"result"`
			Error  string `json:"error"`
		} `json:"records"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	open := make(map[string]int, len(rows))
	for i, r := range rows {
		open[string(sink.AppendKey(nil, r.key, r.row))] = i
	}
	var out []sink.Refusal
	for _, rec := range said.Records {
		i, ok := open[rec.ID]
		if !ok {
			return nil, fmt.Errorf("read results: the record %q was not sent, or is named twice", clipped(rec.ID))
		}
		delete(open, rec.ID)
		refusal := sink.Refusal{At: rows[i].at, Row: rows[i].row, Detail: clipped(rec.Error)}
		switch rec.Result {
		case "Ok":
			continue
		case "Dropped":
			refusal.Dropped = true
		case "ProcessingFailed":
			if refusal.Detail == "" {
				refusal.Detail = "the target answers ProcessingFailed"
			}
		default:
			return nil, fmt.Errorf("read results: the record %s has the result %q, which is none of Ok, Dropped, ProcessingFailed", rec.ID, clipped(rec.Result))
		}
		out = append(out, refusal)
	}
	if len(open) > 0 {
		var missing []string
		for _, r := range rows {
			key := string(sink.AppendKey(nil, r.key, r.row))
			if _, ok := open[key]; ok && len(missing) < 3 {
				missing = append(missing, key)
			}
		}
		return nil, fmt.Errorf("read results: %d of %d records are missing, %s", len(open), len(rows), strings.Join(missing, ", "))
	}
	return out, nil
}

// clipped bounds what a target says to what a rejection may hold.
func clipped(text string) string {
	const longest = 1000
	if len(text) > longest {
		return strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
