package query

import "strings"

// reads tells whether a part of the tree reads the events as a table.
func (r *rowwise) reads(v any, f *flow) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if r.reads(e, f) {
				return true
			}
		}
	case map[string]any:
		if v["type"] == "BASE_TABLE" && r.flows(v, f) {
			return true
		}
		for _, e := range v {
			if r.reads(e, f) {
				return true
			}
		}
	}
	return false
}

// flows tells whether a table is the events, or a WITH query over them.
func (r *rowwise) flows(ref map[string]any, f *flow) bool {
	schema, _ := ref["schema_name"].(string)
	name, _ := ref["table_name"].(string)
	if schema != "" {
		return false
	}
	if with := f.find(lower(name)); with != nil {
		return with.flows
	}
	return lower(name) == Input
}

// node walks a query that reads the events, and appends RowColumn, and what is
// carried, to what it selects.
func (r *rowwise) node(v any, f *flow) (*flow, error) {
	obj, _ := v.(map[string]any)
	switch obj["type"] {
	case "SELECT_NODE":
	case "SET_OPERATION_NODE":
		return nil, r.refuse(nil, "UNION, INTERSECT and EXCEPT cannot stand over input: write one SELECT, or a pipeline for each")
	default:
		return nil, r.refuse(nil, "WITH RECURSIVE cannot stand over input")
	}
	f, err := r.withs(obj, f)
	if err != nil {
		return nil, err
	}
	if err := r.plain(obj); err != nil {
		return nil, err
	}
	alias, err := r.from(obj["from_table"], f)
	if err != nil {
		return nil, err
	}
	if alias == "" {
		return nil, r.refuse(nil, "the step does not read input: write FROM input")
	}
	for _, key := range []string{"select_list", "where_clause", "from_table"} {
		if err := r.expr(obj[key], alias, f); err != nil {
			return nil, err
		}
	}
	list, _ := obj["select_list"].([]any)
	for _, name := range r.s.through() {
		list = append(list, column(alias, name))
	}
	obj["select_list"] = list
	return f, nil
}

// through are the columns that go through the step unseen.
func (s *Step) through() []string { return append([]string{RowColumn}, s.Carry...) }

// unseen are those for the list of a star that leaves them out.
func (s *Step) unseen() (list []any) {
	for _, name := range s.through() {
		list = append(list, name)
	}
	return list
}

