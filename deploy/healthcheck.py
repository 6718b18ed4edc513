"""Whether the service in this container is ready: `healthcheck.py SETTING`, the setting that holds its HTTP address.

The images call it instead of curl, which they do not have. Standard library only; no proxy settings are heeded.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 4


def problem(address: str) -> str:
    """Why the service at host:port is not ready; '' when it is."""
    connection = http.client.HTTPConnection("127.0.0.1", int(address.rpartition(":")[2]), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{answer.status} {body}"


if __name__ == "__main__":
    sys.exit(problem(os.environ[sys.argv[1]]) or 0)
