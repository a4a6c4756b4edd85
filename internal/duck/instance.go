package duck

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

// instance is a DuckDB that runs user SQL. It can read files below the warehouse
// and nothing else, and its configuration is locked: the second line behind the
// gate. A DuckDB that has met an internal error refuses all further work; such an
// instance is replaced.
type instance struct {
	db     *database
	copies copies

	mu struct {
		sync.Mutex
		admin  *conn // detaches what queries leave
		users  int
		broken bool
	}
}

func openInstance(cfg Config) (*instance, error) {
	return openInstanceWith(cfg, func(*conn) error { return nil })
}

// openInstanceWith runs setup before the configuration is locked.
func openInstanceWith(cfg Config, setup func(*conn) error) (*instance, error) {
	db, err := openDatabase(
		option{"threads", strconv.Itoa(cfg.Threads)},
		option{"memory_limit", strconv.FormatInt(int64(cfg.Memory), 10) + "B"},
		option{"temp_directory", cfg.Temp},
		option{"max_temp_directory_size", strconv.FormatInt(int64(cfg.TempSize), 10) + "B"},
		option{"autoinstall_known_extensions", "false"},
		option{"autoload_known_extensions", "false"},
		option{"allow_community_extensions", "false"},
		option{"allow_persistent_secrets", "false"},
		// It would keep what was read of every data file, up to the limit of
		// memory, beside the page cache, which has it already: 110 KB for each file
		// of a table of page views. Queries are no faster for it.
		option{"enable_external_file_cache", "false"},
	)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, dir := range cfg.roots() {
		roots = append(roots, literal(dir))
	}
	in := &instance{db: db}
	in.mu.admin, err = db.connect()
	if err == nil {
		err = setup(in.mu.admin)
	}
	if err == nil {
		err = in.mu.admin.exec(strings.Join([]string{
			"SET GLOBAL TimeZone = 'UTC'",
			"SET GLOBAL Calendar = 'gregorian'",
			"SET GLOBAL max_expression_depth = " + strconv.Itoa(maxDepth),
			"SET allowed_directories = [" + strings.Join(roots, ", ") + "]",
			"SET enable_external_access = false",
			"SET lock_configuration = true",
		}, "; "))
	}
	if err != nil {
		in.close()
		return nil, fmt.Errorf("configure duckdb: %w", err)
	}
	return in, nil
}

// maxDepth of expressions: the optimizer's time grows with its cube (a chain of
// 400 || takes 2 s, of 900 24 s) and cannot be interrupted.
const maxDepth = 400

func (in *instance) close() {
	if in.mu.admin != nil {
		in.mu.admin.close()
	}
	in.db.close()
}

// attach makes an empty catalog for one query.
func (in *instance) attach(catalog string) error {
	in.mu.Lock() // DuckDB call under the lock: the admin connection takes one at a time
	defer in.mu.Unlock()
	return in.mu.admin.exec("ATTACH ':memory:' AS " + ident(catalog))
}

func (in *instance) detach(catalog string, log *slog.Logger) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.mu.admin.exec("DETACH " + ident(catalog)); err != nil && !in.mu.broken {
		log.Warn("catalog of a query stays", "catalog", catalog, "error", err)
	}
}

// leave gives the instance back and tells whether it is to be closed.
func (in *instance) leave() (last bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mu.users--
	return in.mu.broken && in.mu.users == 0
}

// enter takes the instance for a query; false when it is broken.
func (in *instance) enter() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.mu.broken {
		return false
	}
	in.mu.users++
	return true
}

// idle tells whether nobody is in the instance and somebody may enter.
func (in *instance) idle() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.mu.users == 0 && !in.mu.broken
}

// spoil marks the instance as broken: no query enters any more, the last one
// to leave closes it.
func (in *instance) spoil() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mu.broken = true
}
