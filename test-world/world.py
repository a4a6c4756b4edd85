"""Foreign engines read what naru wrote: same columns, types, rows and sums.

Each group has a time box; a group that fails or takes too long is named. The
last line says how many checks passed and failed.
"""

import argparse
import base64
import contextlib
import datetime
import gzip
import math
import pathlib
import shutil
import signal
import sys
import tempfile
import traceback

import duckdb
import duckdb_extension_avro
import duckdb_extension_iceberg
import duckdb_extension_httpfs
from pyiceberg.catalog.sql import SqlCatalog

import arranged
import files
from naru import Naru

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIKIPEDIA = ROOT / "examples" / "wikipedia" / "wikipedia_edits.ndjson.gz"
CONFIG = "pipelines:\n  commit_interval: 300ms\n"

# SQL type of naru's answer → Iceberg type.
ICEBERG = {
    "BIGINT": "long", "INTEGER": "int", "DOUBLE": "double", "BOOLEAN": "boolean", "VARCHAR": "string",
    "BLOB": "binary", "DATE": "date", "TIMESTAMP WITH TIME ZONE": "timestamptz",
}


def iceberg_type(sql_type):
    if sql_type.endswith("[]"):
        return f"list<{iceberg_type(sql_type[:-2])}>"
    return ICEBERG[sql_type]


class Checks:
    """Counts checks; a failed one is printed and the rest goes on."""

    def __init__(self):
        self.passed = self.failed = 0

    def equal(self, what, got, want):
        if got == want:
            self.passed += 1
            return
        self.failed += 1
        print(f"  FAILED {what}\n    got  {str(got)[:600]}\n    want {str(want)[:600]}")

    def fail(self, what, why):
        self.failed += 1
        print(f"  FAILED {what}\n    {why}")


@contextlib.contextmanager
def group(checks, name, seconds):
    """A named group with a time box."""
    before = checks.passed, checks.failed
    print(f"{name}")

    def over(_signal, _frame):
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    except Exception as broken:  # the group is named, the next one runs
        checks.fail(name, "".join(traceback.format_exception(broken)))
    finally:
        signal.alarm(0)
    print(f"  {checks.passed - before[0]} passed, {checks.failed - before[1]} failed")


# What is sent besides the edits: every type, lists, nesting, null, text of many
# scripts, numbers at the edges.
MIXED = [
    {"n": 1, "f": 0.5, "yes": True, "text": "plain", "time": "2026-01-01T00:00:00Z"},
    {"n": -9223372036854775808, "f": 1e300, "yes": False, "text": "", "time": "2026-01-01T23:59:59.999999Z"},
    {"n": 9223372036854775807, "f": -2.5, "text": "나루 שלום 🙂 \"quoted\" \\ \n line", "time": "2026-01-02T00:00:00+09:00"},
    {"longs": [1, 2, 3], "texts": ["a", None, ""], "doubles": [0.5, 1.5], "flags": [True, False, None], "empty": []},
    {"nested": {"a": 1, "deeper": {"b": "x", "c": [4, 5]}}, "items": [{"sku": "k", "qty": 2}, {"sku": "l"}]},
    {"n": None, "nothing": None, "Mixed Case": 7, "dotted.name": "d", "이름": "한글"},
    {"n": "not a number", "yes": "maybe", "text": 5},  # does not fit: rescued
    {"day": "2026-01-01", "when": "2026-01-01T00:00:00Z", "zip": "01234"},  # strings stay strings
]
# Whole numbers first, a fraction later: the column becomes double.
PROMOTED = [[{"amount": n} for n in range(100)], [{"amount": 0.25}], [{"amount": n} for n in range(100, 200)]]
REFUSED = ["{broken", "[1, 2]", '"text"', '{"a": 1', "\u00e9\u00e9"]


# What the mixed events must become: columns beside the envelope, in the order
# of their first values, and rows without the empty cells.
MIXED_TYPES = {
    "n": "long", "f": "double", "yes": "boolean", "text": "string", "time": "string", "longs": "list<long>",
    "texts": "list<string>", "doubles": "list<double>", "flags": "list<boolean>", "nested_a": "long",
    "nested_deeper_b": "string", "nested_deeper_c": "list<long>", "items": "string", "Mixed Case": "long",
    "dotted.name": "string", "이름": "string", "day": "string", "when": "string", "zip": "string",
}
MIXED_ROWS = MIXED[:3] + [
    {"longs": [1, 2, 3], "texts": ["a", None, ""], "doubles": [0.5, 1.5], "flags": [True, False, None], "_rescued": '{"empty":[]}'},
    {"nested_a": 1, "nested_deeper_b": "x", "nested_deeper_c": [4, 5], "items": '[{"sku": "k", "qty": 2}, {"sku": "l"}]'},
    {"Mixed Case": 7, "dotted.name": "d", "이름": "한글"},
    {"_rescued": '{"n":"not a number","yes":"maybe","text":5}'},
    MIXED[7],
]
ENVELOPE = {"_id", "_type", "_source", "_subject", "_time", "_received_at", "_log", "_partition", "_offset"}


