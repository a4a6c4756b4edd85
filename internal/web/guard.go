package web

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Guard keeps other web sites out of what is not meant for them. It refuses,
// with 403, a foreign Origin, Sec-Fetch-Site: cross-site, and a Host that is
// neither loopback nor configured: a page whose name was made to point at this
// machine (DNS rebinding) still sends its own name as Host.
//
// Event doors have CORS instead of a Guard. They take events from any page by
// design and give nothing back but the receipt of that page's own events, so
// rebinding gains nothing there, while SDKs reach them under names that nobody
// lists: tracking domains, proxies, addresses.
type Guard struct{ hosts map[string]bool }

// NewGuard makes a guard that also lets the given hosts pass: "naru.example.org"
// with any port, or "naru.example.org:8080" with that one only.
func NewGuard(hosts ...string) *Guard {
	g := &Guard{hosts: make(map[string]bool, len(hosts))}
	for _, h := range hosts {
		g.hosts[strings.ToLower(strings.TrimSuffix(h, "."))] = true
	}
	return g
}

// Wrap puts the guard in front of next.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.Check(r); err != nil {
			Fail(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Check returns the *Error with which r is to be refused, or nil.
func (g *Guard) Check(r *http.Request) error {
	if !g.known(r.Host) {
		return &Error{
			Status: http.StatusForbidden, Title: "unknown host",
			Detail: "the request is for host " + quoteShort(r.Host) + ", which is neither loopback nor configured; call it by its configured name, or add the name to listen.hosts in naru.yaml",
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); strings.EqualFold(site, "cross-site") {
		return &Error{
			Status: http.StatusForbidden, Title: "request from another site",
			Detail: "a browser sent this on behalf of another site (Sec-Fetch-Site: cross-site); open the address directly",
		}
	}
	for _, origin := range r.Header["Origin"] {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return &Error{
				Status: http.StatusForbidden, Title: "request from another origin",
				Detail: "a page of " + quoteShort(origin) + " sent this to " + quoteShort(r.Host) + "; only event doors take requests of other origins",
			}
		}
	}
	return nil
}

func (g *Guard) known(host string) bool {
	host = strings.ToLower(host)
	name := hostName(host)
	return IsLoopback(name) || g.hosts[name] || g.hosts[host]
}

// hostName is host without its port, brackets and final dot.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.TrimSuffix(host, ".")
}

// IsLoopback tells whether name (without port) always means this machine.
func IsLoopback(name string) bool {
	if name == "localhost" {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}

func quoteShort(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return `"` + s + `"`
}
