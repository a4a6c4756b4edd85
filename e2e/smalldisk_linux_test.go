package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace marks a test that runs again as root of its own namespaces.
const inNamespace = "NARU_TEST_NAMESPACE"

// smallDisk makes a file system of some MiB for the rest of the test: tmpfs, or
// ext4 in a file, which has the kernel's real delayed allocation. Who may not
// mount runs the test once more in a user namespace, in which tmpfs can be
// mounted; done is then true, and the result is the test's.
func smallDisk(t *testing.T, kind string, mib int) (dir string, done bool) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	switch kind {
	case "tmpfs":
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib))
	case "ext4":
		if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
			t.Skip("a loop device takes root")
		}
		image := filepath.Join(t.TempDir(), "image")
		err = errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, int64(mib)<<20))
		for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
			if out, rerr := exec.Command(args[0], args[1:]...).CombinedOutput(); err == nil && rerr != nil {
				t.Skipf("no loop device here: %s: %v %s", args[0], rerr, out)
			}
		}
	default:
		t.Fatalf("no disk of kind %s", kind)
	}
	if errors.Is(err, unix.EPERM) && os.Getenv(inNamespace) == "" {
		return "", againInNamespace(t)
	}
	if err != nil {
		needs(t, "a small disk of kind %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, false
}

// againInNamespace runs this test alone as root of new namespaces.
func againInNamespace(t *testing.T) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").CombinedOutput(); err != nil {
		needs(t, "a small disk can neither be mounted nor made in a namespace: %v %s", err, out)
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1", "NARU_BIN="+naruBin)
	out, err := cmd.CombinedOutput()
	if t.Logf("in a namespace of its own:\n%s", out); err != nil {
		t.Error(err)
	}
	return true
}

// freeBytes is what statfs says is left for everybody.
func freeBytes(t testing.TB, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// foreign is another program's file on the same disk.
type foreign struct {
	t    testing.TB
	path string
}

// take writes up to n bytes, until the disk is full; -1 takes all there is.
func (f *foreign) take(n int64) {
	f.t.Helper()
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	chunk := make([]byte, 64<<10)
	for len(chunk) > 512 {
		for n != 0 {
			b := chunk
			if n > 0 {
				b = b[:min(int64(len(b)), n)]
			}
			wrote, err := file.Write(b)
			if n > 0 {
				n -= int64(wrote)
			}
			if err != nil {
				break
			}
		}
		if n == 0 {
			break
		}
		chunk = chunk[:len(chunk)/2] // the last crumbs, too
	}
	if err := file.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		f.t.Fatal(err)
	}
}

// leave gives the space back.
func (f *foreign) leave() {
	f.t.Helper()
	if err := os.Remove(f.path); err != nil {
		f.t.Fatal(err)
	}
}

// noise is n events that do not compress, of about 0.8 KB each.
func noise(seed uint64, n int) *dataset {
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	d := &dataset{typ: "noise", check: "n"}
	raw := make([]byte, 400)
	for i := range n {
		_, _ = io.ReadFull(rng, raw)
		d.items = append(d.items, item{fmt.Appendf(nil, `{"n":%d,"text":"%x"}`, i, raw), int64(i)})
	}
	return d
}
