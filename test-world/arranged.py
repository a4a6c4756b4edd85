"""A table whose files a contract has partitioned and sorted, as PyIceberg sees it.

The contract changes on the way, so files of several partition specs lie beside
each other.
"""

import datetime
import time

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, IsNull, LessThan

TABLE = ("events", "visit")
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: visits
version: {version}
status: active
schema:
  - name: visit
    customProperties:
      - {{property: naru.partition, value: {partition}}}
      - {{property: naru.sort, value: {sort}}}
    properties:
      - {{name: at, logicalType: timestamp}}
      - {{name: born, logicalType: date}}
      - {{name: country, logicalType: string, customProperties: [{{property: naru.enum, value: [KR, DE, "한국", "a/b %"]}}]}}
      - {{name: member, logicalType: boolean}}
      - {{name: user, logicalType: string}}
      - {{name: n, logicalType: integer}}
      - {{name: paid, logicalType: number}}
"""
CHANGES = [
    ("[day(at)]", "none"),
    ('[month(at), country, "bucket(8, user)"]', "[user, at desc]"),
    ('[country, member, hour(_time), "bucket(3, n)"]', "[paid desc, n]"),
    ('[year(born), "bucket(5, at)"]', "[country desc, member, born]"),
    ('["bucket(5, born)", "bucket(4, _offset)"]', "[_source, n desc]"),
    ("none", "[at]"),
]
COUNTRIES = ["KR", "DE", "한국", "a/b %", None]


def visits(first, count):
    """Events of many times, users and countries; some fields are missing."""
    start = datetime.datetime(1969, 11, 1, tzinfo=datetime.timezone.utc)
    for i in range(first, first + count):
        at = start + datetime.timedelta(hours=i * 37 % 4000, microseconds=i)
        row = {"at": at.isoformat(), "born": at.date().isoformat(), "country": COUNTRIES[i * 7 % 5], "member": [True, False, None][i % 3],
               "user": f"user-{i * 31 % 97}" if i % 11 else None, "n": (i * 7919 % 1009 - 500) * 10**(i % 15), "paid": i * 13 % 101 / 4 - 5}
        yield {name: value for name, value in row.items() if value is not None}


def contract(folder, version):
    partition, sort = CHANGES[version]
    contracts = folder / "contracts"
    contracts.mkdir(exist_ok=True)
    (contracts / "visits.tmp").write_text(CONTRACT.format(version=f"1.{version}.0", partition=partition, sort=sort))
    (contracts / "visits.tmp").rename(contracts / "visits.odcs.yaml")


def load(folder):
    catalog = SqlCatalog("naru", uri=f"sqlite:///{folder}/data/catalog.db", init_catalog_tables="false")
    try:
        return catalog.load_table(TABLE)
    finally:
        catalog.close()


def fill(naru, folder, seconds=60):
    """Sends visits under each contract; the first one is in force. Returns how many."""
    sent = 0
    for version in range(len(CHANGES)):
        if version:
            contract(folder, version)
            deadline = time.monotonic() + seconds
            while load(folder).metadata.default_spec_id != version:  # until it is in force
                if time.monotonic() > deadline:
                    raise RuntimeError(f"contract 1.{version}.0 is not in force after {seconds} s")
                naru.send("visit", list(visits(sent, 1)))
                sent += 1
                naru.wait("select count(*) from events.visit", sent)
        for _ in range(2):
            naru.send("visit", list(visits(sent, 400)))
            sent += 400
            naru.wait("select count(*) from events.visit", sent)
    return sent


def check(checks, folder, rows):
    """Partitions, orders and pruned scans; rows are naru's own, by column."""
    table = load(folder)
    schema, meta = table.schema(), table.metadata
    specs = table.specs()
    checks.equal("partition specs", [len(specs[i].fields) > 0 for i in sorted(specs)], [True] * 5 + [False])
    checks.equal("default order", [str(f) for f in table.sort_order().fields], [f"{schema.find_field('at').field_id} ASC NULLS FIRST"])
    orders = {o.order_id: o for o in meta.sort_orders}
    files = [t.file for t in table.scan().plan_files()]
    checks.equal("specs that files have", sorted({f.spec_id for f in files}), [0, 1, 2, 3, 4, 5])
    checks.equal("orders that files have", {f.sort_order_id for f in files} >= {1, 2, 3, 4, 5}, True)
    wrong = []
    for f in files:
        data = pyarrow.parquet.read_table(f.file_path.removeprefix("file://"), partitioning=None)
        for i, field in enumerate(specs[f.spec_id].fields):
            column = schema.find_field(field.source_id)
            transform = field.transform.transform(column.field_type)
            values = {transform(internal(v)) for v in data.column(column.name).to_pylist()}
            if values != {f.partition[i]}:
                wrong.append((f.file_path, field.name, f.partition[i], values))
        if f.sort_order_id and not in_order(data, schema, orders[f.sort_order_id]):
            wrong.append((f.file_path, "order", f.sort_order_id))
    checks.equal("what files say of their rows", wrong[:3], [])
    day = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    for what, pruned, wanted in [
        ("a country", EqualTo("country", "KR"), lambda r: r["country"] == "KR"),
        ("another country", EqualTo("country", "a/b %"), lambda r: r["country"] == "a/b %"),
        ("no country", IsNull("country"), lambda r: r["country"] is None),
        ("a user", EqualTo("user", "user-31"), lambda r: r["user"] == "user-31"),
        ("a number", EqualTo("n", rows[900]["n"]), lambda r: r["n"] == rows[900]["n"]),
        ("a day", And(GreaterThanOrEqual("at", day.isoformat()), LessThan("at", (day + datetime.timedelta(days=1)).isoformat())),
         lambda r: (r["at"] or "").startswith("1970-01-01")),
        ("members of a birthday", And(EqualTo("member", True), EqualTo("born", "1969-12-31")), lambda r: r["member"] and r["born"] == "1969-12-31"),
    ]:
        scan = table.scan(row_filter=pruned)
        got = sorted(scan.to_arrow().column("_offset").to_pylist())
        checks.equal(f"PyIceberg: rows of {what}", got, sorted(r["_offset"] for r in rows if wanted(r)))
        checks.equal(f"PyIceberg: {what} needs fewer files", len(list(scan.plan_files())) < len(files), True)


def internal(value):
    """A value as PyIceberg's transforms take it."""
    if isinstance(value, datetime.datetime):
        since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, datetime.date):
        return (value - datetime.date(1970, 1, 1)).days
    return value


def in_order(data, schema, order):
    """Whether rows stand in the order; null is less than every value."""
    columns = [(data.column(schema.find_field(f.source_id).name).to_pylist(), "DESC" in str(f)) for f in order.fields]
    for above, below in zip(range(len(data)), range(1, len(data))):
        for values, descending in columns:
            a, b = values[above], values[below]
            if a == b:
                continue
            less = a is None or b is not None and (a.encode() < b.encode() if isinstance(a, str) else a < b)
            if less == descending:
                return False
            break
    return True
