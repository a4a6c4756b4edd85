// Package geoiptest makes small MaxMind databases for tests.
package geoiptest

import (
	"encoding/binary"
	"math"
)

// Database knows of one place, at all IPv4 addresses below 128.0.0.0. The format is
// that of MaxMind DB 2.0: a tree of records of 24 bits, then its data, then what it is.
func Database(country, city string, latitude float64) []byte {
	const nodes = 1
	// One node: the first bit decides. Behind the nodes stand 16 bytes of nothing, and
	// a record beyond the number of nodes points to data so far behind them.
	tree := []byte{0, 0, nodes + 16, 0, 0, nodes}
	data := object(
		"country", object("iso_code", text(country), "names", object("en", text(country))),
		"city", object("names", object("en", text(city))),
		"location", object("latitude", double(latitude)),
	)
	about := object(
		"node_count", number(nodes), "record_size", number(24), "ip_version", number(4), "database_type", text("Test-City"),
		"languages", []byte{0, 4}, "binary_format_major_version", number(2), "binary_format_minor_version", number(0), "build_epoch", number(1), "description", object(),
	)
	file := append(tree, make([]byte, 16)...)
	file = append(file, data...)
	file = append(file, "\xab\xcd\xefMaxMind.com"...)
	return append(file, about...)
}

// The types of the format stand in the first three bits, beside the size: 2 text,
// 3 double, 6 number of 32 bits, 7 map; a list is of a type beyond seven.

func text(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) } // up to 28 bytes

func double(f float64) []byte {
	return binary.BigEndian.AppendUint64([]byte{3<<5 | 8}, math.Float64bits(f))
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{6<<5 | 4}, n) }

// object is a map of names and encoded values by turns.
func object(members ...any) []byte {
	out := []byte{7<<5 | byte(len(members)/2)}
	for _, m := range members {
		switch m := m.(type) {
		case string:
			out = append(out, text(m)...)
		case []byte:
			out = append(out, m...)
		}
	}
	return out
}
