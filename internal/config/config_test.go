package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"naru/internal/fault"
	"naru/internal/quantity"
	"naru/internal/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; go test -rewrite takes what is there now:\n%s", path, got)
	}
}

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	return parse(FileName, []byte(text), "/project")
}

// TestMistakes reads every testdata/*.yaml and compares what is said about it.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, err = load(t, string(text))
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("no problems: %v", err)
			}
			golden(t, strings.TrimSuffix(f, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func TestNothingSetIsTheDefault(t *testing.T) {
	want, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"comments": "# nothing\n", "null": "~\n", "empty blocks": "listen:\npipelines: {}\nprocess: ~\n", "init": Settings(),
	} {
		got, err := load(t, text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestSettingsCanBeUncommented: every line that init offers is valid as it is.
func TestSettingsCanBeUncommented(t *testing.T) {
	var lines []string
	for line := range strings.Lines(Settings()) {
		trimmed := strings.TrimLeft(line, " ")
		if strings.HasPrefix(trimmed, "#") && !strings.HasPrefix(trimmed, "# ") {
			line = strings.Replace(line, "#", "", 1)
		}
		lines = append(lines, line)
	}
	want, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, strings.Join(lines, ""))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults as text are not the defaults:\n%+v\n%+v", got, want)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	docs := keyDocs()
	for _, k := range Keys() {
		if k.Doc == "" {
			t.Errorf("keys.txt lacks %s", k.Path)
		}
		delete(docs, k.Path)
	}
	for path := range docs {
		t.Errorf("keys.txt explains %s, which does not exist", path)
	}
}

func TestReference(t *testing.T) { golden(t, "../../docs/configuration.md", Reference()) }

func TestValuesAreRead(t *testing.T) {
	c, err := load(t, "listen: {http: 'localhost:0'}\npipelines:\n  commit_interval: 250ms\n  commit_bytes: 1MB\nprocess:\n  gc_percent: 1_00\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.HTTP != "localhost:0" || c.Pipelines.CommitInterval.String() != "250ms" || c.Pipelines.CommitBytes != 1_000_000 || c.Process.GCPercent != 100 {
		t.Errorf("%+v", c)
	}
}

func TestTextIsReadAsItWas(t *testing.T) {
	c := Default()
	c.Listen.Hosts, c.Collect.TimeField, c.Log.DropUnread = []string{"a.example", "10.0.0.1"}, "@at: x", true
	c.Pipelines.CommitInterval, c.Log.RetainBytes, c.Lake.GCDelay = quantity.Duration(250*time.Millisecond), 0, quantity.Duration(36*time.Hour)
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, string(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	c.Place("/project")
	if !reflect.DeepEqual(*got, c) {
		t.Errorf("%+v\nwant\n%+v", *got, c)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, ok := range []string{"127.0.0.1:8080", "127.9.9.9:0", "[::1]:80", "localhost:http"} {
		if err := CheckAddress(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{":8080", "0.0.0.0:8080", "[::]:1", "10.0.0.1:1", "example.com:1", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:", ""} {
		if err := CheckAddress(bad); err == nil {
			t.Errorf("%s is let through", bad)
		}
	}
}

func TestLoad(t *testing.T) {
	mem := vfs.NewMemory()
	if err := mem.MkdirAll("/p"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(mem, "/p"); err != nil {
		t.Errorf("a folder without settings: %v", err)
	}
	if err := write(mem, "/p/naru.yaml", []byte("listn: 1\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(mem, "/p"); err == nil || err.Error() != "naru.yaml:1: listn: unknown key; did you mean listen?" {
		t.Errorf("got %v", err)
	}
	boom := errors.New("boom")
	mem.Inject(vfs.Rule{Ops: vfs.OpOpen, Pattern: "naru.yaml", Err: boom})
	if _, err := Load(mem, "/p"); !errors.Is(err, boom) {
		t.Errorf("an unreadable file: %v", err)
	}
}

func TestInit(t *testing.T) {
	mem := vfs.NewMemory()
	if err := Init(mem, "/p/q"); err != nil {
		t.Fatal(err)
	}
	clone := mem.CrashClone(1)
	for _, path := range []string{"/p/q/naru.yaml", "/p/q/.gitignore", "/p/q/contracts/.gitkeep", "/p/q/models/.gitkeep"} {
		if _, err := clone.Stat(path); err != nil {
			t.Errorf("after a power cut: %v", err)
		}
	}
	if c, err := Load(clone, "/p/q"); err != nil || c.Listen.HTTP != "127.0.0.1:8080" {
		t.Errorf("%+v %v", c, err)
	}
	err := Init(mem, "/p/q")
	if err == nil || fault.HintOf(err) == "" {
		t.Errorf("init overwrites: %v", err)
	}
	for _, file := range []string{"naru.yaml", ".gitignore", "sources/.gitkeep"} {
		other := vfs.NewMemory()
		if err := write(other, "/x/"+file, []byte("mine")); err != nil {
			t.Fatal(err)
		}
		if err := Init(other, "/x"); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s in the way: %v", file, err)
		}
		if names, _ := other.List("/x"); len(names) != 1 {
			t.Errorf("%s in the way, yet %v was written", file, names)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("listen: {http: x}\n")
	f.Add("a: &a [*a]\n")
	f.Add("pipelines:\n  <<: {commit_bytes: 1}\n---\n? x\n: y\n")
	f.Add(Settings())
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(FileName, []byte(text), "/p")
		if (c == nil) == (err == nil) {
			t.Fatalf("%v %v", c, err)
		}
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("%T: %v", err, err)
		}
		_ = fmt.Sprint(err)
	})
}
