package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// naruBin is the binary under test.
var naruBin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// run is TestMain's body with working defers.
func run(m *testing.M) int {
	// A user's own settings must not reach the tests.
	for _, name := range []string{"NARU_URL", "NARU_KEY"} {
		os.Unsetenv(name)
	}
	// Go's build cache lies below XDG_CACHE_HOME too, and is to stay where it is.
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: ask for the build cache:", err)
		return 1
	}
	os.Setenv("GOCACHE", strings.TrimSpace(string(gocache)))
	// naru send notes there what it has sent.
	cache, err := os.MkdirTemp("", "naru-e2e-cache-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: make cache folder:", err)
		return 1
	}
	defer os.RemoveAll(cache)
	os.Setenv("XDG_CACHE_HOME", cache)

	if naruBin = os.Getenv("NARU_BIN"); naruBin != "" {
		abs, err := filepath.Abs(naruBin)
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e: find NARU_BIN:", err)
			return 1
		}
		naruBin = abs
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "naru-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: make folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	naruBin = filepath.Join(dir, "naru")
	build := exec.Command("go", "build", "-o", naruBin, "./cmd/naru")
	build.Dir = repoRoot()
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build cmd/naru:", err)
		return 1
	}
	return m.Run()
}

// repoRoot is the folder of go.mod: tests run in their package's folder.
func repoRoot() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}

// soaking tells whether tests take their long form (make soak).
func soaking() bool { return os.Getenv("NARU_SOAK") != "" }

// short chooses a size: that of make test, or that of make soak.
func short(test, soak int) int {
	if soaking() {
		return soak
	}
	return test
}

// inCI tells whether a missing tool or data set is an error instead of a
// reason to leave a test out.
func inCI() bool { return os.Getenv("CI") != "" }

// needs ends the test for want of something from outside the project: as a
// failure in CI, as a skip with its reason elsewhere.
func needs(t testing.TB, format string, args ...any) {
	t.Helper()
	if inCI() {
		t.Fatalf("needed in CI: "+format, args...)
	}
	t.Skipf(format, args...)
}
