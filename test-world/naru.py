"""A naru server under test: started on a free port, asked over HTTP."""

import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request


class Naru:
    """One run of `naru serve` in a folder."""

    def __init__(self, binary, folder):
        self.folder = pathlib.Path(folder)
        self.log = open(self.folder.parent / "naru.log", "ab")
        self.process = subprocess.Popen(
            [binary, "serve", str(self.folder), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"naru did not get ready: {line!r}; see {self.log.name}")
        self.url = line.split()[1]

    def call(self, path, body, **headers):
        """POSTs body, or GETs when it is None, and returns the answer's bytes; an error answer raises with its text."""
        request = urllib.request.Request(
            self.url + path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as refused:
            raise RuntimeError(f"{path}: {refused.code} {refused.read().decode()}") from None

    def send(self, kind, events, stream="events"):
        """Sends objects, and strings as they are, as NDJSON; returns the answer."""
        lines = [e if isinstance(e, str) else json.dumps(e) for e in events]
        answer = self.call(f"/v1/events?type={kind}&stream={stream}", "\n".join(lines).encode(),
                           Content_Type="application/x-ndjson")
        return json.loads(answer)

    def sql(self, query):
        """Returns ([(name, type)], rows)."""
        answer = json.loads(self.call("/v1/sql", query.encode(), Content_Type="text/plain",
                                      Accept="application/json"))
        return [(c["name"], c["type"]) for c in answer["columns"]], answer["rows"]

    def waiting(self):
        """How many events are not yet in committed files."""
        status = json.loads(self.call("/v1/status", None))
        return sum(stream["not_yet_written"] for stream in status["streams"])

    def wait(self, query, want, seconds=60):
        """Polls until the first cell of query is want and all is committed, for other engines see commits only."""
        deadline = time.monotonic() + seconds
        while True:
            got = self.sql(query)[1][0][0]
            if got == want and self.waiting() == 0:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{query}: {got!r}, want {want!r} within {seconds} s")
            time.sleep(0.05)

    def stop(self):
        """SIGTERM; the exit code has to be 0."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60)
        self.log.close()
        if code != 0:
            raise RuntimeError(f"naru ended with {code}; see {self.log.name}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
