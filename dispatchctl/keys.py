"""Single keys of a terminal, without Enter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator

_QUIT = b"qQ"


@contextlib.contextmanager
def quit_key(asked: asyncio.Event) -> Iterator[None]:
    """Sets the event at q, as long as it is open; Ctrl-C stays what it is. Without a terminal at standard input: nothing.

    The terminal is as it was before afterwards, whatever happens.
    """
    if not sys.stdin.isatty():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def look() -> None:
        read = os.read(descriptor, 64)
        if not read:
            # The terminal has gone: there is nobody to look at it any more.
            loop.remove_reader(descriptor)
        if not read or any(key in read for key in _QUIT):
            asked.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, look)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
