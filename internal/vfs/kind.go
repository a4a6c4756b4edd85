package vfs

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Kind says what holds a path.
type Kind struct {
	Name string `json:"file_system"` // as mount(8) calls it, or "type 0x…"
	// Memory: gone with the power, whatever was synced.
	Memory bool `json:"memory"`
	// Network: another machine, or a program, decides what a sync means.
	Network bool `json:"network"`
}

// kinds by the magic numbers of statfs(2).
var kinds = map[uint32]Kind{
	0xef53: {Name: "ext4"}, 0x58465342: {Name: "xfs"}, 0x9123683e: {Name: "btrfs"}, 0x2fc12fc1: {Name: "zfs"}, 0xca451a4e: {Name: "bcachefs"},
	0xf2f52010: {Name: "f2fs"}, 0x3153464a: {Name: "jfs"}, 0x52654973: {Name: "reiserfs"}, 0x3434: {Name: "nilfs2"}, 0x794c7630: {Name: "overlayfs"},
	0x2011bab0: {Name: "exfat"}, 0x4d44: {Name: "vfat"}, 0x5346544e: {Name: "ntfs"}, 0x7366746e: {Name: "ntfs3"},
	0x01021994: {Name: "tmpfs", Memory: true}, 0x858458f6: {Name: "ramfs", Memory: true},
	0x6969: {Name: "nfs", Network: true}, 0xff534d42: {Name: "cifs", Network: true}, 0xfe534d42: {Name: "smb2", Network: true}, 0x517b: {Name: "smb", Network: true},
	0x65735546: {Name: "fuse", Network: true}, 0x01021997: {Name: "9p", Network: true}, 0x00c36400: {Name: "ceph", Network: true},
	0x0bd00bd0: {Name: "lustre", Network: true}, 0x5346414f: {Name: "afs", Network: true}, 0x01161970: {Name: "gfs2", Network: true},
	0x7461636f: {Name: "ocfs2", Network: true}, 0x786f4256: {Name: "vboxsf", Network: true}, 0x19830326: {Name: "beegfs", Network: true},
}

// KindOf asks the machine's file system what holds path.
func KindOf(path string) (Kind, error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(path, &st) }); err != nil {
		return Kind{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return kindOf(uint32(st.Type)), nil
}

func kindOf(magic uint32) Kind {
	k, known := kinds[magic]
	if !known {
		k.Name = fmt.Sprintf("type %#x", magic)
	}
	return k
}
