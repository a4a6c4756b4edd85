package web

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strings"
)

// maxFields bounds the header lines of a plain head.
const maxFields = 64

// plainHead is the head of a plain request: POST, HTTP/1.1, one Content-Length, one
// Host, nothing about the connection but that it stays. All strings share one
// copy of the head.
type plainHead struct {
	target string
	path   string
	query  string
	host   string
	length int64
	fields http.Header
	values [maxFields]string // what fields points into
}

// endOfHead finds where a head ends, its empty line included. What lies before
// from has been looked at.
func endOfHead(b []byte, from int) (size int, ok bool) {
	i := bytes.Index(b[from:], []byte("\r\n\r\n"))
	if i < 0 {
		return 0, false
	}
	return from + i + 4, true
}

// mayBePlain tells whether what has come of a head may become a plain one. One
// whose lines end without a carriage return has no end that endOfHead finds.
func mayBePlain(b []byte) bool {
	const begin = "POST "
	if n := min(len(b), len(begin)); string(b[:n]) != begin[:n] {
		return false
	}
	for i := 0; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return true
		}
		if i += n; b[i-1] != '\r' {
			return false
		}
	}
}

// read reads a head that ends with an empty line; false when it is not plain. What
// it takes, net/http would have taken in the same way; of what that refuses or
// does something else with, it takes nothing.
func (h *plainHead) read(b []byte, paths map[string]bool) bool {
	text := string(b[:len(b)-2]) // the empty line
	line, rest, _ := strings.Cut(text, "\r\n")
	target, ok := strings.CutPrefix(line, "POST ")
	if !ok {
		return false
	}
	if h.target, ok = strings.CutSuffix(target, " HTTP/1.1"); !ok {
		return false
	}
	h.path, h.query, ok = strings.Cut(h.target, "?")
	if !paths[h.path] || ok && h.query == "" || !plainQuery(h.query) {
		return false
	}
	clear(h.fields)
	h.host, h.length = "", -1
	for n := 0; rest != ""; n++ {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || n == maxFields || !plainName(name) || !plainValue(value) {
			return false
		}
		value = strings.Trim(value, " \t")
		key := textproto.CanonicalMIMEHeaderKey(name)
		if _, twice := h.fields[key]; twice || key == "Host" && h.host != "" {
			return false // once more the same is somebody else's to judge
		}
		switch key {
		case "Host":
			if h.host = value; !plainHost(value) {
				return false
			}
			continue // as net/http has it
		case "Content-Length":
			if h.length = digits(value); h.length < 0 {
				return false
			}
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Pragma", "Keep-Alive", "Proxy-Connection":
			return false
		}
		h.values[n] = value
		h.fields[key] = h.values[n : n+1 : n+1]
	}
	return h.host != "" && h.length >= 0
}

// digits reads a number without a sign; -1 for anything else.
func digits(s string) int64 {
	if s == "" || len(s) > 18 {
		return -1
	}
	n := int64(0)
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int64(c-'0')
	}
	return n
}

func plainQuery(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

func plainName(s string) bool {
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}

func plainValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func plainHost(s string) bool {
	for _, c := range []byte(s) {
		if c != '.' && c != '-' && c != ':' && c != '[' && c != ']' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}
