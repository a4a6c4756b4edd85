package query

// field says what stands in a field of the tree.
type field int

const (
	plain     field = iota // text, numbers, booleans, or lists of them
	data                   // a constant: anything, it is not looked at
	nothing                // must be empty
	elsewhere              // walked by hand
	statement              // {"node": ...}
	node                   // SELECT_NODE, ...
	ref                    // BASE_TABLE, JOIN, ...
	expr                   // an expression
	exprs                  // a list of expressions
	exprLists              // a list of lists of expressions
	part                   // an object described in partFields under the field's name
	parts                  // a list of those
)

// walkOrder fixes the order in which fields are walked: what stands left in the
// statement first. Every field that is not plain must be here (a test checks).
var walkOrder = []string{
	"node", "left", "query", "source", "from_table", "select_list", "function", "values", "key_targets",
	"input", "lower", "upper", "case_checks", "when_expr", "then_expr", "else_expr",
	"child", "children", "lhs", "expr", "value", "replace_list", "rename_list", "key", "qualified_exclude_list", "cast_type", "type_info",
	"partitions", "orders", "arg_orders", "expression", "start_expr", "end_expr", "offset_expr", "default_expr", "filter_expr",
	"filter", "order_bys", "subquery", "right", "condition", "duplicate_eliminated_columns", "aggregates", "pivots", "pivot_expressions", "entries", "star_expr", "pivot_enum", "groups",
	"where_clause", "group_expressions", "having", "qualify", "modifiers", "distinct_on_targets", "limit", "offset", "sample", "sample_size",
	"cte_map", "named_param_map", "at_clause", "expected_types", "child_types", "child_type", "second", "user_type_modifiers", "extension_info",
}

var statementFields = map[string]field{"node": node, "named_param_map": nothing}

var nodeFields = map[string]map[string]field{
	"SELECT_NODE": {"type": plain, "modifiers": parts, "cte_map": elsewhere, "select_list": exprs, "from_table": ref, "where_clause": expr, "group_expressions": exprs,
		"group_sets": plain, "aggregate_handling": plain, "having": expr, "sample": part, "qualify": expr},
	"SET_OPERATION_NODE": {"type": plain, "modifiers": parts, "cte_map": elsewhere, "setop_type": plain, "left": node, "right": node, "setop_all": plain},
	"RECURSIVE_CTE_NODE": {"type": plain, "modifiers": parts, "cte_map": elsewhere, "cte_name": plain, "union_all": plain, "left": node, "right": node, "aliases": plain, "key_targets": exprs},
}

var cteFields = map[string]field{"aliases": plain, "query": statement, "materialized": plain, "key_targets": exprs}

// with adds what every kind of a family has.
func with(common, own map[string]field) map[string]field {
	for k, f := range common {
		own[k] = f
	}
	return own
}

var refCommon = map[string]field{"type": plain, "alias": plain, "sample": part, "query_location": plain}

var refFields = map[string]map[string]field{
	"BASE_TABLE": with(refCommon, map[string]field{"schema_name": plain, "table_name": plain, "column_name_alias": plain, "catalog_name": plain, "at_clause": nothing}),
	"SUBQUERY":   with(refCommon, map[string]field{"subquery": statement, "column_name_alias": plain}),
	"JOIN": with(refCommon, map[string]field{"left": ref, "right": ref, "condition": expr, "join_type": plain, "ref_type": plain, "using_columns": plain,
		"delim_flipped": plain, "duplicate_eliminated_columns": exprs}),
	"TABLE_FUNCTION":  with(refCommon, map[string]field{"function": expr, "column_name_alias": plain, "with_ordinality": plain}),
	"EXPRESSION_LIST": with(refCommon, map[string]field{"expected_names": plain, "expected_types": nothing, "values": exprLists}),
	"EMPTY":           refCommon,
	"PIVOT": with(refCommon, map[string]field{"source": ref, "aggregates": exprs, "unpivot_names": plain, "pivots": parts, "groups": plain,
		"column_name_alias": plain, "include_nulls": plain}),
	"SHOW_REF": with(refCommon, map[string]field{"query": node, "show_type": plain, "table_name": plain, "schema_name": plain, "catalog_name": plain}),
}

