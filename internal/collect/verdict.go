package collect

import (
	"strings"

	"naru/internal/contract"
	"naru/internal/event"
	"naru/internal/jsonscan"
	"naru/internal/recordbatch"
)

// Contracts gives the contracts in force; nil from it is none. It is asked once
// a request: all events of a request are judged by the same.
type Contracts func() *contract.Set

// Verdict is what the door says of an event.
type Verdict struct {
	// Refusal is nil for an event that is accepted. Index and Stream are not set.
	Refusal *event.Rejection
	// Data is the event as it is to be stored.
	Data []byte
	// Contract is the one that it was held against; zero for none.
	Contract event.Contract
	// Violations is what a contract that only observes found; nil for nothing.
	Violations []byte
	// JSONStrings are the paths of strings whose JSON becomes columns; nil for none.
	JSONStrings []byte
	// Owner and Support say whom to ask about the type; empty for a type without
	// a contract.
	Owner   string
	Support []string
}

// Judge says what the door would do with an event of a type now, without storing
// anything. again says that the bytes were stored before, and come from the
// stream `rejected`. Nothing of the verdict aliases data but Data itself. Safe
// for concurrent use.
func (e *Engine) Judge(typ, data []byte, again bool) Verdict {
	c := e.inForce().ForBytes(typ)
	if c == nil {
		return Verdict{Data: data}
	}
	j := e.judges.Get().(*judge)
	defer e.judges.Put(j)
	v := Verdict{Data: data, Contract: ref(c), JSONStrings: c.Embedded(), Owner: c.Owner, Support: channels(c)}
	if found := j.check(c, data, again); found != nil {
		if c.Mode == contract.Enforce {
			v.Refusal = refusal(found)
			v.Refusal.Original = data
			return v
		}
		v.Violations = appendViolations(nil, found)
	}
	return v
}

var noContracts = &contract.Set{}

// inForce are the contracts in force.
func (e *Engine) inForce() *contract.Set {
	if e.contracts != nil {
		if s := e.contracts(); s != nil {
			return s
		}
	}
	return noContracts
}

// judge holds events against contracts: one at a time.
type judge struct {
	scratch contract.Scratch
	text    []byte
}

// check returns what is wrong with an event, valid until it is used again.
func (j *judge) check(c *contract.Contract, data []byte, again bool) []contract.Violation {
	_ = again
	return c.Check(data, &j.scratch)
}

// refusal words violations as one rejection: the first names rule and path.
func refusal(found []contract.Violation) *event.Rejection {
	var b strings.Builder
	for i, v := range found {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(v.String())
	}
	return &event.Rejection{Reason: event.BadContract, Rule: found[0].Rule, Path: found[0].Path, Detail: b.String()}
}

// appendViolations appends violations as they are kept with a row.
func appendViolations(dst []byte, found []contract.Violation) []byte {
	for i := range found {
		v := &found[i]
		if i == 0 {
			dst = append(dst, '[')
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"rule":`...)
		dst = jsonscan.AppendQuoted(dst, []byte(v.Rule))
		dst = append(dst, `,"path":`...)
		dst = jsonscan.AppendQuoted(dst, []byte(v.Path))
		dst = append(dst, `,"detail":`...)
		dst = jsonscan.AppendQuoted(dst, []byte(v.String()))
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// maxRef bounds what a contract says of itself in each record, in bytes.
const maxRef = 128

func cutRef(s string) string { return s[:min(len(s), maxRef)] }

func ref(c *contract.Contract) event.Contract {
	return event.Contract{ID: []byte(cutRef(c.ID)), Version: []byte(cutRef(c.Version)), Hash: []byte(c.Hash)}
}

// addRef adds the headers that name a contract.
func addRef(h *recordbatch.Headers, c *contract.Contract) {
	h.Add(recordbatch.HeaderContract, cutRef(c.ID))
	h.Add(recordbatch.HeaderContractVersion, cutRef(c.Version))
	h.Add(recordbatch.HeaderContractHash, c.Hash)
}

func channels(c *contract.Contract) []string {
	var out []string
	for _, s := range c.Support {
		out = append(out, s.Channel)
	}
	return out
}

// broken counts violations of one rule of one contract.
type broken struct {
	c    *contract.Contract
	rule string
	n    int
}

// tally counts violations by contract and rule until the request is stored.
func (r *Request) tally(c *contract.Contract, found []contract.Violation) {
next:
	for i := range found {
		for k := range r.broken {
			if b := &r.broken[k]; b.c == c && b.rule == found[i].Rule {
				b.n++
				continue next
			}
		}
		r.broken = append(r.broken, broken{c, found[i].Rule, 1})
	}
}

// judged takes an event of a type that has a contract.
func (r *Request) judged(c *contract.Contract, it *Item) error {
	found := r.judge.check(c, it.Data, false)
	if found == nil {
		return r.accept(c, it, nil)
	}
	r.tally(c, found)
	if c.Mode == contract.Observe {
		r.judge.text = appendViolations(r.judge.text[:0], found)
		return r.accept(c, it, r.judge.text)
	}
	rej := refusal(found)
	rej.ID, rej.Type, rej.Original = string(it.ID), string(it.Type), it.Data
	return r.refuse(rej, it, c)
}