func column(names ...any) map[string]any {
	return map[string]any{"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0, "column_names": names}
}

// withs walks the WITH queries of a SELECT.
func (r *rowwise) withs(obj map[string]any, f *flow) (*flow, error) {
	ctes, _ := obj["cte_map"].(map[string]any)
	list, _ := ctes["map"].([]any)
	for _, e := range list {
		pair, _ := e.(map[string]any)
		name, _ := pair["key"].(string)
		def, _ := pair["value"].(map[string]any)
		query, _ := def["query"].(map[string]any)
		if n := lower(name); n == Input || strings.HasPrefix(n, "_naru") {
			return nil, r.refuse(nil, "the name %s of a WITH query is taken: choose another", name)
		}
		flows := r.reads(query, f)
		if flows {
			if _, err := r.node(query["node"], f); err != nil {
				return nil, err
			}
		} else {
			r.others(query, f)
		}
		f = &flow{outer: f, name: lower(name), flows: flows}
	}
	return f, nil
}

// plain refuses what looks at more than one row.
func (r *rowwise) plain(obj map[string]any) error {
	refuse := func(what, cure string) error {
		return r.refuse(nil, "%s cannot stand over input: which events are read together is chance, and each must give its rows by itself%s", what, cure)
	}
	if list, _ := obj["modifiers"].([]any); len(list) > 0 {
		first, _ := list[0].(map[string]any)
		switch first["type"] {
		case "ORDER_MODIFIER":
			return refuse("ORDER BY", "; rows keep the order of the events")
		case "DISTINCT_MODIFIER":
			return refuse("DISTINCT", "; events with the id of an earlier one are dropped by dedupe")
		}
		return refuse("LIMIT", "; the step `sample: 10%` takes a part of the events")
	}
	groups, _ := obj["group_expressions"].([]any)
	sets, _ := obj["group_sets"].([]any)
	switch {
	case len(groups) > 0, len(sets) > 0, obj["aggregate_handling"] != "STANDARD_HANDLING", obj["having"] != nil:
		return refuse("GROUP BY", aggregateCure)
	case obj["qualify"] != nil:
		return refuse("QUALIFY", aggregateCure)
	case obj["sample"] != nil:
		return refuse("USING SAMPLE", "; the step `sample: 10%` takes a part of the events by their ids")
	}
	return nil
}

const aggregateCure = "; a model or a query over the table does that"

// from walks a FROM clause and gives the alias of the table in it that has the
// events; empty: none.
func (r *rowwise) from(v any, f *flow) (alias string, err error) {
	ref, _ := v.(map[string]any)
	if ref == nil {
		return "", nil
	}
	alias, _ = ref["alias"].(string)
	flows := r.reads(ref, f)
	if flows && ref["sample"] != nil {
		return "", r.refuse(ref, "TABLESAMPLE cannot stand over input; the step `sample: 10%%` takes a part of the events by their ids")
	}
	switch ref["type"] {
	case "BASE_TABLE":
		if !flows {
			r.others(ref, f)
			return "", nil
		}
		name, _ := ref["table_name"].(string)
		if list, _ := ref["column_name_alias"].([]any); len(list) > 0 {
			return "", r.refuse(ref, "names of columns cannot stand behind %s, which gets columns as events bring them: write SELECT a AS b", name)
		}
		if alias == "" {
			alias = name
			ref["alias"] = name
		}
		if f.find(lower(name)) == nil {
			r.s.inputs = append(r.s.inputs, ref)
		}
		return alias, nil
	case "JOIN":
		return r.join(ref, f)
	}
	if !flows {
		r.others(ref, f)
		return "", nil
	}
	if ref["type"] != "SUBQUERY" {
		return "", r.refuse(ref, "PIVOT, UNPIVOT and DESCRIBE cannot stand over input; UNNEST makes several rows of one")
	}
	if alias == "" {
		alias = "_naru_rows"
		ref["alias"] = alias
	}
	sub, _ := ref["subquery"].(map[string]any)
	_, err = r.node(sub["node"], f)
	return alias, err
}

func (r *rowwise) join(ref map[string]any, f *flow) (string, error) {
	left, err := r.from(ref["left"], f)
	if err != nil {
		return "", err
	}
	right, err := r.from(ref["right"], f)
	if err != nil {
		return "", err
	}
	if left == "" && right == "" {
		return "", nil
	}
	r.s.Joins = true
	if left != "" && right != "" {
		return "", r.refuse(ref, "input can be read once in a step: which events are read together is chance, so they cannot be joined with each other")
	}
	switch ref["ref_type"] {
	case "REGULAR", "CROSS", "ASOF", "DEPENDENT":
	case "NATURAL":
		return "", r.refuse(ref, "NATURAL JOIN cannot stand over input, which gets columns as events bring them: write USING (...)")
	default:
		return "", r.refuse(ref, "a POSITIONAL JOIN cannot stand over input")
	}
	kind, _ := ref["join_type"].(string)
	switch {
	case kind == "INNER", left != "" && (kind == "LEFT" || kind == "SEMI" || kind == "ANTI"), right != "" && kind == "RIGHT":
		return left + right, nil
	}
	return "", r.refuse(ref, "this %s JOIN would give rows that come of no event: input JOIN ... and input LEFT JOIN ... are possible", kind)
}

// others notes the tables of the lake in a part of the tree that does not read the
// events.
func (r *rowwise) others(v any, f *flow) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			r.others(e, f)
		}
	case map[string]any:
		if v["type"] == "BASE_TABLE" {
			r.note(v)
			return
		}
		for _, key := range walkOrder {
			r.others(v[key], f)
		}
		r.others(v["map"], f) // of WITH
	}
}

