package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Input is the table that a step reads: the events of a batch.
const Input = "input"

// RowColumn is the column that goes through all steps beside those that people see:
// the number of the event that a row was made of. No field of an event can take the
// name: columns have none with control characters.
const RowColumn = "_naru\x01row"

// hidden begins the names of all such columns.
const hidden = "_naru\x01"

// RouteColumn is the column that says whether a row goes to the n-th sink that chooses
// its rows.
func RouteColumn(n int) string { return fmt.Sprintf("%sto%d", hidden, n) }

// Carried is the column that goes through all steps and has what an attribute of the
// event was before them.
func Carried(attribute string) string { return hidden + attribute }

// guardSchema is where the engine keeps the functions that bound others.
const guardSchema = "_naru_guard"

// GuardSchema is the schema in which steps look for the functions of
// GuardedFunctions.
func GuardSchema() string { return guardSchema }

// Step is a step's statement on its way through the gate, which is that of queries
// and then asks that the statement is row-wise: what becomes of an event depends on
// that event alone, and on the tables of the lake.
type Step struct {
	*Statement
	// Tables are the tables of the lake that it reads, as it names them.
	Tables []Ref
	// Joins: the order of the rows that it makes of one event is not its own.
	Joins bool
	// Names are all that the step may call a column of the events; Stars: it takes
	// all that there are.
	Names []string
	Stars bool
	// Lists are those of Names that stand in an UNNEST, Using those in a USING.
	Lists, Using []string
	// Parts are the calls of StepFunctions that name a part by a constant text.
	Parts []Part
	// Carry are columns that go through the step as RowColumn does.
	Carry []string

	doc map[string]any // {"error": false, "statements": [...]}
	// places of tables in doc, beside Tables
	refs   []map[string]any
	inputs []map[string]any
}

// Part is a part that a function is asked for.
type Part struct {
	Function, Name string
	At             int // byte offset in Text of the call
}

// NewStep reads the text of a step.
func NewStep(sql string) (*Step, error) {
	s, err := NewStatement(sql)
	if err != nil {
		return nil, err
	}
	if s.Explain {
		return nil, s.refuse(-1, "a step is a SELECT over input, not an EXPLAIN")
	}
	s.own = stepFunctions
	return &Step{Statement: s}, nil
}

// StepFunctions are functions of naru's own that steps may call.
var StepFunctions = []string{"url_part", "agent_part", "referer_part", "geoip_part"}

var stepFunctions = func() map[string]bool {
	names := map[string]bool{}
	for _, name := range StepFunctions {
		names[name] = true
	}
	return names
}()

// Judge lets the step pass or says why not. tree is what json_serialize_sql
// answered for s.Inner, aggregate tells the names of functions over many rows.
func (s *Step) Judge(tree []byte, aggregate func(name string) bool) error {
	if err := s.Statement.Judge(tree); err != nil {
		return err
	}
	if s.ShowTables {
		return s.refuse(-1, "a step is a SELECT over input, not SHOW TABLES")
	}
	dec := json.NewDecoder(bytes.NewReader(tree))
	dec.UseNumber()
	if err := dec.Decode(&s.doc); err != nil {
		return fmt.Errorf("read tree of step: %w", err) // the gate has read it
	}
	list, _ := s.doc["statements"].([]any)
	stmt, _ := list[0].(map[string]any)
	r := rowwise{s: s, aggregate: aggregate}
	if err := r.everywhere(stmt, false); err != nil {
		return err
	}
	_, err := r.node(stmt["node"], nil)
	return err
}

// Text is the tree of the step with the tables under the names that it is given:
// input is the name of what the step reads, tables those of s.Tables.
func (s *Step) Text(input string, tables []string) ([]byte, error) {
	for _, ref := range s.inputs {
		ref["table_name"] = input
	}
	for i, ref := range s.refs {
		ref["schema_name"], ref["table_name"] = "", tables[i]
	}
	return json.Marshal(s.doc)
}

// rowwise walks a tree that the gate has let pass, and threads RowColumn through
// what reads the events.
type rowwise struct {
	s         *Step
	aggregate func(string) bool
}

// flow is the chain of WITH queries that have a row for each event or several.
type flow struct {
	outer *flow
	name  string
	flows bool
}

