package collect

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"naru/internal/quantity"
)

func TestIDs(t *testing.T) {
	var g idMaker
	now := time.UnixMilli(1767225600123)
	seen := map[string]bool{}
	last := ""
	for range 5000 {
		text := string(g.next(now.UnixMilli()))
		id, err := uuid.Parse(text)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%q: version %d, variant %v, %v", text, id.Version(), id.Variant(), err)
		}
		if sec, nsec := id.Time().UnixTime(); time.Unix(sec, nsec).UnixMilli() != now.UnixMilli() {
			t.Fatalf("%q: time %d", text, sec)
		}
		if text <= last || seen[text] {
			t.Fatalf("%q behind %q", text, last)
		}
		seen[text], last = true, text
	}
	var h idMaker
	if a, b := string(h.next(1)), last; a[9:] == b[9:] {
		t.Error("two requests share their random part")
	}
	// Counting up carries over hexadecimal digits and dashes.
	copy(h.text[:], "00000000-0001-7abc-8fff-ffffffffffff")
	if got := string(h.next(0)); got != "00000000-0001-7abc-9000-000000000000" {
		t.Errorf("%q", got)
	}
}

func TestCheckStream(t *testing.T) {
	for _, name := range []string{"events", "a", "0", "page_views", "web-1", strings.Repeat("x", 64)} {
		if err := CheckStream(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, says := range map[string]string{
		"": "empty", "rejected": "where refused events go", "_x": "reserved", "-x": "begins with", "a.b": "only a-z",
		"Events": `did you mean "events"`, "größe": "only a-z", "a/b": "only a-z", "../x": "only a-z", "a b": "only a-z",
		"information_schema": "SQL", strings.Repeat("x", 65): "at most 64", "a\x00": "only a-z",
	} {
		if err := CheckStream(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", name, err, says)
		}
	}
}

// The vectors of Kafka's own test of its default partitioner
// (org.apache.kafka.common.utils.UtilsTest.testMurmur2).
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	if p := partitionOf(nil, 8); p != 0 {
		t.Errorf("no key: partition %d", p)
	}
	for _, key := range []string{"21", "foobar", "abc", ""} {
		if p := partitionOf([]byte(key), 8); p < 0 || p > 7 {
			t.Errorf("%q: partition %d", key, p)
		}
		if p := partitionOf([]byte(key), 1); p != 0 {
			t.Errorf("%q: partition %d of 1", key, p)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"body": func(c *Config) { c.Body = 1 }, "decompressed": func(c *Config) { c.Decompressed = c.Body - 1 },
		"event": func(c *Config) { c.Event = 1 }, "in_flight": func(c *Config) { c.InFlight = c.Decompressed - 1 },
		"events": func(c *Config) { c.Events = 0 }, "streams": func(c *Config) { c.Streams = 0 },
		"partitions": func(c *Config) { c.Partitions = 0 }, "time_field": func(c *Config) { c.TimeField = strings.Repeat("x", 256) },
		"id_field": func(c *Config) { c.IDField = strings.Repeat("x", 256) }, "stall_timeout": func(c *Config) { c.StallTimeout = 0 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(cfg, Deps{}); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}

func TestConfigFromYAML(t *testing.T) {
	cfg := DefaultConfig()
	dec := yaml.NewDecoder(strings.NewReader("body: 1MiB\nstall_timeout: 5s\nheaders: 16KiB\ntime_field: at\nevents: 7\n"))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Body != quantity.MiB || cfg.StallTimeout.Std() != 5*time.Second || cfg.Headers != 16*quantity.KiB || cfg.TimeField != "at" || cfg.Events != 7 || cfg.Event != quantity.MiB {
		t.Errorf("%+v", cfg)
	}
	out, err := yaml.Marshal(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"body: 32MiB", "decompressed: 64MiB", "event: 1MiB", "in_flight: 64MiB", "headers: 32KiB", "header_timeout: 10s", "stall_timeout: 30s", "idle_timeout: 2m0s"} {
		if !bytes.Contains(out, []byte(want+"\n")) {
			t.Errorf("no %q in the defaults:\n%s", want, out)
		}
	}
	if !slices.Contains(strings.Split(string(out), "\n"), "events: 100000") {
		t.Errorf("defaults:\n%s", out)
	}
}
