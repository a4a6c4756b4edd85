// Package visit reads what browsers send about a visit: addresses of pages, where
// visitors come from, user agents. It takes whatever comes: nothing is an error, what
// is not there is not found.
package visit

import (
	"net/url"
	"strings"
)

// URL is the parts of an address, as they stand in it (RFC 3986, appendix B). An
// address without a scheme has a path and what follows it.
type URL struct {
	Scheme, Host, Port, Path, Query, Fragment string
	HasQuery, HasFragment                     bool
}

// ParseURL takes an address apart. Scheme and host are in lower case; user and
// password are left out.
func ParseURL(text string) URL {
	var u URL
	rest := strings.TrimSpace(text)
	rest, u.Fragment, u.HasFragment = strings.Cut(rest, "#")
	rest, u.Query, u.HasQuery = strings.Cut(rest, "?")
	if scheme, after, ok := strings.Cut(rest, ":"); ok && isScheme(scheme) {
		u.Scheme, rest = strings.ToLower(scheme), after
	}
	if !strings.HasPrefix(rest, "//") {
		u.Path = rest
		return u
	}
	authority := rest[2:]
	if i := strings.IndexByte(authority, '/'); i >= 0 {
		authority, u.Path = authority[:i], authority[i:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		authority = authority[i+1:]
	}
	host := authority
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		host, u.Port = host[:i], host[i+1:]
	}
	u.Host = strings.ToLower(strings.Trim(host, "[]"))
	return u
}

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !(c >= 'a' && c <= 'z' || i > 0 && (s[i] >= '0' && s[i] <= '9' || s[i] == '+' || s[i] == '-' || s[i] == '.')) {
			return false
		}
	}
	return s != ""
}

// Param gives the first value of a parameter of the query, decoded.
func (u URL) Param(name string) (string, bool) {
	for rest := u.Query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if unescape(key) == name {
			return unescape(value), true
		}
	}
	return "", false
}

// unescape decodes a part of a query; one that is not encoded well stays as it is.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return strings.ToValidUTF8(decoded, "�")
	}
	return s
}

// queryPart begins the names of parts that are parameters of the query.
const queryPart = "query."

// URLPart gives a part of an address by its name: scheme, host, port, path, query,
// fragment, or query.NAME.
func URLPart(text, part string) (string, bool) {
	u := ParseURL(text)
	if name, ok := strings.CutPrefix(part, queryPart); ok {
		return u.Param(name)
	}
	switch part {
	case "scheme":
		return u.Scheme, u.Scheme != ""
	case "host":
		return u.Host, u.Host != ""
	case "port":
		return u.Port, u.Port != ""
	case "path":
		return u.Path, u.Path != ""
	case "query":
		return u.Query, u.HasQuery
	case "fragment":
		return u.Fragment, u.HasFragment
	}
	return "", false
}

// URLParts are the names of parts, without parameters.
var URLParts = []string{"scheme", "host", "port", "path", "query", "fragment"}

// UTMParts are the parameters by which campaigns are told.
var UTMParts = []string{"utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id"}
