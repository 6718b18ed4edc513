"""Prints what Alertmanager tells a webhook, a line for each alert: `python notices.py [--port N]`."""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

BODY_MAX_BYTES = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """One notice."""

    timeout = 30

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            self.send_error(413)
            return
        for alert in json.loads(self.rfile.read(int(length)))["alerts"]:
            told = alert["annotations"]
            print(f"{alert['status']:9} {alert['labels']['alertname']}: {told['description']}", flush=True)
            print(f"          {told['runbook_url']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """The notice is all that is to be said."""


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9499)
    server = HTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"waiting for notices at http://127.0.0.1:{server.server_port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
