// Package arch holds the rules of the code's shape, each with its reason; its
// test checks them. docs/ARCHITECTURE.md says the same to people.
package arch

// rings: a package imports only packages of lower rings, so that it can be
// read, tested and replaced without what stands above it.
var rings = map[string]int{
	// 0 words: the nouns and the error classes; they know nothing.
	"internal/event": 0,
	"internal/fault": 0,
	// 1 tools: files, encodings, HTTP and metrics plumbing; they know no streams.
	"internal/vfs":             1,
	"internal/recordbatch":     1,
	"internal/quantity":        1,
	"internal/jsonscan":        1,
	"internal/web":             1,
	"internal/obs":             1,
	"internal/problem":         1,
	"internal/spelling":        1,
	"internal/strict":          1,
	"internal/row":             1,
	"internal/visit":           1,
	"internal/script":          1,
	"internal/geoip":           1,
	"internal/geoip/geoiptest": 1,
	// 2 seams: interfaces and pure logic, with the conformance suites beside them.
	"internal/stream":            2,
	"internal/stream/streamtest": 2,
	"internal/sink":              2,
	"internal/sink/sinktest":     2,
	"internal/sink/secure":       2,
	"internal/sink/request":      2,
	"internal/sink/relational":   2,
	"internal/lake":              2,
	"internal/query":             2,
	"internal/transform":         2,
	"internal/rowfile":           2,
	"internal/contract":          2,
	// 3 drivers: one foreign system each.
	"internal/dedupe":             3,
	"internal/stream/seglog":      3,
	"internal/stream/memory":      3,
	"internal/sink/table":         3,
	"internal/sink/stream":        3,
	"internal/sink/memory":        3,
	"internal/sink/http":          3,
	"internal/sink/postgres":      3,
	"internal/sink/kafka":         3,
	"internal/sink/file":          3,
	"internal/sink/s3":            3,
	"internal/sink/mysql":         3,
	"internal/sink/redis":         3,
	"internal/sink/cassandra":     3,
	"internal/sink/elasticsearch": 3,
	"internal/sink/clickhouse":    3,
	"internal/lake/columnar":      3,
	"internal/lake/iceberg":       3,
	"internal/duck":               3,

	"internal/pipeline/definition": 3,
	// 4 engines: what naru does.
	"internal/collect":        4,
	"internal/collect/native": 4,
	"internal/pipeline":       4,
	"internal/pipeline/proof": 4,
	"internal/backup":         4,
	"internal/verify":         4,
	"internal/hottail":        4,
	"internal/rejection":      4,
	"internal/serve/sql":      4,
	"internal/serve/status":   4,
	"internal/serve/tail":     4,
	"internal/client":         4,
	"internal/client/records": 4,
	"internal/client/upload":  4,
	"internal/bench/load":     4,
	// 5 edges: putting it together.
	"internal/config":     5,
	"internal/app":        5,
	"internal/arch":       5,
	"internal/bench":      5,
	"internal/simulation": 5,
	"cmd/naru":            5,
	"bench":               5,
	"e2e":                 5,
	"soak":                5,
	"examples/wikipedia":  5,
	"examples/influx":     5,
}

// sideways are imports within a ring that are allowed, each with its reason.
var sideways = map[[2]string]string{
	{"internal/web", "internal/jsonscan"}:                 "texts in answers are quoted as everywhere else",
	{"internal/strict", "internal/problem"}:               "mistakes in files are told as everywhere else",
	{"internal/strict", "internal/spelling"}:              "the key that was probably meant",
	{"internal/row", "internal/jsonscan"}:                 "rows are JSON objects",
	{"internal/web", "internal/quantity"}:                 "limits of requests are written as sizes and durations",
	{"internal/contract", "internal/lake"}:                "a contract says which table and columns its events get",
	{"internal/query", "internal/lake"}:                   "names in SQL resolve to tables",
	{"internal/stream/streamtest", "internal/stream"}:     "the conformance suite of that seam",
	{"internal/sink/relational", "internal/sink"}:         "what sinks into SQL databases share",
	{"internal/sink/sinktest", "internal/sink"}:           "the conformance suite of that seam",
	{"internal/duck", "internal/lake/columnar"}:           "what steps read of events are the columns that their tables have",
	{"internal/sink/secure", "internal/sink"}:             "files are found from a sink's surroundings",
	{"internal/lake/iceberg", "internal/lake/columnar"}:   "a table's schema is one of columnar's, and a promotion rewrites its files",
	{"internal/sink/table", "internal/lake/iceberg"}:      "the sink of that lake: its exactness is the commit's",
	{"internal/sink/table", "internal/lake/columnar"}:     "rows are built as columns",
	{"internal/sink/s3", "internal/sink/file"}:            "objects are files that are uploaded in place of being renamed",
	{"internal/collect/native", "internal/collect"}:       "a door builds on what all doors share",
	{"internal/client/upload", "internal/client"}:         "an upload is many requests of the client",
	{"internal/client/upload", "internal/client/records"}: "an upload sends records",
	{"internal/app", "internal/config"}:                   "the composition root takes the settings apart",
	{"internal/bench", "internal/config"}:                 "what it measures has the folder's settings",
	{"cmd/naru", "internal/bench"}:                        "bench is a command",
	{"cmd/naru", "internal/config"}:                       "commands read settings",
	{"cmd/naru", "internal/app"}:                          "serve runs the composition root",
}

