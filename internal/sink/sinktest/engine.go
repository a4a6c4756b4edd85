package sinktest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Engine is the value of NARU_TEST_NAME, which says where a real server is that a
// test needs. Without it the test is skipped, unless NARU_TEST_ENGINES says that the
// server was started for it (test-world/engines/with): then something is wrong.
func Engine(t *testing.T, name string) string {
	t.Helper()
	if at := os.Getenv("NARU_TEST_" + strings.ToUpper(name)); at != "" {
		return at
	}
	if slices.Contains(strings.Fields(os.Getenv("NARU_TEST_ENGINES")), name) {
		t.Fatalf("NARU_TEST_%s is not set, although a server was started", strings.ToUpper(name))
	}
	t.Skipf("needs a server: test-world/engines/with %s -- go test ...", name)
	return ""
}
