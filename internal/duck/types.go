package duck

import (
	"fmt"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"
)

var simpleNames = map[duckdb.Type]string{
	duckdb.TypeBoolean: "BOOLEAN", duckdb.TypeTinyInt: "TINYINT", duckdb.TypeSmallInt: "SMALLINT", duckdb.TypeInteger: "INTEGER", duckdb.TypeBigInt: "BIGINT",
	duckdb.TypeUTinyInt: "UTINYINT", duckdb.TypeUSmallInt: "USMALLINT", duckdb.TypeUInteger: "UINTEGER", duckdb.TypeUBigInt: "UBIGINT",
	duckdb.TypeFloat: "FLOAT", duckdb.TypeDouble: "DOUBLE", duckdb.TypeHugeInt: "HUGEINT", duckdb.TypeUHugeInt: "UHUGEINT", duckdb.TypeBigNum: "BIGNUM",
	duckdb.TypeVarchar: "VARCHAR", duckdb.TypeBlob: "BLOB", duckdb.TypeBit: "BIT", duckdb.TypeUUID: "UUID", duckdb.TypeEnum: "ENUM",
	duckdb.TypeDate: "DATE", duckdb.TypeTime: "TIME", duckdb.TypeTimeNS: "TIME_NS", duckdb.TypeTimeTZ: "TIME WITH TIME ZONE", duckdb.TypeInterval: "INTERVAL",
	duckdb.TypeTimestamp: "TIMESTAMP", duckdb.TypeTimestampS: "TIMESTAMP_S", duckdb.TypeTimestampMS: "TIMESTAMP_MS", duckdb.TypeTimestampNS: "TIMESTAMP_NS",
	duckdb.TypeTimestampTZ: "TIMESTAMP WITH TIME ZONE", duckdb.TypeSQLNull: "NULL", duckdb.TypeVariant: "VARIANT", duckdb.TypeGeometry: "GEOMETRY",
}

// typeName is DuckDB's name of a type.
func typeName(t duckdb.LogicalType) string {
	if alias := duckdb.LogicalTypeGetAlias(t); alias != "" {
		return alias
	}
	of := func(t duckdb.LogicalType) string {
		defer duckdb.DestroyLogicalType(&t)
		return typeName(t)
	}
	switch id := duckdb.GetTypeId(t); id {
	case duckdb.TypeDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", duckdb.DecimalWidth(t), duckdb.DecimalScale(t))
	case duckdb.TypeList:
		return of(duckdb.ListTypeChildType(t)) + "[]"
	case duckdb.TypeArray:
		return fmt.Sprintf("%s[%d]", of(duckdb.ArrayTypeChildType(t)), duckdb.ArrayTypeArraySize(t))
	case duckdb.TypeMap:
		return "MAP(" + of(duckdb.MapTypeKeyType(t)) + ", " + of(duckdb.MapTypeValueType(t)) + ")"
	case duckdb.TypeStruct:
		var members []string
		for i := range duckdb.StructTypeChildCount(t) {
			name := duckdb.StructTypeChildName(t, i)
			if name != "" {
				name = ident(name) + " "
			}
			members = append(members, name+of(duckdb.StructTypeChildType(t, i)))
		}
		return "STRUCT(" + strings.Join(members, ", ") + ")"
	case duckdb.TypeUnion:
		var members []string
		for i := range duckdb.UnionTypeMemberCount(t) {
			members = append(members, ident(duckdb.UnionTypeMemberName(t, i))+" "+of(duckdb.UnionTypeMemberType(t, i)))
		}
		return "UNION(" + strings.Join(members, ", ") + ")"
	default:
		if name, ok := simpleNames[id]; ok {
			return name
		}
		return fmt.Sprintf("TYPE_%d", id)
	}
}

var icebergTypes = map[string]string{
	"boolean": "BOOLEAN", "int": "INTEGER", "long": "BIGINT", "float": "FLOAT", "double": "DOUBLE", "string": "VARCHAR", "binary": "BLOB", "uuid": "UUID",
	"date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE", "timestamp_ns": "TIMESTAMP_NS",
}

// columnType turns an Iceberg type (lake.Column.Type) into DuckDB's.
func columnType(iceberg string) (string, error) {
	t := strings.TrimSpace(iceberg)
	if name, ok := icebergTypes[t]; ok {
		return name, nil
	}
	if inner, ok := cutAround(t, "list<", ">"); ok {
		of, err := columnType(strings.TrimPrefix(inner, "element: "))
		if err != nil {
			return "", err
		}
		return of + "[]", nil
	}
	if inner, ok := cutAround(t, "decimal(", ")"); ok {
		var width, scale int
		if n, err := fmt.Sscanf(strings.ReplaceAll(inner, " ", ""), "%d,%d", &width, &scale); n == 2 && err == nil && 0 < width && width <= 38 && 0 <= scale && scale <= width {
			return fmt.Sprintf("DECIMAL(%d,%d)", width, scale), nil
		}
	}
	if _, ok := cutAround(t, "fixed[", "]"); ok {
		return "BLOB", nil
	}
	return "", fmt.Errorf("type %q cannot be queried", iceberg)
}

func cutAround(s, before, after string) (string, bool) {
	s, ok := strings.CutPrefix(s, before)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, after)
}

// ident quotes a name.
func ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal quotes a text.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
