package transform

import (
	"fmt"

	"naru/internal/geoip"
	"naru/internal/visit"
)

// Steps over what browsers send: parts become columns, whose names begin with that
// of the column that they are parts of, or with `as`.

// partsOf gives a column for each part of another.
func partsOf(as string, parts []string, value func(part string) string) (columns []pair) {
	for _, p := range parts {
		columns = append(columns, pair{as + "_" + p, value(p)})
	}
	return columns
}

func call(function string, args ...string) string {
	text := function + "("
	for i, a := range args {
		if i > 0 {
			text += ", "
		}
		text += a
	}
	return text + ")"
}

// textOf is a column as text, whatever its type.
func textOf(column string) string { return "CAST(" + ident(column) + " AS VARCHAR)" }

// url: column, or {column: c, as: prefix, query: {name: parameter}}
func urlSQL(f *form) string {
	var as string
	var params []pair
	name, ok := f.column(map[string]*string{"as": &as}, map[string]*[]pair{"query": &params})
	if !ok {
		return ""
	}
	if as == "" {
		as = name
	}
	part := func(p string) string { return call("url_part", textOf(name), literal(p)) }
	columns := partsOf(as, visit.URLParts, part)
	for _, p := range params {
		columns = append(columns, pair{p.name, part("query." + p.value)})
	}
	return with(columns)
}

// utm: column
func utmSQL(f *form) string {
	name, ok := f.column(nil, nil)
	if !ok {
		return ""
	}
	var columns []pair
	for _, p := range visit.UTMParts {
		columns = append(columns, pair{p, call("url_part", textOf(name), literal("query."+p))})
	}
	return with(columns)
}

// user_agent: column, or {column: c, as: prefix}
func agentSQL(f *form) string {
	var as string
	name, ok := f.column(map[string]*string{"as": &as}, nil)
	if !ok {
		return ""
	}
	if as == "" {
		as = name
	}
	return with(partsOf(as, visit.AgentParts, func(p string) string { return call("agent_part", textOf(name), literal(p)) }))
}

// referer: column, or {column: c, page: column, as: prefix}
func refererSQL(f *form) string {
	var as, page string
	name, ok := f.column(map[string]*string{"as": &as, "page": &page}, nil)
	if !ok {
		return ""
	}
	if as == "" {
		as = name
	}
	visited := "''"
	if page != "" {
		visited = "coalesce(" + textOf(page) + ", '')"
	}
	return with(partsOf(as, visit.RefererParts, func(p string) string { return call("referer_part", textOf(name), visited, literal(p)) }))
}

// geoip: {ip: column, file: path, as: prefix}
func geoipSQL(f *form) string {
	var ip, file, as string
	if !f.options(map[string]*string{"ip": &ip, "file": &file, "as": &as}, nil) {
		return ""
	}
	if ip == "" || file == "" {
		return f.fail(f.n, "wants {ip: column, file: path of a MaxMind database}")
	}
	if as == "" {
		as = ip
	}
	f.step.Files = append(f.step.Files, file)
	return with(partsOf(as, geoip.Parts, func(p string) string {
		value := call("geoip_part", textOf(ip), literal(file), literal(p))
		switch p {
		case "latitude", "longitude":
			return "CAST(" + value + " AS DOUBLE)"
		case "asn":
			return "CAST(" + value + " AS BIGINT)"
		}
		return value
	}))
}

// unnest: column. A row for each item of a list; of a list without items, none.
func unnestSQL(f *form) string {
	name := f.text()
	if name == "" {
		return ""
	}
	statement := func(list string) string {
		return fmt.Sprintf("SELECT * REPLACE (unnest(%s) AS %s) FROM input", list, ident(name))
	}
	f.step.Instead = statement("CAST(" + ident(name) + " AS JSON[])")
	return statement(ident(name))
}
