"""The files of the sink `file`, in every format, as DuckDB reads them."""

import time

from naru import Naru

PIPELINE = """
from: {types: [edit]}
steps:
  - sql: SELECT _time, channel, page, added, added / 8 AS x, added > 20 AS big, CAST(_time AS DATE) AS day, note FROM input
to:
"""

# Of each format: its settings, and what reads its files. An empty text of a CSV file
# is null to DuckDB, whatever quotes there are; escapes of a TSV file stay to its reader.
FORMATS = {
    "csv": ("format: csv, compress: gzip", "read_csv('{}', hive_partitioning = false, all_varchar = false)"),
    "tsv": ("format: tsv, compress: gzip", r"read_csv('{}', hive_partitioning = false, delim = '\t', quote = '', escape = '', nullstr = '\N')"),
    "avro": ("format: avro, compress: gzip", "read_avro('{}', hive_partitioning = false)"),
    "parquet": ("format: parquet, compress: zstd", "read_parquet('{}', hive_partitioning = false)"),
    "ndjson": ("format: ndjson, compress: zstd", "read_json('{}', hive_partitioning = false)"),
}

ROWS = [
    ("#en.wikipedia", 'Peer, "Gynt"', 36, "a\tb\\c\r\nd"),
    ("#ko/x", "나루", 17, ""),
    ("..", "100 %", -4, None),
    (None, "p", None, "=1+1"),
    ("a=b", "\u2028", 9007199254740993, "NULL"),
]


def check(checks, binary, folder):
    """Writes ROWS through a pipeline with a sink for each format, and reads them."""
    (folder / "pipelines").mkdir(parents=True)
    sinks = [f"  - name: {name}\n    file: {{dir: out/{name}, {settings}, roll: {{every: 100ms}}, path: \"day={{_time:%F}}/channel={{channel}}\"}}"
             for name, (settings, _) in FORMATS.items()]
    (folder / "pipelines" / "files.yaml").write_text(PIPELINE + "\n".join(sinks) + "\n")
    naru = Naru(binary, folder)
    try:
        sent = naru.send("edit", [{"time": f"2015-09-12T1{i}:00:00.123456Z", "channel": c, "page": p, "added": a, "note": n}
                                  for i, (c, p, a, n) in enumerate(ROWS)])
        checks.equal("edits taken", sent["accepted"], len(ROWS))
        deadline = time.monotonic() + 60
        while len(list((folder / "out").glob("*/*/*/part-*"))) < len(FORMATS) * len(ROWS):
            if time.monotonic() > deadline:
                raise RuntimeError("the files do not appear")
            time.sleep(0.05)
    finally:
        naru.stop()
    return {name: str(folder / "out" / name) for name in FORMATS}


def read(checks, connection, folders):
    """What DuckDB reads is what was sent, and so are the folders' names."""
    for name, folder in folders.items():
        source = FORMATS[name][1].format(folder + "/*/*/part-*")
        rows = connection.execute(
            f"select channel, page, added, x, big, cast(day as varchar), note, epoch_us(_time) from {source} order by _time").fetchall()
        for i, (channel, page, added, note) in enumerate(ROWS):
            if name == "csv":
                note = note or None
            if name == "tsv" and note:
                note = note.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")
            want = (channel, page, added, added / 8 if added else None, added > 20 if added else None, "2015-09-12", note,
                    1442052000123456 + i * 3600_000_000)
            checks.equal(f"{name}, row {i}", rows[i] if i < len(rows) else None, want)
        checks.equal(f"{name}, rows", len(rows), len(ROWS))
    channels = connection.execute(
        f"select distinct channel from read_parquet('{folders['parquet']}/*/*/*.parquet', hive_partitioning = true) order by 1").fetchall()
    checks.equal("names of folders", [c for c, in channels], sorted(c or "__null__" for c, _, _, _ in ROWS))
