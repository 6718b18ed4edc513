"""`dispatchctl`: loads what it needs, and leaves quietly when Ctrl-C comes before that is done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence

INTERRUPTED = 130


@contextlib.contextmanager
def _ctrl_c_leaves_at_once() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # In the background Ctrl-C is ignored, and stays so.
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    # Loading takes a second, in which Ctrl-C would show where in the libraries it came.
    with _ctrl_c_leaves_at_once():
        from dispatchctl.running import run_command
    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
