package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAsk(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "y": true, "n\n": false, "\n": false, "": false, "yeah\n": false} {
		var out bytes.Buffer
		c := &cli{in: strings.NewReader(answer), err: &out}
		if got, err := c.ask("really? "); err != nil || got != want || out.String() != "really? " {
			t.Errorf("%q: %v, %v, asked %q", answer, got, err, out.String())
		}
	}
}
