package event

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
)

// Incarnation names one life of a log: new for a new folder and after every
// repair that cuts, so that offsets of two lives are never mixed up.
type Incarnation [16]byte

// String gives the UUID text form (8-4-4-4-12 hexadecimal digits).
func (i Incarnation) String() string {
	var b [36]byte
	hex.Encode(b[0:8], i[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], i[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], i[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], i[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], i[10:16])
	return string(b[:])
}

// IsZero tells whether i names no incarnation.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// MarshalText implements encoding.TextMarshaler.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *Incarnation) UnmarshalText(b []byte) error {
	v, err := ParseIncarnation(string(b))
	if err != nil {
		return err
	}
	*i = v
	return nil
}

// ParseIncarnation reads the text form.
func ParseIncarnation(s string) (Incarnation, error) {
	var i Incarnation
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return i, fmt.Errorf("parse incarnation %q: not a UUID", s)
	}
	flat := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(i[:], []byte(flat)); err != nil {
		return i, fmt.Errorf("parse incarnation %q: %w", s, err)
	}
	return i, nil
}

// Position is a place in a stream. As a reader's position it is the first
// offset that is not yet covered.
type Position struct {
	Incarnation Incarnation `json:"incarnation"`
	Partition   int32       `json:"partition"`
	Offset      int64       `json:"offset"`
}

func (p Position) String() string {
	return fmt.Sprintf("%s/%d/%d", p.Incarnation, p.Partition, p.Offset)
}

// Span is a run of offsets [From, To) of one partition in one life of the log.
type Span struct {
	Incarnation Incarnation
	Partition   int32
	From, To    int64
}

// Positions say how far a reader has got: incarnation → partition → first
// offset not yet covered. The JSON form is {"<uuid>":{"0":17}}.
type Positions map[Incarnation]map[int32]int64

// Get returns the first offset not yet covered; ok is false where the reader
// has never been.
func (p Positions) Get(inc Incarnation, partition int32) (offset int64, ok bool) {
	offset, ok = p[inc][partition]
	return offset, ok
}

// Advance moves p up to at; it never moves back. It tells whether p changed.
func (p Positions) Advance(at Position) bool {
	m := p[at.Incarnation]
	if m == nil {
		m = map[int32]int64{}
		p[at.Incarnation] = m
	}
	if old, ok := m[at.Partition]; ok && old >= at.Offset {
		return false
	}
	m[at.Partition] = at.Offset
	return true
}

// Covers tells whether the event at that place is already covered.
func (p Positions) Covers(at Position) bool {
	next, ok := p.Get(at.Incarnation, at.Partition)
	return ok && at.Offset < next
}

// Clone returns a deep copy; nil gives an empty, usable map.
func (p Positions) Clone() Positions {
	c := make(Positions, len(p))
	for inc, m := range p {
		c[inc] = maps.Clone(m)
	}
	return c
}

// Equal tells whether both name the same places.
func (p Positions) Equal(q Positions) bool {
	return maps.EqualFunc(p, q, func(a, b map[int32]int64) bool { return maps.Equal(a, b) })
}

// String gives the JSON form, keys sorted.
func (p Positions) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// ParsePositions reads the JSON form.
func ParsePositions(s string) (Positions, error) {
	p := Positions{}
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf("parse positions: %w", err)
	}
	return p, nil
}
