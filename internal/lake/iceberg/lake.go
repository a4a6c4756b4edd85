// Package iceberg keeps the lake's tables as Apache Iceberg tables, format v2,
// on local disk, under a SQLite catalog. It is the only importer of iceberg-go.
//
// A commit is: data files (durable), manifest, manifest list, metadata file
// (each durable), then one row of the catalog. The row is what makes it happen;
// everything before it is garbage when the row does not come. See
// docs/format/lake-commits.md.
package iceberg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"naru/internal/fault"
	"naru/internal/lake"
	"naru/internal/lake/columnar"
	"naru/internal/vfs"
)

// Names inside the data folder.
const (
	catalogFile = "catalog.db"
	lakeFolder  = "lake"
	rootFile    = "root" // inside lakeFolder: its own absolute path
	lockFile    = "lock"
)

// Lake is all tables of one data folder. Safe for concurrent use.
type Lake struct {
	cfg      Config
	fs       vfs.FS
	io       fileIO
	root     string // absolute path of the warehouse
	catalog  Catalog
	log      *slog.Logger
	writer   string // 12 hexadecimal digits: who wrote a file
	files    atomic.Int64
	lock     io.Closer
	readOnly bool
	now      func() time.Time

	// Limits are shared by all sinks.
	Writers *columnar.Writers
	Rate    *Rate
	memory  atomic.Int64
	sinks   atomic.Int64

	mu struct {
		sync.Mutex
		tables map[lake.Ident]*Table
	}
	garbage  garbage
	claims   claims
	refusals refusals
	streams  streams
	marks    marks
	shapes   shapes
	dropped  sync.Mutex // guards droppedFile
}

var _ lake.Reader = (*Lake)(nil)

// Option changes how a lake is opened.
type Option func(*Lake)

// WithCatalog uses c in place of the SQLite catalog; the lake closes it.
func WithCatalog(c Catalog) Option { return func(l *Lake) { l.catalog = c } }

// WithClock uses another clock than the machine's.
func WithClock(now func() time.Time) Option { return func(l *Lake) { l.now = now } }

// ReadOnly opens without a lock, to look only: commits fail.
func ReadOnly() Option { return func(l *Lake) { l.readOnly = true } }

// ErrElsewhere: the data folder was moved or copied.
var ErrElsewhere = errors.New("data folder is not where its tables were made")

// Open opens or makes the lake in dir: dir/catalog.db and dir/lake. One process
// may have it open for writing.
func Open(ctx context.Context, cfg Config, fsys vfs.FS, dir string, log *slog.Logger, opts ...Option) (_ *Lake, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open lake: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open lake %s: %w", dir, err)
	}
	l := &Lake{cfg: cfg, fs: fsys, io: fileIO{fsys}, root: filepath.Join(abs, lakeFolder), log: log, now: time.Now,
		writer: newWriterID(), Writers: columnar.NewWriters(cfg.OpenWriters), Rate: NewRate(cfg.CommitRate)}
	l.mu.tables = map[lake.Ident]*Table{}
	for _, opt := range opts {
		opt(l)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	known, err := l.checkRoot()
	if err != nil {
		return nil, err
	}
	if err := l.loadShapes(); err != nil {
		if !l.readOnly {
			return nil, fmt.Errorf("open lake: %w", err)
		}
		// Whoever looks for damage is to find it.
		log.Warn("what contracts say of tables and columns is not known", slog.Any("error", err))
	}
	if !l.readOnly {
		if err := fsys.MkdirAll(l.root); err != nil {
			return nil, fmt.Errorf("open lake: %w", err)
		}
		if l.lock, err = fsys.Lock(filepath.Join(l.root, lockFile)); err != nil {
			return nil, fault.WithHint(fmt.Errorf("open lake: %w", err), "another naru has %s open; stop it first", dir)
		}
		// Once only: a start on a full disk has nothing to write here.
		if !known {
			if err := l.io.WriteFile(filepath.Join(l.root, rootFile), []byte(l.root+"\n")); err != nil {
				return nil, fmt.Errorf("open lake: %w", err)
			}
		}
		if err := l.renewRefusals(); err != nil {
			return nil, fmt.Errorf("open lake: %w", err)
		}
	}
	if l.catalog == nil {
		there, err := l.checkCatalog(filepath.Join(abs, catalogFile))
		if err != nil {
			return nil, err
		}
		if l.readOnly && !there {
			l.catalog = NewMemoryCatalog() // whoever only looks makes no file
			return l, nil
		}
		c, err := OpenSQLite(ctx, filepath.Join(abs, catalogFile))
		if err != nil {
			return nil, err
		}
		l.catalog = c
		if err := fsys.SyncDir(abs); err != nil {
			return nil, fmt.Errorf("open lake: %w", err)
		}
	}
	return l, nil
}

