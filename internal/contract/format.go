package contract

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"unsafe"
)

// formats are those of strings that Check knows; nil: nothing to check.
var formats = map[string]func(text []byte) bool{
	"email": isEmail, "uuid": isUUID, "uri": isURI, "hostname": isHostname, "ipv4": isIPv4, "ipv6": isIPv6, "byte": isBase64,
	"date":      func(t []byte) bool { _, ok := readTime(rfcDate, t); return ok },
	"date-time": func(t []byte) bool { _, ok := readTime(rfcTimestamp, t); return ok },
	"time":      func(t []byte) bool { _, ok := readTime(rfcTime, t); return ok },
	"password":  nil, "binary": nil,
}

func formatNames() (names []string) {
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// view reads bytes as a string that does not outlive the call it is for.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func isHexByte(c byte) bool { return c-'0' < 10 || (c|0x20)-'a' < 6 }

func isUUID(t []byte) bool {
	if len(t) != 36 {
		return false
	}
	for i, c := range t {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !isHexByte(c) {
				return false
			}
		}
	}
	return true
}

func isIPv4(t []byte) bool {
	a, err := netip.ParseAddr(view(t))
	return err == nil && a.Is4()
}

func isIPv6(t []byte) bool {
	a, err := netip.ParseAddr(view(t))
	return err == nil && a.Is6() && a.Zone() == ""
}

// isEmail takes the address of RFC 5321 without quotes: dot-atoms, and a host.
// Letters beyond ASCII pass (RFC 6531).
func isEmail(t []byte) bool {
	at := bytes.LastIndexByte(t, '@')
	if at < 1 || at > 64 || len(t) > 254 {
		return false
	}
	last := byte('.')
	for _, c := range t[:at] {
		switch {
		case c == '.' && last == '.', c <= ' ', c == 0x7f, bytes.IndexByte([]byte(`()<>[]:;@\,"`), c) >= 0:
			return false
		}
		last = c
	}
	return last != '.' && isHostname(t[at+1:])
}

// isHostname is RFC 1123; letters beyond ASCII pass.
func isHostname(t []byte) bool {
	if len(t) == 0 || len(t) > 253 {
		return false
	}
	for label := range bytes.SplitSeq(t, []byte{'.'}) {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if c-'0' > 9 && (c|0x20)-'a' > 25 && c != '-' && c < 0x80 {
				return false
			}
		}
	}
	return true
}

// isURI is RFC 3986: a scheme and something behind it, no blanks.
func isURI(t []byte) bool {
	for _, c := range t {
		if c <= ' ' || c == 0x7f || bytes.IndexByte([]byte("\"<>\\^`{|}"), c) >= 0 {
			return false
		}
	}
	u, err := url.Parse(view(t))
	return err == nil && u.Scheme != ""
}

func isBase64(t []byte) bool {
	_, err := base64.StdEncoding.AppendDecode(nil, t)
	return err == nil
}
