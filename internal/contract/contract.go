// Package contract reads data contracts (Open Data Contract Standard 3.1, one
// schema object an event type) and judges events by them.
//
// Compile turns files into a Set, which never changes; Contract.Check judges
// the bytes of one event in one pass. docs/contracts.md says what each key of a
// file means.
package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"naru/internal/lake"
)

// Limits of contract files. What is beyond them is a mistake with its line.
const (
	MaxFile    = 1 << 20  // bytes of one file
	MaxFiles   = 1000     // files of a folder
	MaxTotal   = 16 << 20 // bytes of all files together
	MaxFields  = 2000     // fields of one event type
	MaxNesting = 32       // levels of objects and arrays in one event type
	MaxYAML    = 100      // levels of nesting in a file
	MaxNodes   = 200_000  // values in a file, those behind aliases included
	MaxPattern = 1000     // bytes of a pattern
	MaxProgram = 1000     // steps that RE2 makes of a pattern: each costs some nanoseconds a byte
	MaxEnum    = 10_000   // values of an enum
)

// Mode says what happens to an event that breaks its contract.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // it is refused
	Observe Mode = "observe" // it is kept, and the violation is counted
)

// Unknown says what happens to fields that the contract does not have.
type Unknown string

// What can happen to unknown fields.
const (
	Evolve  Unknown = "evolve"  // they become columns
	Freeze  Unknown = "freeze"  // they break the contract
	Discard Unknown = "discard" // they make no columns; the log has them
)

// PII is what is done with a personal value before it is stored.
type PII string

// The actions.
const (
	PIINone     PII = ""
	PIIDrop     PII = "drop"
	PIIHash     PII = "hash"
	PIITruncate PII = "truncate"
	PIIIP       PII = "ip"
)

// Contract is the agreed shape of one event type. It is read-only after Compile.
type Contract struct {
	Type    string `json:"type"` // schema[].name
	ID      string `json:"id"`
	Version string `json:"version"`
	// Hash is of the bytes of the file and of the JSON Schemas it refers to: the
	// first 16 bytes of SHA-256 in hex. Two contracts of one hash judge alike and
	// have the same shape.
	Hash   string `json:"hash"`
	File   string `json:"file"`
	Line   int    `json:"line"` // of the schema object
	Name   string `json:"name,omitempty"`
	Status string `json:"status"`
	Domain string `json:"domain,omitempty"`

	Description string `json:"description,omitempty"`

	Mode        Mode     `json:"mode"`
	Unknown     Unknown  `json:"unknown_fields"`
	Table       string   `json:"table,omitempty"`
	Partition   []string `json:"partition,omitempty"`
	Sort        []string `json:"sort,omitempty"`
	JSONStrings []string `json:"json_strings,omitempty"`

	Team    string    `json:"team,omitempty"`
	Owner   string    `json:"owner,omitempty"` // whom to ask
	Members []Member  `json:"members,omitempty"`
	Support []Channel `json:"support,omitempty"`
	SLA     []SLA     `json:"sla,omitempty"`
	Tags    []string  `json:"tags,omitempty"`
	Ingest  Ingestion `json:"ingestion,omitzero"`

	// Unique and PrimaryKey are paths whose uniqueness is a matter of the table.
	Unique     []string `json:"unique,omitempty"`
	PrimaryKey []string `json:"primary_key,omitempty"`

	Fields []Field `json:"fields"` // in the order of the file, parents first

	root      *node
	shape     *lake.Shape
	tableLine int // of naru.table

	partitionAt, sortAt *block // the keys, while the file is read
	partition           []lake.ShapePartition
	sort                []lake.ShapeSort

	envelope *node // a CloudEvent in JSON around it
	schema   *jsonSchema
	embedded []byte
}

// Embedded are the paths of strings whose JSON becomes columns, as a JSON array of
// texts; nil for none. A string within an array is judged and stays text.
func (c *Contract) Embedded() []byte { return c.embedded }

func (c *Contract) embed() {
	var paths []string
	for _, p := range c.JSONStrings {
		if !strings.Contains(p, "[]") {
			paths = append(paths, p)
		}
	}
	if len(paths) > 0 {
		c.embedded, _ = json.Marshal(paths) // texts cannot fail
	}
}

// Member is a person of the team.
type Member struct {
	Username string `json:"username"`
	Name     string `json:"name,omitempty"`
	Role     string `json:"role,omitempty"`
	Left     string `json:"left,omitempty"` // dateOut
}

// Channel is a place to ask.
type Channel struct {
	Channel string `json:"channel"`
	Tool    string `json:"tool,omitempty"`
	Scope   string `json:"scope,omitempty"`
	URL     string `json:"url,omitempty"`
}

