package query

import "slices"

// countsRows tells whether a statement is SELECT count(*) FROM t, under whatever
// alias and as often as it likes, and nothing else: whoever knows how many rows the
// table has need not read them. It knows that one shape; a part of the tree that it
// does not expect is a reason to read.
func countsRows(statement map[string]any) bool {
	node, _ := statement["node"].(map[string]any)
	if node["type"] != "SELECT_NODE" || !only(node, "type", "select_list", "from_table", "aggregate_handling") || node["aggregate_handling"] != "STANDARD_HANDLING" {
		return false
	}
	from, _ := node["from_table"].(map[string]any)
	if from["type"] != "BASE_TABLE" || !only(from, "type", "alias", "catalog_name", "schema_name", "table_name") {
		return false
	}
	list, _ := node["select_list"].([]any)
	for _, e := range list {
		f, _ := e.(map[string]any)
		if f["class"] != "FUNCTION" || f["function_name"] != "count_star" || !only(f, "class", "type", "alias", "function_name", "order_bys") {
			return false
		}
		order, _ := f["order_bys"].(map[string]any)
		if !only(order, "type") {
			return false
		}
	}
	return len(list) > 0
}

// only tells whether nothing but the places of words, and what is named, says
// anything in a part of a tree.
func only(part map[string]any, names ...string) bool {
	for name, v := range part {
		if name == "query_location" {
			continue
		}
		if says(v) && !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// says tells whether a value in a tree is more than a default.
func says(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		for _, e := range v {
			if says(e) {
				return true
			}
		}
		return false
	}
	return true
}
