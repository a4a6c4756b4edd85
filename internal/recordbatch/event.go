package recordbatch

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"naru/internal/event"
)

// Header names. The ce_ ones and content-type are the CloudEvents Kafka
// binding's; the naru_ ones are ours (docs/format/records.md).
const (
	HeaderSpecVersion = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderSource      = "ce_source"
	HeaderType        = "ce_type"
	HeaderSubject     = "ce_subject"
	HeaderTime        = "ce_time" // RFC 3339
	HeaderContentType = "content-type"
	// HeaderIDOrigin is "generated" when naru made the id.
	HeaderIDOrigin = "naru_id"

	// HeaderSent is the digest of the bytes as they were sent (docs/format/records.md)
	// where the value is not what was sent.
	HeaderSent = "naru_sent"
	// The contract that the event was held against.
	HeaderContract        = "naru_contract"
	HeaderContractVersion = "naru_contract_version"
	HeaderContractHash    = "naru_contract_hash"
	// HeaderViolations is what a contract that only observes found.
	HeaderViolations = "naru_violations"
	// HeaderJSONStrings is the paths of strings whose JSON becomes columns.
	HeaderJSONStrings = "naru_json_strings"

	// On records of the stream `rejected`.
	HeaderReason       = "naru_reason"
	HeaderDetail       = "naru_detail"
	HeaderStream       = "naru_stream"
	HeaderRefusedType  = "naru_type"
	HeaderRefusedID    = "naru_event_id"
	HeaderRefusedIndex = "naru_index"
	HeaderRule         = "naru_rule"
	HeaderPath         = "naru_path"
	// HeaderAt is where the event stands that a pipeline has refused.
	HeaderAt = "naru_at"
	// HeaderChanged is "pii" when the value is not byte for byte as it was sent.
	HeaderChanged = "naru_changed"
)

// ChangedPII is the value of HeaderChanged.
const ChangedPII = "pii"

// RejectionType is the ce_type of a rejection's record.
const RejectionType = "naru.rejection"

// EventHeaders adds all headers of e to h.
func EventHeaders(h *Headers, e *event.Event) {
	h.Add(HeaderSpecVersion, "1.0")
	h.AddBytes(HeaderID, e.ID)
	h.AddBytes(HeaderSource, e.Source)
	h.AddBytes(HeaderType, e.Type)
	if e.ContentType == nil {
		h.Add(HeaderContentType, "application/json")
	} else {
		h.AddBytes(HeaderContentType, e.ContentType)
	}
	if e.Subject != nil {
		h.AddBytes(HeaderSubject, e.Subject)
	}
	if !e.Time.IsZero() {
		h.Add(HeaderTime, e.Time.Format(time.RFC3339Nano))
	}
	if e.GeneratedID {
		h.Add(HeaderIDOrigin, "generated")
	}
	if e.Sent != nil {
		h.AddBytes(HeaderSent, e.Sent)
	}
	for _, x := range e.Extensions {
		h.AddBytes("ce_"+string(x.Name), x.Value)
	}
	if e.Contract.ID != nil {
		h.AddBytes(HeaderContract, e.Contract.ID)
		h.AddBytes(HeaderContractVersion, e.Contract.Version)
		h.AddBytes(HeaderContractHash, e.Contract.Hash)
	}
	if e.JSONStrings != nil {
		h.AddBytes(HeaderJSONStrings, e.JSONStrings)
	}
	if e.Violations != nil {
		h.AddBytes(HeaderViolations, e.Violations)
	}
	if r := e.Refusal; r != nil {
		h.Add(HeaderReason, string(r.Reason))
		h.Add(HeaderDetail, r.Detail)
		h.Add(HeaderStream, r.Stream)
		h.Add(HeaderRefusedType, r.Type)
		h.Add(HeaderRefusedID, r.ID)
		h.Add(HeaderRefusedIndex, strconv.Itoa(r.Index))
		if r.Rule != "" {
			h.Add(HeaderRule, r.Rule)
			h.Add(HeaderPath, r.Path)
		}
		if r.At != "" {
			h.Add(HeaderAt, r.At)
		}
		if r.Changed {
			h.Add(HeaderChanged, ChangedPII)
		}
	}
}

// setHeader puts a header, other than id and time, into e. Both slices alias the
// batch.
func setHeader(e *event.Event, name, value []byte) error {
	switch string(name) {
	case HeaderSpecVersion:
	case HeaderSource:
		e.Source = value
	case HeaderType:
		e.Type = value
	case HeaderSubject:
		e.Subject = value
	case HeaderContentType:
		e.ContentType = value
	case HeaderIDOrigin:
		e.GeneratedID = string(value) == "generated"
	case HeaderSent:
		e.Sent = value
	case HeaderContract:
		e.Contract.ID = value
	case HeaderContractVersion:
		e.Contract.Version = value
	case HeaderContractHash:
		e.Contract.Hash = value
	case HeaderViolations:
		e.Violations = value
	case HeaderJSONStrings:
		e.JSONStrings = value
	default:
		if len(name) > 3 && string(name[:3]) == "ce_" {
			e.Extensions = append(e.Extensions, event.Attr{Name: name[3:], Value: value})
			return nil
		}
		return setRefusal(e, name, value)
	}
	return nil
}

func setRefusal(e *event.Event, name, value []byte) error {
	if len(name) < 5 || string(name[:5]) != "naru_" {
		return nil // a foreign header
	}
	if e.Refusal == nil {
		e.Refusal = &event.Rejection{}
	}
	r := e.Refusal
	switch string(name) {
	case HeaderReason:
		r.Reason = event.Reason(value)
	case HeaderDetail:
		r.Detail = string(value)
	case HeaderStream:
		r.Stream = string(value)
	case HeaderRefusedType:
		r.Type = string(value)
	case HeaderRefusedID:
		r.ID = string(value)
	case HeaderRefusedIndex:
		n, err := strconv.Atoi(string(value))
		if err != nil {
			return fmt.Errorf("%w: header %s: %q", ErrMalformed, name, value)
		}
		r.Index = n
	case HeaderRule:
		r.Rule = string(value)
	case HeaderPath:
		r.Path = string(value)
	case HeaderAt:
		r.At = string(value)
	case HeaderChanged:
		r.Changed = string(value) == ChangedPII
	}
	return nil
}

// readVarint reads a zigzag varint; n is 0 when there is none.
func readVarint(b []byte) (v int64, n int) {
	if len(b) > 0 && b[0] < 0x80 { // most lengths
		u := uint64(b[0])
		return int64(u>>1) ^ -int64(u&1), 1
	}
	v, n = binary.Varint(b)
	return v, max(n, 0)
}