// note adds a table, if it is among those that the gate has found: it left out the
// names of WITH queries.
func (r *rowwise) note(ref map[string]any) {
	schema, _ := ref["schema_name"].(string)
	name, _ := ref["table_name"].(string)
	at := r.s.offset(place(ref))
	for _, known := range r.s.Refs {
		if known.Schema == schema && known.Name == name && known.At == at {
			if ref["alias"] == "" {
				ref["alias"] = name
			}
			r.s.Tables, r.s.refs = append(r.s.Tables, known), append(r.s.refs, ref)
			return
		}
	}
}

// expr walks expressions over the events. It goes into FROM for the conditions of
// joins and the arguments of functions.
func (r *rowwise) expr(v any, alias string, f *flow) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := r.expr(e, alias, f); err != nil {
				return err
			}
		}
	case map[string]any:
		switch v["class"] {
		case "SUBQUERY":
			if r.reads(v["subquery"], f) {
				return r.refuse(v, "input can be read once in a step, in its FROM: a query within it reads tables of the lake, and may name columns of the event")
			}
			r.s.Joins = true
			r.others(v["subquery"], f)
			return r.expr(v["child"], alias, f)
		case "POSITIONAL_REFERENCE":
			return r.refuse(v, "columns of input have no number: write their names")
		case "WINDOW":
			name, _ := v["function_name"].(string)
			return r.refuse(v, "the window function %s cannot stand over input: which events are read together is chance%s", lower(name), aggregateCure)
		case "FUNCTION":
			if name, _ := v["function_name"].(string); r.aggregate(lower(name)) {
				return r.refuse(v, "the aggregate %s cannot stand over input: which events are read together is chance%s%s", lower(name), aggregateCure, overList(lower(name)))
			}
		case "STAR":
			return r.star(v, alias, f)
		case "COLUMN_REF":
			if names, _ := v["column_names"].([]any); len(names) == 1 {
				if name, _ := names[0].(string); lower(name) == lower(alias) {
					return r.refuse(v, "%s names the whole event: name columns, or write struct_pack(a := a, b := b)", name)
				}
			}
			return nil
		}
		if t := v["type"]; t == "BASE_TABLE" || t == "SUBQUERY" && v["class"] == nil {
			return nil // walked by from
		}
		for _, key := range walkOrder {
			if err := r.expr(v[key], alias, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func overList(name string) string {
	if !functions["list_"+name] {
		return ""
	}
	return "; over a list there is list_" + name
}

// star leaves the columns that nobody sees out of * and COLUMNS.
func (r *rowwise) star(v map[string]any, alias string, f *flow) error {
	if of, _ := v["relation_name"].(string); of != "" && lower(of) != lower(alias) {
		return nil
	}
	for _, key := range []string{"replace_list", "expr"} {
		if err := r.expr(v[key], alias, f); err != nil {
			return err
		}
	}
	pattern, isText := constantText(v["expr"])
	switch {
	case isText:
		v["expr"] = matching(pattern, r.s.unseen())
	case v["expr"] == nil:
		list, _ := v["exclude_list"].([]any)
		v["exclude_list"] = append(list, r.s.unseen()...)
	}
	return nil
}

// matching is what COLUMNS('pattern') means, without the columns that nobody sees.
func matching(pattern string, unseen []any) map[string]any {
	text := func(s string) map[string]any {
		return map[string]any{"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": 0,
			"value": map[string]any{"type": map[string]any{"id": "VARCHAR", "type_info": nil}, "is_null": false, "value": s}}
	}
	call := func(name string, args ...any) map[string]any {
		return map[string]any{"class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": 0, "function_name": name, "schema": "", "catalog": "", "children": args,
			"filter": nil, "order_bys": map[string]any{"type": "ORDER_MODIFIER", "orders": []any{}}, "distinct": false, "is_operator": false, "export_state": false}
	}
	all := map[string]any{"class": "STAR", "type": "STAR", "alias": "", "query_location": 0, "relation_name": "", "exclude_list": unseen, "replace_list": []any{},
		"columns": false, "expr": nil, "qualified_exclude_list": []any{}, "rename_list": []any{}}
	return call("list_filter", all, map[string]any{"class": "LAMBDA", "type": "LAMBDA", "alias": "", "query_location": 0,
		"lhs": column("_naru_name"), "expr": call("regexp_matches", column("_naru_name"), text(pattern))})
}