// ErrNoCatalog: the tables are there, and the catalog that leads to them is not.
var ErrNoCatalog = errors.New("catalog is gone")

// checkCatalog refuses to make an empty catalog beside tables: nobody would see
// their rows any more, and the log's watermark would be ahead of the new ones.
func (l *Lake) checkCatalog(path string) (there bool, err error) {
	if _, err = l.fs.Stat(path); err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("open lake: %w", err)
	}
	for _, ns := range l.list(l.root) {
		for _, name := range l.list(filepath.Join(l.root, ns)) {
			if used, err := l.hasMetadata(filepath.Join(l.root, ns, name)); used || err != nil {
				return false, fault.WithHint(fmt.Errorf("open lake: %w: %s is not there, and there are tables below %s", ErrNoCatalog, path, l.root),
					"%s", cureOf(CheckedFile{Kind: KindCatalog, Path: path}))
			}
		}
	}
	return false, nil
}

// checkRoot refuses a folder that was moved or copied: the tables hold absolute
// paths, so a copy would read, and delete, files of the original. A path that
// leads to the same folder another way is fine. known is false for a new lake.
func (l *Lake) checkRoot() (known bool, err error) {
	b, err := l.io.ReadFile(filepath.Join(l.root, rootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open lake: %w", err)
	}
	was := strings.TrimSpace(string(b))
	if was == l.root {
		return true, nil
	}
	there, err := l.fs.Stat(was)
	if here, herr := l.fs.Stat(l.root); err == nil && herr == nil && os.SameFile(here, there) {
		l.root = was
		return true, nil
	}
	return false, fault.WithHint(fmt.Errorf("open lake %s: %w: it was made at %s, says %s", l.root, ErrElsewhere, was, filepath.Join(l.root, rootFile)),
		"move the folder back to %s, or make that path lead to it (a bind mount or a link); the paths inside Iceberg tables are absolute. naru backup --root makes a copy for another place", was)
}

// Close releases the catalog and the lock.
func (l *Lake) Close() error {
	var errs []error
	if l.catalog != nil {
		errs = append(errs, l.catalog.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// FS is the file system that the tables lie on.
func (l *Lake) FS() vfs.FS { return l.fs }

// Config returns the limits.
func (l *Lake) Config() Config { return l.cfg }

// Table gives the handle of a table, which need not exist yet.
func (l *Lake) Table(t lake.Ident) *Table {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.mu.tables[t]
	if h == nil {
		h = &Table{lake: l, ident: t}
		l.mu.tables[t] = h
	}
	return h
}

// Join counts one more sink among which the memory is shared, until leave is
// called.
func (l *Lake) Join() (leave func()) {
	l.sinks.Add(1)
	return sync.OnceFunc(func() { l.sinks.Add(-1) })
}

// HoldMemory adds to the bytes that uncommitted rows take over all sinks, and
// tells by how much the sum is beyond the budget; 0 when it is not.
func (l *Lake) HoldMemory(delta int64) (over int64) {
	return max(0, l.memory.Add(delta)-int64(l.cfg.Memory))
}

// FairShare is how much of the memory a sink may hold in any case: when the
// budget is exceeded, those above it have to commit.
func (l *Lake) FairShare() int64 { return int64(l.cfg.Memory) / (2 * max(1, l.sinks.Load())) }

// CreateFile begins a durable data file: it is there, synced, when Close
// returns, and its name has got the checksum of its bytes.
func (l *Lake) CreateFile(path string) (columnar.Output, error) { return l.io.createSummed(path) }

// current returns the newest head of a table that exists.
func (l *Lake) current(ctx context.Context, t lake.Ident) (*head, error) {
	l.mu.Lock()
	known := l.mu.tables[t]
	l.mu.Unlock()
	if known != nil {
		return known.refresh(ctx)
	}
	if _, err := l.catalog.Location(ctx, t); err != nil {
		return nil, err // a name that somebody made up must not stay in memory
	}
	return l.Table(t).refresh(ctx)
}

// nextFile counts the files of this writer.
func (l *Lake) nextFile() int64 { return l.files.Add(1) }

func newWriterID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
