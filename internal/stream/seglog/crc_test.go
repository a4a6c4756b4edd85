package seglog

import (
	"math/rand/v2"
	"testing"
)

func TestCombine(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 500 {
		n := rng.IntN(100_000)
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		cut := 0
		if n > 0 && i > 3 {
			cut = rng.IntN(n + 1)
		}
		if got := combine(checksum(b[:cut]), checksum(b[cut:]), shiftOf(n-cut)); got != checksum(b) {
			t.Fatalf("%d bytes cut at %d: %08x, want %08x", n, cut, got, checksum(b))
		}
	}
	// Lengths as large as a frame may be; zeros give a checksum of their own.
	zeros := make([]byte, 1<<26)
	if got := combine(checksum([]byte("x")), checksum(zeros), shiftOf(len(zeros))); got != update(checksum([]byte("x")), zeros) {
		t.Fatalf("64 MiB: %08x", got)
	}
}

func BenchmarkShift(b *testing.B) {
	for b.Loop() {
		shiftOf(40_000)
	}
}

func BenchmarkCombine(b *testing.B) {
	s := shiftOf(40_000)
	for b.Loop() {
		combine(0x12345678, 0x9abcdef0, s)
	}
}