def as_sent(checks, want):
    """What naru answers is what was sent."""
    types, rows = want["events", "mixed"]
    checks.equal("columns of the mixed events", {c: k for c, k in types.items() if c not in ENVELOPE},
                 MIXED_TYPES | {"_rescued": "string"})
    checks.equal("rows of the mixed events",
                 [{c: v for c, v in row.items() if c not in ENVELOPE and v is not None} for row in rows],
                 [{c: plain(v) for c, v in row.items()} for row in MIXED_ROWS])
    types, rows = want["events", "promoted"]
    checks.equal("type of the promoted column", types["amount"], "double")
    checks.equal("sum of the promoted column", total(rows, "amount"), sum(range(200)) + 0.25)
    _, rows = want["events", "wiki_edit"]
    checks.equal("characters added to #en.wikipedia",
                 sum(r["added"] for r in rows if r["channel"] == "#en.wikipedia"), 3045299)
    checks.equal("users", len({r["user"] for r in rows}), 10531)
    _, rows = want["rejected", "rejected"]
    checks.equal("refused items, byte for byte", [base64.b64decode(r["original"]).decode() for r in rows], REFUSED)


def fill(naru, checks):
    """Sends everything and waits until it is committed; returns the tables."""
    with gzip.open(WIKIPEDIA, "rt", encoding="utf-8") as lines:
        edits = [line.rstrip("\n") for line in lines]
    for i in range(0, len(edits), 5000):
        naru.send("wiki_edit", edits[i:i + 5000])
    checks.equal("accepted of the mixed events", naru.send("mixed", MIXED)["accepted"], len(MIXED))
    sent = 0
    for part in PROMOTED:
        naru.send("promoted", part)
        sent += len(part)
        naru.wait("select count(*) from events.promoted", sent)  # a commit of its own
    naru.send("com.Shop.Order-Paid", [{"total": 12.5, "id": "o1"}])
    naru.send("page", [{"path": "/"}], stream="shop")
    checks.equal("items refused", len(naru.send("mixed", REFUSED)["rejected"]), len(REFUSED))
    want = {
        ("events", "wiki_edit"): len(edits), ("events", "mixed"): len(MIXED), ("events", "promoted"): sent,
        ("events", "com_shop_order_paid"): 1, ("shop", "page"): 1, ("rejected", "rejected"): len(REFUSED),
    }
    for (namespace, name), rows in want.items():
        naru.wait(f'select count(*) from "{namespace}"."{name}"', rows)
    return list(want)


def plain(value):
    """A value as every reader can give it."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return int(value)  # JSON does not tell 2.0 from 2
    return value


def own(naru, table):
    """Columns, types and rows (by offset) of a table by naru's own SQL.

    Timestamps and bytes are asked for in a written form, so that no JSON
    format is in the way.
    """
    name = '"{}"."{}"'.format(*table)
    columns, _ = naru.sql(f"select * from {name} limit 0")
    written = {
        "TIMESTAMP WITH TIME ZONE": "strftime({} at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')",
        "DATE": "{}::varchar",
        "BLOB": "to_base64({})",
    }
    asked = ", ".join(written.get(kind, "{}").format('"' + column.replace('"', '""') + '"') for column, kind in columns)
    rows, page = [], 2000
    while True:
        part = naru.sql(f"select {asked} from {name} order by _log, _partition, _offset limit {page} offset {len(rows)}")[1]
        rows += part
        if len(part) < page:
            break
    return {column: iceberg_type(kind) for column, kind in columns}, [
        {column: plain(value) for (column, _), value in zip(columns, row)} for row in rows]


def compare(checks, reader, table, want, got):
    """Compares (types, rows) of a foreign reader with naru's own."""
    what = f"{reader}: {'.'.join(table)}"
    checks.equal(f"{what}: column types", got[0], want[0])
    checks.equal(f"{what}: number of rows", len(got[1]), len(want[1]))
    checks.equal(f"{what}: rows", [r for r, w in zip(got[1], want[1]) if r != w][:2],
                 [w for r, w in zip(got[1], want[1]) if r != w][:2])
    for column, kind in want[0].items():
        if kind in ("long", "int", "double"):
            checks.equal(f"{what}: sum of {column}", total(got[1], column), total(want[1], column))


