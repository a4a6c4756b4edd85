package contract

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"naru/internal/fault"
	"naru/internal/obs"
	"naru/internal/vfs"
)

const oneType = `apiVersion: v3.1.0
kind: DataContract
id: pages
version: %s
status: active
schema:
  - name: page
    properties:
      - {name: n, logicalType: integer}
`

func write(t *testing.T, disk *vfs.Memory, path, text string) {
	t.Helper()
	f, err := disk.Create(path)
	if err == nil {
		_, err = f.Write([]byte(text))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A changed folder is taken over once it stays as it is; a broken one is refused
// and what was in force stays so.
func TestFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMemory()
		f, err := OpenFolder(disk, "/p/contracts", nil, obs.Discard())
		if err != nil || f.Set().For("page") != nil {
			t.Fatal(err)
		}
		version := func() string {
			if c := f.Set().For("page"); c != nil {
				return c.Version
			}
			return "none"
		}
		look := func(want string, broken bool) {
			t.Helper()
			time.Sleep(LookEvery)
			f.Look()
			if got, s := version(), f.State(); got != want || (s.Broken != nil) != broken {
				t.Fatalf("in force %s, want %s; %+v", got, want, s)
			}
		}
		look("none", false)
		if err := disk.MkdirAll("/p/contracts/web"); err != nil {
			t.Fatal(err)
		}
		write(t, disk, "/p/contracts/web/page.yaml", fmt.Sprintf(oneType, "1.0.0"))
		look("none", false) // it may be being written
		look("1.0.0", false)
		write(t, disk, "/p/contracts/web/page.yaml", fmt.Sprintf(oneType, "1.0.1"))
		look("1.0.0", false)
		write(t, disk, "/p/contracts/web/page.yaml", fmt.Sprintf(oneType, "1.0.2"))
		look("1.0.0", false)
		look("1.0.2", false)

		write(t, disk, "/p/contracts/web/page.yaml", strings.Replace(fmt.Sprintf(oneType, "1.1.0"), "integer", "intger", 1))
		look("1.0.2", false)
		look("1.0.2", true)
		look("1.0.2", true)
		if s := f.State(); s.Refused != 1 || s.Taken != 2 || !strings.Contains(s.Broken.Error(), "did you mean integer?") {
			t.Fatalf("%+v", s)
		}
		// A second file is as broken as the folder.
		write(t, disk, "/p/contracts/other.yaml", strings.ReplaceAll(fmt.Sprintf(oneType, "3.0.0"), "page", "other"))
		look("1.0.2", true)
		look("1.0.2", true)
		write(t, disk, "/p/contracts/web/page.yaml", fmt.Sprintf(oneType, "1.1.0"))
		look("1.0.2", true)
		look("1.1.0", false)
		if f.Set().For("other") == nil || f.State().Contracts != 2 {
			t.Fatalf("%+v", f.State())
		}

		// What cannot be read is read again until it can.
		disk.Inject(vfs.Rule{Ops: vfs.OpRead, Pattern: "*.yaml"})
		write(t, disk, "/p/contracts/more.yaml", strings.ReplaceAll(fmt.Sprintf(oneType, "1.0.0"), "page", "more"))
		look("1.1.0", false)
		look("1.1.0", true)
		look("1.1.0", true)
		disk.Heal()
		look("1.1.0", false)
		if f.Set().For("more") == nil {
			t.Fatal("what could be read at last is not in force")
		}
		if err := disk.Remove("/p/contracts/web/page.yaml"); err != nil {
			t.Fatal(err)
		}
		look("1.1.0", false)
		look("none", false)
	})
}

func TestFolderBrokenAtTheStart(t *testing.T) {
	disk := vfs.NewMemory()
	if err := disk.MkdirAll("/contracts"); err != nil {
		t.Fatal(err)
	}
	write(t, disk, "/contracts/page.yaml", "apiVersion: v3.1.0")
	if _, err := OpenFolder(disk, "/contracts", nil, obs.Discard()); err == nil || !strings.Contains(err.Error(), "contracts/page.yaml:1: kind") {
		t.Error(err)
	}
}

// Who says no to contracts that have no mistake says what is to be done; lint would
// find nothing.
func TestRefusedWithACure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMemory()
		if err := disk.MkdirAll("/p/contracts"); err != nil {
			t.Fatal(err)
		}
		var full error
		f, err := OpenFolder(disk, "/p/contracts", func(*Set) error { return full }, obs.Discard())
		if err != nil {
			t.Fatal(err)
		}
		full = fault.WithHint(errors.New("no room"), "make room")
		write(t, disk, "/p/contracts/page.yaml", fmt.Sprintf(oneType, "1.0.0"))
		for range 2 {
			time.Sleep(LookEvery)
			f.Look()
		}
		if s := f.State(); s.Broken == nil || CureOf(s.Broken) != "make room" || f.Set().For("page") != nil {
			t.Fatalf("%+v", s)
		}
		full = nil // there is room now: nobody need touch the files
		for range 2 {
			time.Sleep(LookEvery)
			f.Look()
		}
		if s := f.State(); s.Broken != nil || f.Set().For("page") == nil {
			t.Fatalf("%+v", s)
		}
		write(t, disk, "/p/contracts/page.yaml", "nonsense: 1")
		for range 2 {
			time.Sleep(LookEvery)
			f.Look()
		}
		if s := f.State(); s.Broken == nil || !strings.Contains(CureOf(s.Broken), "naru contract lint") {
			t.Fatalf("%+v", s)
		}
	})
}
