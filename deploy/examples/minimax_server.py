"""A stand-in for the MiniMax service, for samples and first steps: `python minimax_server.py [--port N] [--port-file FILE]`.

POST /execute answers as the service does, with a small real summary of the task's text; GET /health says that it is well.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BODY_MAX_BYTES = 1024 * 1024


def summarise(title: str, description: str) -> str:
    """The first sentence and the most frequent longer words of a text."""
    first = re.split(r"(?<=[.!?])\s", description.strip(), maxsplit=1)[0]
    common = Counter(re.findall(r"[a-z]{5,}", description.lower())).most_common(3)
    return f"{title}: {first} (about: {', '.join(word for word, _ in common)})"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Health."""
        self._answer(200, {"ok": True, "service": "minimax-sample", "version": "1", "hasApiKey": False})

    def do_POST(self) -> None:
        """A task."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/execute" or not 0 < length <= BODY_MAX_BYTES:
            self._answer(404 if self.path != "/execute" else 400, {"success": False, "error": "POST /execute with a JSON body"})
            return
        try:
            task = json.loads(self.rfile.read(length))
            title, description = str(task["title"]), str(task.get("description", ""))
        except (ValueError, KeyError, TypeError):
            self._answer(400, {"success": False, "error": "the body is no JSON object with a title"})
            return
        time.sleep(min(2.0, 0.2 + len(description) / 200))
        usage = {"prompt_tokens": len(description.split()), "completion_tokens": 40}
        answer = {"success": True, "task_id": task.get("id"), "result": summarise(title, description), "usage": usage}
        self._answer(200, {**answer, "skill_loaded": False})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing for each request."""


def main() -> None:
    """Serves on loopback until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    if options.port_file:
        new = options.port_file.with_suffix(".new")
        new.write_text(str(server.server_address[1]), encoding="ascii")
        new.rename(options.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
