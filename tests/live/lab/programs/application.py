"""An application of the lab: says who it is, and calls others when asked to.

`application serve` answers every GET on its ports with its name and version. `application call
URL...`, run beside it with `docker exec`, sends one GET to each URL as this application would,
and prints what each met.
"""

import json
import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_PATIENCE: Final = 4
"""Seconds for one call."""


def _who() -> dict[str, str]:
    return {
        "service": os.environ.get("LAB_SERVICE", ""),
        "version": os.environ.get("LAB_VERSION", ""),
        "host": socket.gethostname(),
    }


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(_who()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # A proxy that once got past the redirect would come back that way as long as it is open.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _call(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 # as given
            who = json.loads(answer.read())
            return {"url": url, "status": answer.status, **who}
    except urllib.error.HTTPError as error:
        return {
            "url": url,
            "status": error.code,
            "error": error.read(200).decode("ascii", "replace"),
        }
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return {"url": url, "status": 0, "error": f"{type(reason).__name__}: {reason}"}


def main() -> None:
    """`serve` or `call URL...`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if sys.argv[1:2] == ["call"]:
        with ThreadPoolExecutor(8) as pool:
            print(json.dumps(list(pool.map(_call, sys.argv[2:]))))  # noqa: T201 # its answer
        return
    for port in os.environ.get("LAB_PORTS", "9080").split(","):
        server = ThreadingHTTPServer(("", int(port)), _Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
