// Package columnar turns events into typed columns and columns into Parquet
// files that an Iceberg table can take as they are.
//
// A Schema says which JSON path fills which column; a Builder reads JSON
// straight into column buffers, lets the schema grow with what it meets, and
// writes one Parquet file for each partition; Rewrite gives an old file a newer
// schema. The rules are in docs/format/tables.md. The package knows no
// catalog: files are made through Options.Create, and committed by others.
package columnar

import "fmt"

// Kind is the type of a column.
type Kind uint8

// The kinds. The zero Kind is none.
const (
	Bool       Kind = iota + 1
	Long            // 64 bits, signed
	Int             // 32 bits, signed
	Double          // IEEE 754, 64 bits
	String          // UTF-8
	JSON            // UTF-8 that holds one JSON text; a string to Iceberg
	Binary          // bytes
	Timestamp       // microseconds since 1970-01-01T00:00:00Z (timestamptz)
	Date            // days since 1970-01-01
	ListBool        // the lists hold nullable elements
	ListLong        //
	ListDouble      //
	ListString      //
	Foreign         // a column that another writer added; never written here, its name and id are taken
)

// kindNames are the words of the table property (docs/format/tables.md).
var kindNames = [...]string{
	Bool: "bool", Long: "long", Int: "int", Double: "double", String: "string", JSON: "json",
	Binary: "binary", Timestamp: "timestamptz", Date: "date", ListBool: "list<bool>", ListLong: "list<long>",
	ListDouble: "list<double>", ListString: "list<string>", Foreign: "foreign",
}

// String gives the word used in the table property.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Iceberg gives the column's Iceberg type in text, as lake.Column.Type has it.
func (k Kind) Iceberg() string {
	switch k {
	case Bool:
		return "boolean"
	case JSON:
		return "string"
	case ListBool:
		return "list<boolean>"
	default:
		return k.String()
	}
}

// Element is the kind of a list's elements; 0 for what is no list.
func (k Kind) Element() Kind {
	switch k {
	case ListBool:
		return Bool
	case ListLong:
		return Long
	case ListDouble:
		return Double
	case ListString:
		return String
	default:
		return 0
	}
}

// IsList tells whether the column holds lists.
func (k Kind) IsList() bool { return k.Element() != 0 }

func parseKind(s string) (Kind, bool) {
	for k, name := range kindNames {
		if name == s && name != "" {
			return Kind(k), true
		}
	}
	return 0, false
}
