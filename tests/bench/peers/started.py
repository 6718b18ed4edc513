"""How a job tells that it has started: the moment (CLOCK_MONOTONIC, ns) as a datagram to STARTED_ADDRESS. Standard library only."""

from __future__ import annotations

import os
import socket
import time


class Started:
    """For the one who runs jobs. `address`: host:port; '': nobody listens, and nothing is told."""

    def __init__(self, address: str) -> None:
        self._socket: socket.socket | None = None
        if address:
            host, _, port = address.rpartition(":")
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.connect((host, int(port)))

    def tell(self) -> None:
        """A job starts now."""
        if self._socket is not None:
            self._socket.send(b"%d" % time.monotonic_ns())

    def close(self) -> None:
        """No more jobs."""
        if self._socket is not None:
            self._socket.close()


def from_environment() -> Started:
    """As STARTED_ADDRESS says."""
    return Started(os.environ.get("STARTED_ADDRESS", ""))