func (f *flow) find(name string) *flow {
	for ; f != nil; f = f.outer {
		if f.name == name {
			return f
		}
	}
	return nil
}

func (r *rowwise) refuse(obj map[string]any, format string, args ...any) error {
	return r.s.refuse(place(obj), format, args...)
}

// volatile functions give something else each time, so that reading events again
// would give other rows.
var volatile = map[string]string{
	"random": "", "uuid": "", "gen_random_uuid": "", "uuidv4": "", "uuidv7": "",
	"now": timeCure, "transaction_timestamp": timeCure, "today": timeCure, "current_date": timeCure, "get_current_time": timeCure, "get_current_timestamp": timeCure,
	"current_localtime": timeCure, "current_localtimestamp": timeCure,
	"current_database": "", "current_schema": "",
}

// clocks are names that mean a function when there is no such column.
var clocks = map[string]bool{"current_date": true, "current_time": true, "current_timestamp": true, "localtime": true, "localtimestamp": true}

// Constants are more such names. Of a step they are columns, which events may not
// have had yet.
var Constants = []string{"user", "current_user", "session_user", "current_role", "current_catalog", "current_schema"}

// children are the items of a list in a tree.
func children(v any, key ...string) []any {
	obj, _ := v.(map[string]any)
	list, _ := obj[append(key, "children")[0]].([]any)
	return list
}

const timeCure = "; take _received_at, the time at which the event came"

// everywhere refuses what may stand nowhere in a step, and names the guards of
// functions. table says that obj is a function in FROM.
func (r *rowwise) everywhere(v any, table bool) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := r.everywhere(e, false); err != nil {
				return err
			}
		}
	case string:
		if strings.Contains(v, hidden) {
			return r.refuse(nil, "the name %q is naru's own", v)
		}
	case map[string]any:
		if v["class"] == "CONSTANT" {
			return nil
		}
		if v["class"] == "FUNCTION" {
			name, _ := v["function_name"].(string)
			name = lower(name)
			if cure, ok := volatile[name]; ok {
				return r.refuse(v, "the function %s cannot stand in a step, because it gives something else each time: events that are read again must give the same rows%s", name, cure)
			}
			if args, _ := v["children"].([]any); name == "age" && len(args) == 1 {
				return r.refuse(v, "age of one time depends on today: write age(_received_at, ...)")
			}
			if name == "unnest" || name == "unlist" {
				for _, arg := range children(v) {
					if names := children(arg, "column_names"); len(names) > 0 {
						last, _ := names[len(names)-1].(string)
						r.s.Lists = append(r.s.Lists, last)
					}
				}
			}
			if args := children(v); stepFunctions[name] && len(args) > 0 {
				if part, ok := constantText(args[len(args)-1]); ok {
					r.s.Parts = append(r.s.Parts, Part{name, part, r.s.offset(place(v))})
				}
			}
			if guarded[name] > 0 && !table && (name != "replace" || lengthens(v)) {
				v["schema"] = guardSchema
			}
		}
		if v["class"] == "STAR" {
			r.s.Stars = true
		}
		if names := children(v, "column_names"); v["class"] == "COLUMN_REF" && len(names) == 1 {
			if name, _ := names[0].(string); clocks[lower(name)] {
				return r.refuse(v, "%s cannot stand in a step: events that are read again must give the same rows%s", lower(name), timeCure)
			}
		}
		for _, key := range []string{"column_names", "exclude_list", "key"} {
			r.names(v[key])
		}
		before := len(r.s.Names)
		r.names(v["using_columns"])
		r.s.Using = append(r.s.Using, r.s.Names[before:]...)
		isTable := v["type"] == "TABLE_FUNCTION"
		for _, key := range walkOrder {
			if e, ok := v[key]; ok {
				if err := r.everywhere(e, isTable && key == "function"); err != nil {
					return err
				}
			}
		}
		for _, key := range []string{"alias", "column_names", "column_name_alias", "aliases", "relation_name", "map"} {
			if err := r.everywhere(v[key], false); err != nil {
				return err
			}
		}
	}
	return nil
}

// names notes what may be the name of a column.
func (r *rowwise) names(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			r.names(e)
		}
	case string:
		r.s.Names = append(r.s.Names, v)
	}
}
