"""ClickHouse on loopback for tests: the engine of the package chdb-core behind as
much of ClickHouse's HTTP interface as a writer needs.

No package of the registries has a recent server, but this library is the server's
own code: SQL, formats, errors, MergeTree and its deduplication are the real thing.
What stands before it, this file, is not: HTTP, users, parallel queries.

    clickhouse.py PORT DIR
"""

import gzip
import http.server
import re
import sys
import threading
import urllib.parse

from chdb import session

PASSWORD = "naru-test"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer goes out at once, not by header and body
    engine: session.Session
    lock = threading.Lock()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # cut off: the server does not take a part either
            self.close_connection = True
            return
        if self.headers.get("X-ClickHouse-User") != "naru" or self.headers.get("X-ClickHouse-Key") != PASSWORD:
            self.answer(403, b"Code: 516. DB::Exception: nobody: Authentication failed. (AUTHENTICATION_FAILED)", "516")
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
        if body:
            query += "\n" + body.decode()
        try:
            with self.lock:
                out = self.engine.query(query, "TabSeparated")
            self.answer(200, out.bytes() if out is not None else b"")
        except Exception as e:  # noqa: BLE001 - chdb's errors have no class of their own
            text = str(e)
            codes = re.findall(r"Code: (\d+)", text)
            self.answer(404 if "60" in codes[-1:] else 500, text.encode(), codes[-1] if codes else None)

    def answer(self, status, body, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    port, folder = int(sys.argv[1]), sys.argv[2]
    Handler.engine = session.Session(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
