package quantity

import (
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for in, want := range map[string]Bytes{"512": 512, "64KiB": 64 << 10, "1.5GiB": 3 << 29, "10MB": 10_000_000, " 2 MiB ": 2 << 20, "0": 0} {
		got, err := ParseBytes(in)
		if err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1XB", "9999999TiB", "NaN"} {
		if v, err := ParseBytes(bad); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", bad, v)
		}
	}
	for in, want := range map[Bytes]string{64 * MiB: "64MiB", 3 << 29: "1.5GiB", 512: "512B", 0: "0B"} {
		if got := in.String(); got != want {
			t.Errorf("%d prints as %q, want %q", int64(in), got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"7d": 168 * time.Hour, "5s": 5 * time.Second, "36h": 36 * time.Hour, "250ms": 250 * time.Millisecond} {
		got, err := ParseDuration(in)
		if err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", in, got, err, want)
		}
		if back, err := ParseDuration(got.String()); err != nil || back != got {
			t.Errorf("%q does not survive its own text %q", in, got)
		}
	}
	for _, bad := range []string{"", "5", "-5s", "d", "1y"} {
		if v, err := ParseDuration(bad); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", bad, v)
		}
	}
}