// foreign: one library, one importing package, so that it can be replaced in
// one place. More than one importer needs a reason.
var foreign = map[string]struct {
	importers []string
	why       string // why more than one, if so
}{
	"github.com/duckdb/duckdb-go-bindings": {importers: []string{"internal/duck"}},
	"github.com/apache/iceberg-go":         {importers: []string{"internal/lake/iceberg", "soak"}, why: bySoak},
	"github.com/twmb/franz-go":             {importers: []string{"internal/sink/kafka"}},
	"github.com/twmb/avro":                 {importers: []string{"internal/lake/iceberg", "internal/rowfile"}, why: byRowfile},
	"github.com/apache/arrow-go/v18":       {importers: []string{"internal/lake/columnar", "internal/rowfile", "soak"}, why: byRowfile + "; " + bySoak},
	"github.com/minio/minio-go/v7":         {importers: []string{"internal/sink/s3"}},
	"modernc.org/sqlite":                   {importers: []string{"internal/lake/iceberg", "soak"}, why: bySoak},
	"github.com/go-mysql-org/go-mysql":     {importers: []string{"internal/sink/mysql"}},
	"github.com/jackc/pgx/v5":              {importers: []string{"internal/sink/postgres"}},
	"github.com/google/uuid":               {importers: []string{"internal/lake/iceberg"}},
	"github.com/cespare/xxhash/v2":         {importers: []string{"internal/lake/columnar"}},
	"github.com/dop251/goja":               {importers: []string{"internal/script"}},
	"github.com/oschwald/maxminddb-golang": {importers: []string{"internal/geoip"}},
	"github.com/zeebo/xxh3":                {importers: []string{"internal/dedupe"}},
	"github.com/spf13/cobra":               {importers: []string{"cmd/naru"}},
	"golang.org/x/term":                    {importers: []string{"cmd/naru"}},
	"github.com/apache/cassandra-gocql-driver/v2": {
		importers: []string{"internal/sink/cassandra"},
	},
	"go.yaml.in/yaml/v3": {importers: []string{"internal/strict", "internal/contract"},
		why: "a contract is YAML by a language of its own, which others have defined"},
	"github.com/santhosh-tekuri/jsonschema/v6": {importers: []string{"internal/contract"}},
	"github.com/prometheus/client_golang":      {importers: []string{"internal/obs", "internal/collect"}, why: "obs hands out the library's counters; the door counts per event and holds them itself"},
	"golang.org/x/sys":                         {importers: []string{"internal/vfs", "bench"}, why: "bench asks for CPU time and file systems of other processes, which is not naru's business"},
	"github.com/klauspost/compress": {importers: []string{"internal/recordbatch", "internal/web", "internal/client/records", "internal/sink/http", "internal/rowfile", "internal/lake/columnar", "soak"},
		why: "a family of codecs: of record batches, of request bodies, of files to send, of what sinks send, of pages of data files, of soak's own requests"},
}

// bySoak is why soak imports what drivers do.
const bySoak = "soak reads the lake with none of naru's code, so that a fault of that code cannot hide itself"

// byRowfile is why rowfile imports what the lake does.
const byRowfile = "the lake's files have field ids and a schema that grows; rowfile's are of plain rows, for others to read"

// badNames say nothing of what is in a package, so everything ends up there.
var badNames = []string{"util", "utils", "common", "helpers", "base", "core", "types", "models", "shared", "manager", "misc"}

// Longest files, in lines: main is a table of contents, and a file that is
// longer than the other has more than one noun.
const (
	longestMain = 100
	longestFile = 500
)

// blankImports are allowed, each with its reason. Else nothing starts by itself:
// no init functions, no imports for their side effects; lists of kinds are
// written out where they are used.
var blankImports = map[string]string{
	"embed": "go:embed wants it; it does nothing",
}

// writers may change files without vfs, each with its reason. All others go
// through vfs, so that tests can make calls fail and cut the power.
var writers = map[string]string{
	"internal/vfs":       "is the door to the disk",
	"internal/duck":      "DuckDB's spill folder: DuckDB writes there without vfs in any case",
	"bench":              "is not part of naru",
	"soak":               "is not part of naru",
	"examples/wikipedia": "is not part of naru",
}

// writing are the functions of package os that change files.
var writing = []string{"Create", "CreateTemp", "OpenFile", "WriteFile", "Rename", "Remove", "RemoveAll", "Mkdir", "MkdirAll", "MkdirTemp",
	"Link", "Symlink", "Truncate", "Chmod", "Chtimes", "CopyFS"}
