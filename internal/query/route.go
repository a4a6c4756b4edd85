package query

// Route makes of a step that has been judged, and is SELECT * FROM input WHERE ..., one
// that keeps all rows and says in a column whether the condition is true.
func (s *Step) Route(column string) error {
	list, _ := s.doc["statements"].([]any)
	stmt, _ := list[0].(map[string]any)
	node, _ := stmt["node"].(map[string]any)
	where := node["where_clause"]
	if err := single(s, where); err != nil {
		return err
	}
	items, _ := node["select_list"].([]any)
	node["where_clause"] = nil
	node["select_list"] = append(items, map[string]any{"class": "CAST", "type": "OPERATOR_CAST", "alias": column, "query_location": 0, "child": where,
		"cast_type": map[string]any{"id": "BOOLEAN", "type_info": nil}, "try_cast": false})
	return nil
}

// single refuses what is several values in a list of columns.
func single(s *Step, v any) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := single(s, e); err != nil {
				return err
			}
		}
	case map[string]any:
		name, _ := v["function_name"].(string)
		switch name = lower(name); {
		case v["class"] == "SUBQUERY":
			return single(s, v["child"])
		case v["class"] == "STAR":
			return s.refuse(place(v), "* and COLUMNS cannot stand in a where: it is one condition over columns that it names")
		case v["class"] == "FUNCTION" && (name == "unnest" || name == "unlist"):
			return s.refuse(place(v), "UNNEST cannot stand in a where, which is about a row: list_contains(items, x) asks whether a list has an item")
		}
		for _, key := range walkOrder {
			if err := single(s, v[key]); err != nil {
				return err
			}
		}
	}
	return nil
}