// SLA is one of slaProperties.
type SLA struct {
	Property string `json:"property"`
	Value    string `json:"value"`
	Unit     string `json:"unit,omitempty"`
	Element  string `json:"element,omitempty"`
}

// Ingestion says where the data comes from.
type Ingestion struct {
	JobID          string `json:"job_id,omitempty"`
	SourceHost     string `json:"source_host,omitempty"`
	SourceDatabase string `json:"source_database,omitempty"`
	Type           string `json:"type,omitempty"` // full, incremental or cdc
	FrequencyMin   int    `json:"frequency_minutes,omitempty"`
	SourceOwner    string `json:"source_owner,omitempty"`
	IngestionOwner string `json:"ingestion_owner,omitempty"`
}

// Field is one property, for people: Check uses its compiled form.
type Field struct {
	Path           string   `json:"path"` // keys joined with '.', [] for the items of an array
	Type           string   `json:"type"`
	Required       bool     `json:"required,omitempty"`
	Rules          []Rule   `json:"rules,omitempty"`
	Description    string   `json:"description,omitempty"`
	Classification string   `json:"classification,omitempty"`
	Tags           []string `json:"tags,omitempty"`
	Personal       bool     `json:"personal,omitempty"` // its values are never shown
	PII            PII      `json:"pii,omitempty"`
	// Column is the type of its column where the contract decides it, as in
	// timestamptz; empty: data decide.
	Column string `json:"column,omitempty"`
	Line   int    `json:"line"`
}

// Rule is one rule of a field beside its type, as it stands in the file.
type Rule struct {
	Name  string   `json:"name"`
	Value string   `json:"value,omitempty"`
	Enum  []string `json:"enum,omitempty"` // JSON texts; only of the rule enum
}

// Personal tells how many fields hold personal data.
func (c *Contract) Personal() (n int) {
	for i := range c.Fields {
		if c.Fields[i].Personal {
			n++
		}
	}
	return n
}

// InForce tells whether events are judged by the contract: until it is retired.
func (c *Contract) InForce() bool { return c.Status != "retired" }

// Set is the contracts of a folder: an immutable value.
type Set struct {
	// Contracts are all of them, by type, then file.
	Contracts []*Contract
	// Notes are worth knowing and no mistakes.
	Notes Problems

	byType map[string]*Contract
}

// For gives the contract that events of a type are judged by; nil for none.
func (s *Set) For(typ string) *Contract {
	if s == nil {
		return nil
	}
	return s.byType[typ]
}

// ForBytes is For without a copy of the type.
func (s *Set) ForBytes(typ []byte) *Contract { return s.byType[string(typ)] }

// File is a file of contracts/: a contract (.yaml, .yml) or a JSON Schema that
// one refers to (.json).
type File struct {
	Name string // with forward slashes, as it is to be named in problems
	Data []byte
}

// IsContract tells whether a file of that name holds a contract.
func IsContract(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// Compile reads the files of a folder. All mistakes come back at once; a set
// comes back only when there is none.
func Compile(files []File) (*Set, Problems) {
	var problems, notes Problems
	set := &Set{byType: map[string]*Contract{}}
	others := map[string][]byte{}
	for _, f := range files {
		if !IsContract(f.Name) {
			others[f.Name] = f.Data
		}
	}
	for _, f := range files {
		if !IsContract(f.Name) {
			continue
		}
		d := &decoder{file: f.Name, others: others}
		found := d.contracts(f.Data)
		problems, notes = append(problems, d.problems.Sorted()...), append(notes, d.notes.Sorted()...)
		set.Contracts = append(set.Contracts, found...)
	}
	for _, c := range set.Contracts {
		if !c.InForce() {
			continue
		}
		if first := set.byType[c.Type]; first != nil {
			problems = append(problems, Problem{File: c.File, Line: c.Line, Key: "schema",
				Text: "the type " + c.Type + " has a contract already, in " + first.where() + ": one type has one contract; set status: retired in the other's file, or rename one"})
			continue
		}
		set.byType[c.Type] = c
	}
	if problems = append(problems, tables(set.byType)...); len(problems) > 0 {
		return nil, problems
	}
	slices.SortStableFunc(set.Contracts, func(a, b *Contract) int {
		if n := strings.Compare(a.Type, b.Type); n != 0 {
			return n
		}
		return strings.Compare(a.File, b.File)
	})
	set.Notes = notes
	return set, nil
}

// digest is the SHA-256 of some bytes.
func digest(text []byte) []byte {
	one := sha256.Sum256(text)
	return one[:]
}

// hashOf puts digests together.
func hashOf(digests ...[]byte) string {
	return hex.EncodeToString(digest(slices.Concat(digests...))[:16])
}
