"""What `quorumca dev` sees of a node: it answers roots on the address in its configuration until it is told to end.

Run as `fake_node.py agent --config FILE`. Files beside the configuration change how it behaves: `broken` (ends with
the text in it), `deaf` (does not end at SIGTERM), `rootless` (has no active root), `servers` (names of the cluster's
servers).
"""

import json
import signal
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

CONFIG = Path(sys.argv[3])
DIRECTORY = CONFIG.parent


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        root = "" if (DIRECTORY / "rootless").exists() else "aa:bb"
        servers = DIRECTORY / "servers"
        if self.path == "/v1/connect/ca/roots":
            self._answer({"ActiveRootID": root, "TrustDomain": "11.consul"})
        elif self.path == "/v1/operator/raft/configuration" and servers.exists():
            self._answer({"Servers": [{"ID": name} for name in servers.read_text().split()]})
        else:
            self.send_error(404)

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in http.server
        pass


def end(*_signal: object) -> None:
    if not (DIRECTORY / "deaf").exists():
        raise SystemExit(0)


signal.signal(signal.SIGTERM, end)
if (DIRECTORY / "broken").exists():
    print('{"event":"node.started"}', flush=True)
    raise SystemExit((DIRECTORY / "broken").read_text())
host, _, port = tomllib.loads(CONFIG.read_text())["http"]["address"].rpartition(":")
HTTPServer((host, int(port)), Handler).serve_forever(0.01)
