package upload

import (
	"naru/internal/client"
	"naru/internal/client/records"
)

// batch is one request's records.
type batch struct {
	body     []byte
	lines    []int64 // of the input, one a record
	misfits  map[int]string
	records  int64
	repaired int64
	last     bool  // no batch follows,
	err      error // for this reason; nil at the end of the input
}

func (b *batch) reset() {
	clear(b.misfits)
	*b = batch{body: b.body[:0], lines: b.lines[:0], misfits: b.misfits}
}

func (b *batch) add(rec *records.Record) {
	if rec.Misfit != "" {
		if b.misfits == nil {
			b.misfits = map[int]string{}
		}
		b.misfits[len(b.lines)] = rec.Misfit
	}
	if rec.Repaired {
		b.repaired++
	}
	b.body = append(append(b.body, rec.Line...), '\n')
	b.lines = append(b.lines, rec.At)
	b.records++
}

// refusal describes the rejected item r. before is the number of records
// before the batch; exact says that items and records are the same things,
// which they are not where objects run together on one line.
func (b *batch) refusal(r client.Rejected, before int64, exact bool) Refusal {
	out := Refusal{Record: before + int64(r.Index) + 1, Reason: r.Reason, Detail: r.Detail}
	if exact && r.Index >= 0 && r.Index < len(b.lines) {
		out.Line = b.lines[r.Index]
		if m := b.misfits[r.Index]; m != "" {
			out.Detail = m
		}
	}
	return out
}
