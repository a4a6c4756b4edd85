"""DuckDB loads an NDJSON file into one zstd Parquet file: duckdb_load.py IN OUT.

Prints one JSON line. The time is that of the COPY alone, without the start of
Python and the import; DuckDB finds the columns and their types itself, uses
all cores, and does not sync the file.
"""

import json
import resource
import sys
import time

import duckdb

source, target = sys.argv[1:]
connection = duckdb.connect()
before = resource.getrusage(resource.RUSAGE_SELF)
began = time.perf_counter()
rows = connection.execute(
    f"copy (from read_json('{source}', format = 'newline_delimited')) to '{target}' (format parquet, compression zstd)"
).fetchone()[0]
seconds = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"version": duckdb.__version__, "seconds": seconds, "cpu_seconds": cpu, "rows": rows}))
