package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"naru/internal/bench/load"
	"naru/internal/vfs"
)

const (
	smallWrite = 4 << 10
	largeWrite = 1 << 20
	// fewestSyncs are made however long they take.
	fewestSyncs = 5
)

// probe measures a disk in a folder.
type probe struct {
	fs  vfs.FS
	dir string
	// written is the size of the file that is written over again; longest is where
	// a growing file begins anew, so that a fast disk is not filled. In bytes.
	written, longest int64
}

func newProbe(fsys vfs.FS, dir string) probe {
	return probe{fs: fsys, dir: dir, written: 64 << 20, longest: 256 << 20}
}

// measure takes about a fifth of the time for each of four kinds of sync and for
// the sequential write. The bytes are random, because file systems that compress
// would else write nothing.
func (p probe) measure(ctx context.Context, within time.Duration) (d Disk, err error) {
	data := make([]byte, largeWrite)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	path := filepath.Join(p.dir, "disk")
	f, err := p.fs.Create(path)
	if err != nil {
		return d, fmt.Errorf("measure disk: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close(), p.fs.Remove(path)); err != nil {
			err = fmt.Errorf("measure disk: %w", err)
		}
	}()
	// The sequential write first: it makes the blocks that are written over then.
	if d.Sequential, err = p.sequential(ctx, f, data, within/5); err != nil {
		return d, err
	}
	if err := p.fill(f, data); err != nil {
		return d, err
	}
	for _, size := range []int{smallWrite, largeWrite} {
		s, err := p.syncs(ctx, f, data[:size], p.written, within/5)
		if err != nil {
			return d, err
		}
		d.Syncs = append(d.Syncs, s)
	}
	for _, size := range []int{smallWrite, largeWrite} {
		if err := f.Truncate(0); err != nil {
			return d, err
		}
		s, err := p.syncs(ctx, f, data[:size], 0, within/5)
		if err != nil {
			return d, err
		}
		d.Syncs = append(d.Syncs, s)
	}
	return d, nil
}

// fill writes what the file lacks to p.written bytes.
func (p probe) fill(f vfs.File, data []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := info.Size(); at < p.written; at += int64(len(data)) {
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// sequential gives bytes a second of a file written from end to end, synced
// every p.written bytes and at the end of the time.
func (p probe) sequential(ctx context.Context, f vfs.File, data []byte, within time.Duration) (float64, error) {
	began := time.Now()
	written := int64(0)
	for written == 0 || time.Since(began) < within {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		for part := int64(0); part < p.written && (part == 0 || time.Since(began) < within); part += int64(len(data)) {
			if _, err := f.WriteAt(data, written%p.longest); err != nil {
				return 0, err
			}
			written += int64(len(data))
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(written) / time.Since(began).Seconds(), nil
}

// syncs measures write + sync, one write behind the other: over the first size
// bytes of the file, or with size 0 at its growing end.
func (p probe) syncs(ctx context.Context, f vfs.File, data []byte, size int64, within time.Duration) (Sync, error) {
	s := Sync{Bytes: len(data), Growing: size == 0}
	var took []time.Duration
	began := time.Now()
	for at := int64(0); len(took) < fewestSyncs || time.Since(began) < within; at += int64(len(data)) {
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		switch {
		case size > 0:
			at %= size
		case at >= p.longest:
			if err := f.Truncate(0); err != nil {
				return s, err
			}
			at = 0
		}
		t := time.Now()
		if _, err := f.WriteAt(data, at); err != nil {
			return s, err
		}
		if err := f.Sync(); err != nil {
			return s, err
		}
		took = append(took, time.Since(t))
	}
	slices.Sort(took)
	s.Count, s.P50, s.P99 = len(took), ms(load.Quantile(took, .5)), ms(load.Quantile(took, .99))
	return s, nil
}
