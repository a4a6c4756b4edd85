package main

import "testing"

func TestBars(t *testing.T) {
	got, err := bars([][]string{{"00:00", "10"}, {"é", "40"}, {"none", "0"}})
	want := "  00:00        10 ██████████\n  é            40 ████████████████████████████████████████\n  none          0 \n"
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	for _, rows := range [][][]string{{{"a"}}, {{"a", "x"}}} {
		if _, err := bars(rows); err == nil {
			t.Errorf("%q is drawn", rows)
		}
	}
}
