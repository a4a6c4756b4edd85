package columnar

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Property is the Iceberg table property that holds the map from JSON paths
// to columns, as MarshalProperty writes it.
const Property = "naru.columns"

// propertyVersion is raised when an older naru could misread the property.
const propertyVersion = 1

type propertyText struct {
	Version int             `json:"v"`
	Layout  string          `json:"layout"`
	Last    int             `json:"last"`
	Fields  []propertyField `json:"fields"`
}

type propertyField struct {
	ID      int    `json:"i"`
	Kind    string `json:"k"`
	Path    string `json:"p,omitempty"`
	Name    string `json:"n,omitempty"` // absent when the path alone gives it
	Element int    `json:"e,omitempty"`
	Dropped bool   `json:"x,omitempty"`
}

var layoutNames = map[Layout]string{Flat: "flat", Rejected: "rejected", Whole: "whole"}

// MarshalProperty writes the map for the table property (docs/format/tables.md).
func (s *Schema) MarshalProperty() string {
	t := propertyText{Version: propertyVersion, Layout: layoutNames[s.Layout], Last: s.LastID}
	for _, f := range s.Fields {
		p := propertyField{ID: f.ID, Kind: f.Kind.String(), Path: f.Path, Name: f.Name, Element: f.ElementID, Dropped: f.Dropped}
		if f.Path != "" && columnName(f.Path) == f.Name {
			p.Name = ""
		}
		t.Fields = append(t.Fields, p)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t); err != nil {
		panic("columnar: marshal property: " + err.Error()) // plain strings and numbers
	}
	return string(bytes.TrimRight(b.Bytes(), "\n"))
}

// ParseSchema reads the table property.
func ParseSchema(property string) (*Schema, error) {
	var t propertyText
	if err := json.Unmarshal([]byte(property), &t); err != nil {
		return nil, fmt.Errorf("parse table property %s: %w", Property, err)
	}
	if t.Version != propertyVersion {
		return nil, fmt.Errorf("parse table property %s: version %d, this naru reads version %d", Property, t.Version, propertyVersion)
	}
	s := &Schema{LastID: t.Last}
	known := false
	for l, name := range layoutNames {
		if name == t.Layout {
			s.Layout, known = l, true
		}
	}
	if !known {
		return nil, fmt.Errorf("parse table property %s: unknown layout %q", Property, t.Layout)
	}
	ids := map[int]bool{}
	paths := map[string]bool{}
	for _, p := range t.Fields {
		f := Field{ID: p.ID, ElementID: p.Element, Name: p.Name, Path: p.Path, Dropped: p.Dropped}
		var ok bool
		if f.Kind, ok = parseKind(p.Kind); !ok {
			return nil, fmt.Errorf("parse table property %s: field %d: unknown kind %q", Property, p.ID, p.Kind)
		}
		if f.Name == "" {
			f.Name = columnName(f.Path)
		}
		for _, id := range f.ids() {
			if id < 1 || id > s.LastID || ids[id] {
				return nil, fmt.Errorf("parse table property %s: field %d: bad id %d", Property, f.ID, id)
			}
			ids[id] = true
		}
		if f.Path != "" && paths[f.Path] {
			return nil, fmt.Errorf("parse table property %s: path %q twice", Property, f.Path)
		}
		paths[f.Path] = true
		s.Fields = append(s.Fields, f)
	}
	if err := s.complete(); err != nil {
		return nil, err
	}
	return s, nil
}

// ids lists the ids that a field takes.
func (f Field) ids() []int {
	if f.Kind.IsList() || f.ElementID != 0 {
		return []int{f.ID, f.ElementID}
	}
	return []int{f.ID}
}

// complete checks that no column is missing that naru itself fills.
func (s *Schema) complete() error {
	for _, want := range newSchema(s.Layout).Fields {
		f, ok := s.ByID(want.ID)
		if !ok || f.Kind != want.Kind || f.Path != want.Path || f.Dropped && f.Path == "" {
			return fmt.Errorf("parse table property %s: column %s (id %d, %s) is missing", Property, want.Name, want.ID, want.Kind)
		}
	}
	return nil
}

func newSchema(l Layout) *Schema {
	switch l {
	case Rejected:
		return NewRejectedSchema()
	case Whole:
		return NewWholeSchema()
	default:
		return NewSchema()
	}
}
