package collect

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/web"
)

// Bounds of a dry run: its answer has a line for each event.
const (
	maxDryRun    = 10_000
	maxDryReport = 16 << 20 // bytes
)

// dryRun is what a request that stores nothing has found.
type dryRun struct {
	on             bool
	valid, invalid int
	report         []byte // the results, one behind the other
	found          []byte // violations of the event being judged, as JSON; nil: none
}

// DryRun begins a request that stores nothing: its events are judged as those of
// others are, and AppendReport tells what would have become of each. There is no
// Append.
func (e *Engine) DryRun(ctx context.Context, door *DoorMetrics, name string) (*Request, error) {
	r, err := e.Begin(ctx, door, name)
	if err != nil {
		return nil, err
	}
	r.dry.on = true
	return r, nil
}

// Invalid is the number of events of a dry run that would be refused.
func (r *Request) Invalid() int { return r.dry.invalid }

// AppendReport appends the members of a dry run's answer to dst, without braces.
func (r *Request) AppendReport(dst []byte) []byte {
	dst = append(dst, `"valid": `...)
	dst = strconv.AppendInt(dst, int64(r.dry.valid), 10)
	dst = append(dst, `, "invalid": `...)
	dst = strconv.AppendInt(dst, int64(r.dry.invalid), 10)
	dst = append(dst, `, "results": [`...)
	dst = append(dst, r.dry.report...)
	return append(dst, ']')
}

// dryResult notes what would become of an item. rej is nil when it would be
// accepted.
func (r *Request) dryResult(c *contract.Contract, it *Item, rej *event.Rejection) error {
	d := &r.dry
	out := d.report
	if len(out) > 0 {
		out = append(out, ",\n  "...)
	} else {
		out = append(out, "\n  "...)
	}
	out = append(out, `{"index": `...)
	out = strconv.AppendInt(out, int64(r.items-1), 10)
	member := func(name, value string) {
		if value != "" {
			out = append(append(out, ", "...), name...)
			out = web.AppendJSONString(out, value)
		}
	}
	typ, id := string(it.Type), string(it.ID)
	if rej != nil {
		typ, id = rej.Type, rej.ID
	}
	member(`"id": `, id)
	member(`"type": `, typ)
	if rej == nil {
		d.valid++
		out = append(out, `, "valid": true`...)
		if c != nil {
			member(`"contract": `, cutRef(c.ID))
			member(`"version": `, cutRef(c.Version))
		}
	} else {
		d.invalid++
		out = append(out, `, "valid": false`...)
		member(`"reason": `, string(rej.Reason))
		member(`"detail": `, rej.Detail)
		out = (&refused{*rej, c}).appendContract(out)
	}
	if d.found != nil {
		out = append(append(out, `, "violations": `...), d.found...)
	}
	if left := r.judge.leftOut(); rej == nil && c != nil && len(left) > 0 {
		for i, path := range left {
			out = append(out, [2]string{`, "left_out": [`, ", "}[min(i, 1)]...)
			out = web.AppendJSONString(out, path)
		}
		out = append(out, ']')
	}
	if rej == nil && it.sent != nil && len(it.Data) > 0 && it.Data[0] == '{' {
		out = append(append(out, `, "stored": `...), it.Data...)
	}
	d.report, d.found = append(out, '}'), nil
	if len(d.report) > maxDryReport || r.items > maxDryRun {
		return &web.Error{
			Status: http.StatusRequestEntityTooLarge, Title: "too much to validate",
			Detail: fmt.Sprintf("a dry run takes at most %d events, and an answer of %d MiB about them; send fewer at once", maxDryRun, maxDryReport>>20),
		}
	}
	return nil
}
