package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what figures were taken on.
type machine struct {
	Name       string
	FileSystem string
	Corpus     string // where it comes from
}

func lookAround(dir string) (machine, error) {
	fs, err := fileSystem(dir)
	if err != nil {
		return machine{}, err
	}
	return machine{
		Name: fmt.Sprintf("%s, %d cores, %s; %s; %s", field("/proc/cpuinfo", "model name"), runtime.NumCPU(), memory(), kernel(), runtime.Version()),

		FileSystem: fs,
	}, nil
}

// Magic numbers of statfs(2).
var fileSystems = map[int64]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs", 0xf2f52010: "f2fs", 0x794c7630: "overlayfs",
	0x01021994: "tmpfs", 0x858458f6: "ramfs",
}

// fileSystem names what the folder stands on, and refuses memory: an fsync
// there is free.
func fileSystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	name := fileSystems[int64(st.Type)]
	switch name {
	case "tmpfs", "ramfs":
		return "", fmt.Errorf("%s is on %s, where an fsync costs nothing; give --dir on a disk", dir, name)
	case "":
		name = fmt.Sprintf("type %#x", st.Type)
	}
	return name, nil
}

// version is what the measured binary says it was built from.
func version(binary string) string {
	out, err := exec.Command(binary, "version").Output()
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first
}

// field is what stands behind a name, and a colon or a blank, in a file of /proc.
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
		if key, value, ok := strings.Cut(line, " "); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memory() string {
	var kb int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (kb+1<<19)>>20)
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown kernel"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
