package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"naru/internal/rejection"
)

// What a client chose is shown, and does nothing to the terminal.
func TestRejectionIsHarmlessToATerminal(t *testing.T) {
	const evil = "a\x1b[2J\u009bb"
	var out bytes.Buffer
	c := &cli{out: &out}
	d := rejection.Detail{ID: "i", Stream: "events", Type: evil, Reason: "contract", Rule: "pattern", Path: "$." + evil, Detail: evil, EventID: evil, Source: evil,
		Contract: evil, Version: evil, Received: time.Unix(0, 0), Original: evil + "\n\tmore",
		Attempts: []rejection.Attempt{{State: rejection.Open, Reason: "contract", Detail: evil}}}
	g := rejection.Group{Stream: "events", Type: evil, Reason: "contract", Path: "$." + evil, Source: evil, Version: evil, Detail: evil, Contact: rejection.Contact{Owner: evil}}
	if err := c.showRejection(&d); err != nil {
		t.Fatal(err)
	}
	if err := c.showRejected(&rejection.List{Groups: []rejection.Group{g}}); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.ContainsAny(text, "\x1b\u009b") || strings.Count(text, "[2J") < 12 || !strings.Contains(text, "\n\tmore\n") {
		t.Errorf("%q", text)
	}
}
