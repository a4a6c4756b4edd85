package collect

import (
	"strconv"

	"naru/internal/web"
)

// Accepted is the number of events that went to their stream.
func (r *Request) Accepted() int {
	n := 0
	for i := range r.accepted {
		n += r.accepted[i].count
	}
	return n
}

// Rejected is the number of items that went to the stream `rejected`.
func (r *Request) Rejected() int { return r.rejected.count }

// count adds what was stored to the metrics.
func (r *Request) count() {
	r.door.accepted.Add(float64(r.Accepted()))
	for i, n := range r.refusals {
		if n > 0 {
			r.door.rejected[i].Add(float64(n))
		}
	}
	if r.e.watch != nil {
		r.show()
	}
	for _, b := range r.broken {
		r.e.metrics.violations.WithLabelValues(b.c.Type, b.rule, string(b.c.Mode)).Add(float64(b.n))
	}
}

// AppendResult appends the members of the answer to dst: "accepted",
// "rejected" (at most 100 items, then "rejected_count" too) and "positions" of
// the accepted events, without braces.
func (r *Request) AppendResult(dst []byte) []byte {
	dst = append(dst, `"accepted": `...)
	dst = strconv.AppendInt(dst, int64(r.Accepted()), 10)
	dst = append(dst, `, "rejected": [`...)
	for i := range r.refused {
		rej := &r.refused[i]
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, `{"index": `...)
		dst = strconv.AppendInt(dst, int64(rej.Index), 10)
		if rej.ID != "" {
			dst = append(dst, `, "id": `...)
			dst = web.AppendJSONString(dst, rej.ID)
		}
		dst = append(dst, `, "reason": `...)
		dst = web.AppendJSONString(dst, string(rej.Reason))
		dst = append(dst, `, "detail": `...)
		dst = web.AppendJSONString(dst, rej.Detail)
		dst = rej.appendContract(dst)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if n := r.Rejected(); n > len(r.refused) {
		dst = append(dst, `, "rejected_count": `...)
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	dst = append(dst, `, "positions": [`...)
	comma := false
	for i := range r.accepted {
		l := &r.accepted[i]
		if l.count == 0 || l.first >= len(r.at) {
			continue
		}
		last := l.first
		for last+1 < len(r.at) && r.writes[last+1].Partition == int32(i) && r.writes[last+1].RefusedFrom == "" {
			last++
		}
		if comma {
			dst = append(dst, ", "...)
		}
		comma = true
		dst = append(dst, `{"stream": `...)
		dst = web.AppendJSONString(dst, r.stream)
		dst = append(dst, `, "partition": `...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `, "first": `...)
		dst = strconv.AppendInt(dst, r.at[l.first].Offset, 10)
		dst = append(dst, `, "last": `...)
		dst = strconv.AppendInt(dst, r.at[last].Offset+int64(r.writes[last].Count)-1, 10)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendContract appends what was broken, and whom to ask.
func (rej *refused) appendContract(dst []byte) []byte {
	c := rej.contract
	if c == nil {
		return dst
	}
	member := func(name, value string) {
		if value != "" {
			dst = append(append(dst, ", "...), name...)
			dst = web.AppendJSONString(dst, value)
		}
	}
	member(`"rule": `, rej.Rule)
	member(`"path": `, rej.Path)
	member(`"contract": `, cutRef(c.ID))
	member(`"version": `, cutRef(c.Version))
	member(`"owner": `, cutRef(c.Owner))
	support := channels(c)
	for i, s := range support {
		if i == 0 {
			dst = append(dst, `, "support": [`...)
		} else {
			dst = append(dst, ", "...)
		}
		dst = web.AppendJSONString(dst, s)
	}
	if len(support) > 0 {
		dst = append(dst, ']')
	}
	return dst
}
