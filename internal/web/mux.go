package web

import (
	"net/http"
	"slices"
	"strings"
)

// Mux finds handlers by exact path. http.ServeMux is not used because it
// answers unclean paths with a redirect, on which clients turn a POST into a
// GET and lose its events.
type Mux struct {
	exact    map[string]*route
	prefixes []*route // longest first
}

type route struct {
	path    string
	methods []string
	allow   string
	h       http.Handler
}

// Handle serves path, and nothing below it, with h. GET includes HEAD. OPTIONS
// is answered here unless methods has it.
func (m *Mux) Handle(path string, h http.Handler, methods ...string) {
	if m.exact == nil {
		m.exact = map[string]*route{}
	}
	m.exact[path] = newRoute(path, h, methods)
}

// HandlePrefix serves everything below prefix, which ends with "/".
func (m *Mux) HandlePrefix(prefix string, h http.Handler, methods ...string) {
	m.prefixes = append(m.prefixes, newRoute(prefix, h, methods))
	slices.SortStableFunc(m.prefixes, func(a, b *route) int { return len(b.path) - len(a.path) })
}

func newRoute(path string, h http.Handler, methods []string) *route {
	methods = slices.Clone(methods)
	if slices.Contains(methods, http.MethodGet) && !slices.Contains(methods, http.MethodHead) {
		methods = append(methods, http.MethodHead)
	}
	allow := methods
	if !slices.Contains(allow, http.MethodOptions) {
		allow = append(slices.Clone(methods), http.MethodOptions)
	}
	return &route{path: path, methods: methods, allow: strings.Join(allow, ", "), h: h}
}

func (m *Mux) find(path string) *route {
	if rt := m.exact[path]; rt != nil {
		return rt
	}
	for _, rt := range m.prefixes {
		if strings.HasPrefix(path, rt.path) {
			return rt
		}
	}
	return nil
}

// ServeHTTP implements http.Handler: 404 for a path that nobody serves, 405
// with Allow for a method that its handler does not take.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := m.find(r.URL.Path)
	if rt == nil {
		detail := "nothing is served at " + quoteShort(r.URL.Path)
		if near := m.near(r.URL.Path); near != "" {
			detail += "; the path is " + near + ", exactly"
		} else {
			detail += "; events go to POST /v1/events"
		}
		Fail(w, &Error{Status: http.StatusNotFound, Title: "no such path", Detail: detail})
		return
	}
	if !slices.Contains(rt.methods, r.Method) {
		w.Header().Set("Allow", rt.allow)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		Fail(w, &Error{
			Status: http.StatusMethodNotAllowed, Title: "method not allowed",
			Detail: quoteShort(r.Method) + " is not taken at " + rt.path + "; use " + strings.Join(rt.methods, " or "),
		})
		return
	}
	rt.h.ServeHTTP(w, r)
}

// near finds the path that was probably meant: the same one but for doubled or
// trailing slashes and letter case.
func (m *Mux) near(path string) string {
	plain := func(p string) string {
		return strings.ToLower(strings.Join(strings.FieldsFunc(p, func(r rune) bool { return r == '/' }), "/"))
	}
	if len(path) > 200 {
		return ""
	}
	want := plain(path)
	for p := range m.exact {
		if plain(p) == want {
			return p
		}
	}
	return ""
}
