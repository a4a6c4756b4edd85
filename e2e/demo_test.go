package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDemo runs what `make demo ARGS=--exit` runs.
func TestDemo(t *testing.T) {
	t.Parallel()
	demo := exec.Command("go", "run", "./examples/wikipedia", "--naru", naruBin, "--exit")
	demo.Dir = repoRoot()
	out, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, word := range []string{"39,244 edits by 10,531 users", "Wikipedia:Vandalismusmeldung", "11,549 edits in #en.wikipedia", "17:00      2300 ███"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("the demo does not say %q:\n%s", word, out)
		}
	}
}
