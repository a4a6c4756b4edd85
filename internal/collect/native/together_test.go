package native

import (
	"strings"
	"testing"

	"naru/internal/stream/memory"
)

// Objects that run together, as mobile measurement partners send them: with no
// line break between them, with some, and pretty-printed; under any media type.
func TestObjectsRunTogether(t *testing.T) {
	first := `{"event_name":"view","event_value":"{\"content_list\":{\"comic_id\":321},\"text\":\"}{\"}"}`
	second := "{\n  \"event_name\": \"buy\",\n  \"items\": [\n    {\"id\": 1}\n  ]\n}"
	for _, body := range []string{first + second, first + "\n" + second, first + " \t" + second + "\r\n", "\xef\xbb\xbf" + first + second} {
		for _, media := range []string{"application/json", "application/x-ndjson", "text/plain", "application/x-www-form-urlencoded", ""} {
			log := memory.New()
			d, _ := newDoor(t, log, nil)
			got := do(t, d, request("?type=view", body+first, "Content-Type", media))
			if got.status != 200 || got.Accepted != 3 || len(got.Rejected) != 0 {
				t.Fatalf("%q as %q: %d %s", body, media, got.status, got.body)
			}
			for i, e := range stored(t, log, "events") {
				if want := []string{first, second, first}[i]; string(e.Data) != want {
					t.Errorf("%q as %q: event %d is %s", body, media, i, e.Data)
				}
			}
		}
	}
	// A bad one is refused alone, with what follows on its line.
	log := memory.New()
	d, _ := newDoor(t, log, nil)
	got := do(t, d, request("", `{"a":1}{"a":}{"a":3}`+"\n"+`{"a":4}`, "Content-Type", "application/json"))
	if got.Accepted != 2 || len(got.Rejected) != 1 || got.Rejected[0].Index != 1 || !strings.Contains(got.Rejected[0].Detail, "byte 12 of the body") {
		t.Error(got.body)
	}
}