var exprCommon = map[string]field{"class": plain, "type": plain, "alias": plain, "query_location": plain}

var exprFields = map[string]map[string]field{
	"COLUMN_REF":           with(exprCommon, map[string]field{"column_names": plain}),
	"CONSTANT":             with(exprCommon, map[string]field{"value": data}),
	"DEFAULT":              exprCommon,
	"POSITIONAL_REFERENCE": with(exprCommon, map[string]field{"index": plain}),
	"FUNCTION": with(exprCommon, map[string]field{"function_name": plain, "schema": plain, "catalog": plain, "children": exprs, "filter": expr, "order_bys": part,
		"distinct": plain, "is_operator": plain, "export_state": plain}),
	"COMPARISON":  with(exprCommon, map[string]field{"left": expr, "right": expr}),
	"CONJUNCTION": with(exprCommon, map[string]field{"children": exprs}),
	"OPERATOR":    with(exprCommon, map[string]field{"children": exprs}),
	"CAST":        with(exprCommon, map[string]field{"child": expr, "cast_type": part, "try_cast": plain}),
	"CASE":        with(exprCommon, map[string]field{"case_checks": parts, "else_expr": expr}),
	"BETWEEN":     with(exprCommon, map[string]field{"input": expr, "lower": expr, "upper": expr}),
	"COLLATE":     with(exprCommon, map[string]field{"child": expr, "collation": plain}),
	"LAMBDA":      with(exprCommon, map[string]field{"lhs": expr, "expr": expr}),
	"SUBQUERY":    with(exprCommon, map[string]field{"subquery_type": plain, "subquery": statement, "child": expr, "comparison_type": plain}),
	"STAR": with(exprCommon, map[string]field{"relation_name": plain, "exclude_list": plain, "replace_list": parts, "columns": plain, "expr": expr,
		"qualified_exclude_list": parts, "rename_list": parts}),
	"WINDOW": with(exprCommon, map[string]field{"function_name": plain, "schema": plain, "catalog": plain, "children": exprs, "partitions": exprs, "orders": parts,
		"start": plain, "end": plain, "start_expr": expr, "end_expr": expr, "offset_expr": expr, "default_expr": expr, "ignore_nulls": plain, "filter_expr": expr,
		"exclude_clause": plain, "distinct": plain, "arg_orders": parts}),
}

var modifierFields = map[string]map[string]field{
	"ORDER_MODIFIER":         {"type": plain, "orders": parts},
	"LIMIT_MODIFIER":         {"type": plain, "limit": expr, "offset": expr},
	"LIMIT_PERCENT_MODIFIER": {"type": plain, "limit": expr, "offset": expr},
	"DISTINCT_MODIFIER":      {"type": plain, "distinct_on_targets": exprs},
}

var orderFields = map[string]field{"type": plain, "null_order": plain, "expression": expr}

var columnName = map[string]field{"catalog": plain, "schema": plain, "table": plain, "column": plain}

var typeFields = map[string]field{"id": plain, "type_info": part}

// partFields describes objects that have no kind of their own, by the field
// that they stand in.
var partFields = map[string]map[string]field{
	"modifiers":              nil, // by modifierFields
	"order_bys":              nil,
	"orders":                 orderFields,
	"arg_orders":             orderFields,
	"sample":                 {"sample_size": data, "is_percentage": plain, "method": plain, "seed": plain},
	"case_checks":            {"when_expr": expr, "then_expr": expr},
	"replace_list":           {"key": plain, "value": expr},
	"rename_list":            {"key": part, "value": plain},
	"key":                    columnName,
	"qualified_exclude_list": columnName,
	"pivots":                 {"pivot_expressions": exprs, "unpivot_names": plain, "entries": parts, "pivot_enum": nothing},
	"entries":                {"values": data, "star_expr": expr, "alias": plain},
	"cast_type":              typeFields,
	"child_type":             typeFields,
	"second":                 typeFields,
	"child_types":            {"first": plain, "second": part},
	"type_info": {"type": plain, "alias": plain, "extension_info": nothing, "width": plain, "scale": plain, "child_type": part, "child_types": parts, "size": plain,
		"name": plain, "catalog": plain, "schema": plain, "user_type_modifiers": data, "collation": plain, "values_count": plain, "values": data},
}
