package seglog

import (
	"math/rand/v2"
	"testing"
)

func TestForge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		body := make([]byte, rng.IntN(2000))
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		h, off := head{kind: kindLost, nonce: rng.Uint64(), sequence: rng.Uint64()}, balanceOfLost
		if rng.IntN(2) == 0 {
			h.kind, h.table, off = kindCheckpoint, len(body), balanceOfCheckpoint
		}
		b, _ := sealFrame(append(make([]byte, headSize), body...), h)
		want := rng.Uint32()
		balance(b, off, want)
		if got := checksum(b[bodyOff:]); got != want {
			t.Fatalf("%d bytes: checksum %08x, want %08x", len(b), got, want)
		}
		h, err := readHead(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkFrame(h, b); err != nil {
			t.Fatal(err)
		}
		from, to := rng.Uint32(), rng.Uint32()
		if got := nextChain(from, linkOf(from, to)); got != to {
			t.Fatalf("link: %08x, want %08x", got, to)
		}
		if got := prevChain(nextChain(from, want), want); got != from {
			t.Fatalf("back: %08x, want %08x", got, from)
		}
		n := rng.IntN(1 << 27)
		if mulMod(shiftOf(n), unshiftOf(n)) != 1<<31 {
			t.Fatalf("shift over %d bytes is not undone", n)
		}
	}
}