def total(rows, column):
    return math.fsum(r[column] for r in rows if r.get(column) is not None)


def ordered(rows):
    return sorted(rows, key=lambda r: (r["_log"], r["_partition"], r["_offset"]))


def by_pyiceberg(folder, table):
    """PyIceberg through its SqlCatalog on naru's catalog file."""
    catalog = SqlCatalog("naru", uri=f"sqlite:///{folder}/data/catalog.db", init_catalog_tables="false")
    try:
        loaded = catalog.load_table(table)
        types = {field.name: str(field.field_type) for field in loaded.schema().fields}
        rows = loaded.scan().to_arrow().to_pylist()
    finally:
        catalog.close()
    return types, ordered([{name: plain(value) for name, value in row.items()} for row in rows])


def metadata_of(folder, table):
    """Path of a table's current metadata file, by the catalog."""
    catalog = SqlCatalog("naru", uri=f"sqlite:///{folder}/data/catalog.db", init_catalog_tables="false")
    try:
        return catalog.load_table(table).metadata_location.removeprefix("file://")
    finally:
        catalog.close()


def duck(scratch):
    """DuckDB with its own signed extensions from PyPI."""
    extensions = pathlib.Path(scratch) / "extensions"
    connection = duckdb.connect(config={"extension_directory": str(extensions), "autoinstall_known_extensions": "false"})
    platform = connection.execute("pragma platform").fetchone()[0]
    for package in (duckdb_extension_avro, duckdb_extension_iceberg, duckdb_extension_httpfs):
        for file in pathlib.Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension"):
            target = extensions / file.parent.name / platform
            target.mkdir(parents=True, exist_ok=True)
            if not (target / file.name).exists():  # it may be loaded: never write over it
                shutil.copy(file, target)
    connection.execute("load avro; load iceberg; set timezone = 'UTC'")
    return connection


def by_duckdb(connection, folder, table):
    """DuckDB's own Iceberg reader on the table's metadata file."""
    result = connection.execute(f"select * from iceberg_scan('{metadata_of(folder, table)}')")
    types = {column[0]: iceberg_type(str(column[1])) for column in result.description}
    rows = result.to_arrow_table().to_pylist()
    return types, ordered([{name: plain(value) for name, value in row.items()} for row in rows])


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--naru", required=True, help="the binary")
    binary = str(pathlib.Path(arguments.parse_args().naru).resolve())
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="naru-world-") as scratch:
        folder = pathlib.Path(scratch) / "project"
        folder.mkdir()
        (folder / "naru.yaml").write_text(CONFIG)
        arranged.contract(folder, 0)
        naru = Naru(binary, folder)
        tables, want = [], {}
        try:
            with group(checks, "naru takes the edits and the mixed events", 120):
                tables = fill(naru, checks)
            with group(checks, "naru takes visits, partitioned and sorted in six ways", 120):
                arranged.fill(naru, folder)
                tables.append(arranged.TABLE)
            with group(checks, "naru answers", 120):
                want = {table: own(naru, table) for table in tables}
                checks.equal("tables", len(want), 7)
                as_sent(checks, want)
            with group(checks, "PyIceberg, beside the running server", 120):
                for table in tables:
                    compare(checks, "PyIceberg", table, want[table], by_pyiceberg(folder, table))
            with group(checks, "PyIceberg, by partition", 120):
                arranged.check(checks, folder, want[arranged.TABLE][1])
            with group(checks, "DuckDB, beside the running server", 120):
                connection = duck(scratch)
                for table in tables:
                    compare(checks, "DuckDB", table, want[table], by_duckdb(connection, folder, table))
            with group(checks, "DuckDB, files of sinks", 120):
                files.read(checks, connection, files.check(checks, binary, pathlib.Path(scratch) / "files"))
            with group(checks, "naru stops", 60):
                naru.stop()
                checks.equal("exit code", naru.process.returncode, 0)
            with group(checks, "PyIceberg, on the files alone", 120):
                for table in tables:
                    compare(checks, "PyIceberg", table, want[table], by_pyiceberg(folder, table))
            with group(checks, "DuckDB, on the files alone", 120):
                connection = duck(scratch)
                for table in tables:
                    compare(checks, "DuckDB", table, want[table], by_duckdb(connection, folder, table))
        finally:
            if naru.process.poll() is None:
                naru.kill()
            if checks.failed:
                print((pathlib.Path(scratch) / "naru.log").read_text()[-4000:], file=sys.stderr)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
