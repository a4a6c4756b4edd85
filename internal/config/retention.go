package config

import (
	"slices"
	"strings"

	"naru/internal/strict"
)

// streamRetention reports retention values of single streams: EXACTNESS 1
// has one rule for the folder, because segments hold all streams interleaved.
func streamRetention(d *strict.Decoder, key, val *strict.Node, path string) bool {
	if path != "" && path != "log" || key.Value != "streams" && key.Value != "stream" {
		return false
	}
	return retentions(d, val, strict.Join(path, key.Value))
}

func retentions(d *strict.Decoder, n *strict.Node, path string) bool {
	found := false
	for key, val := range strict.Pairs(n) {
		at := strict.Join(path, key.Value)
		if strings.HasPrefix(key.Value, "retention") || strings.HasPrefix(key.Value, "retain") {
			d.Fail(key.Line, at, "a stream has no retention of its own: one rule holds for the folder; set it in %s",
				strings.Join(retentionKeys(), " and "))
			found = true
			continue
		}
		found = retentions(d, val, at) || found
	}
	return found
}

func retentionKeys() (out []string) {
	for _, k := range Keys() {
		if strings.HasPrefix(k.Path, "log.retain_") {
			out = append(out, k.Path)
		}
	}
	slices.Sort(out)
	return out
}
