package lake

import (
	"bytes"
	"testing"
)

func TestBounds(t *testing.T) {
	lower := map[int][]byte{9: {1, 2, 3, 4, 5, 6, 7, 8}, 5: {}, 300: {7}}
	upper := map[int][]byte{9: {8, 7, 6, 5, 4, 3, 2, 1}, 12: []byte("zebra")}
	b := PackBounds(lower, upper)
	for id := range 400 {
		l, u := b.Get(id)
		if want := (Bound{string(lower[id]), lower[id] != nil}); l != want {
			t.Errorf("field %d: lower bound %v, want %v", id, l, want)
		}
		if want := (Bound{string(upper[id]), upper[id] != nil}); u != want {
			t.Errorf("field %d: upper bound %v, want %v", id, u, want)
		}
	}
	if PackBounds(nil, nil) != "" {
		t.Error("no bounds take room")
	}
	if l, u := Bounds("").Get(1); l.Known || u.Known {
		t.Error("bounds out of nothing")
	}
}

// A table of a thousand columns keeps the bounds of the first ones.
func TestBoundsAreBounded(t *testing.T) {
	lower := map[int][]byte{}
	for id := 1; id <= 1000; id++ {
		lower[id] = bytes.Repeat([]byte{byte(id)}, 16)
	}
	b := PackBounds(lower, lower)
	if len(b) > mostBounds {
		t.Errorf("%d bytes", len(b))
	}
	if l, u := b.Get(20); l.Value != string(lower[20]) || u != l {
		t.Error("the bounds of field 20 are lost")
	}
	if l, _ := b.Get(1000); l.Known {
		t.Error("the bounds of field 1000 are kept")
	}
}
