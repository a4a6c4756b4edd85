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

// judge holds events against contracts, and changes them as these say: one at a
// time.
type judge struct {
	scratch contract.Scratch
	text    []byte

	// Made when they are first needed: few types have personal data.
	keys     *contract.Keys
	cleaner  *contract.Cleaner
	digester *contract.Digester
	sent     []byte
}

// check returns what is wrong with an event, valid until it is used again. again:
// PII actions have changed it before. dry: leftOut is wanted.
func (j *judge) check(c *contract.Contract, data []byte, again, dry bool) []contract.Violation {
	j.scratch.Again, j.scratch.Tell = again, dry
	return c.Check(data, &j.scratch)
}

// leftOut are the places of the event's fields that make no column.
func (j *judge) leftOut() []string { return j.scratch.LeftOut }

// cleaned is an event as it is to be stored.
type cleaned struct {
	data    []byte // nil: it cannot be cleaned
	changed bool
	lost    bool // data is nil although something was sent
}

// clean does what the contract says about personal data. The answer is valid until
// it is used again.
func (j *judge) clean(c *contract.Contract, data []byte) cleaned {
	if len(data) == 0 {
		return cleaned{data: data}
	}
	return result(j.cleanerOf().Clean(c, data))
}

// cleanEnvelope is clean for a refused CloudEvent in JSON.
func (j *judge) cleanEnvelope(c *contract.Contract, data []byte) cleaned {
	return result(j.cleanerOf().CleanEnvelope(c, data))
}

func result(out []byte, changed, ok bool) cleaned {
	if !ok {
		return cleaned{changed: true, lost: true}
	}
	return cleaned{data: out, changed: changed}
}

func (j *judge) cleanerOf() *contract.Cleaner {
	if j.cleaner == nil {
		j.cleaner = contract.NewCleaner(j.keys)
	}
	return j.cleaner
}

// digest is what tells later whether an event that was changed is the same as
// another: of all that was sent, but for source and id.
func (j *judge) digest(it *Item) []byte {
	if j.digester == nil {
		j.digester = j.keys.Digester()
	}
	j.text = j.text[:0]
	for i := range it.Extensions {
		x := &it.Extensions[i]
		j.text = append(append(append(j.text, x.Name...), 0), x.Value...)
		j.text = append(j.text, 0)
	}
	j.sent = j.digester.Append(j.sent[:0], it.Type, it.Subject, it.ContentType, it.Time, j.text, it.Data)
	return j.sent
}

// notKept ends the detail of a rejection whose bytes are not stored.
const notKept = "; the bytes were not kept: they cannot be read, so the personal data that the contract names cannot be found in them"

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

// maxRef bounds what a contract says of itself in each record and answer, in bytes.
const maxRef = 128

func cutRef(s string) string { return shorten(s, maxRef) }

// addRef adds the headers that name a contract.
func addRef(h *recordbatch.Headers, c *contract.Contract) {
	h.Add(recordbatch.HeaderContract, cutRef(c.ID))
	h.Add(recordbatch.HeaderContractVersion, cutRef(c.Version))
	h.Add(recordbatch.HeaderContractHash, c.Hash)
}

// maxChannels bounds the places to ask that an answer names.
const maxChannels = 5

func channels(c *contract.Contract) []string {
	var out []string
	for _, s := range c.Support[:min(len(c.Support), maxChannels)] {
		out = append(out, cutRef(s.Channel))
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
	found := r.judge.check(c, it.Data, r.again.cleaned(), r.dry.on)
	refused := found != nil && c.Mode == contract.Enforce
	var rej *event.Rejection
	var kept []byte
	if found != nil {
		r.tally(c, found)
		switch {
		case r.dry.on:
			r.dry.found = appendViolations(nil, found)
		case !refused:
			kept = appendViolations(nil, found)
		}
		if refused {
			rej = refusal(found)
		}
	}
	changed := false
	if c.Cleans() {
		now := r.judge.clean(c, it.Data)
		if changed = now.changed; changed {
			it.sent = r.judge.digest(it)
			if it.Data = now.data; now.lost && refused {
				rej.Detail += notKept
			}
		}
	}
	if !refused {
		return r.accept(c, it, kept)
	}
	rej.ID, rej.Type, rej.Original, rej.Changed = string(it.ID), string(it.Type), it.Data, changed
	return r.refuse(rej, it, c)
}

// cleanRefused cleans an item that is refused for another reason, if it is known
// of what type it would have been.
func (r *Request) cleanRefused(rej *event.Rejection, it *Item) {
	c := r.contracts.For(rej.Type)
	if c == nil || !c.Cleans() || len(rej.Original) == 0 {
		return
	}
	var now cleaned
	if string(it.ContentType) == envelopeMedia {
		now = r.judge.cleanEnvelope(c, rej.Original)
	} else {
		now = r.judge.clean(c, rej.Original)
	}
	if rej.Changed = now.changed; now.lost {
		rej.Detail += notKept
	}
	rej.Original = now.data
}

// envelopeMedia is the media type of a rejected CloudEvent with its attributes.
const envelopeMedia = "application/cloudevents+json"
