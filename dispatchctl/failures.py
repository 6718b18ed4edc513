"""How a command ends: its exit status, and an error in three lines (what, why with the reason code, what to do)."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    REFUSED = 5
    HELD = 6
    TASK_FAILED = 7
    INTERRUPTED = 130


class Failure(Exception):
    """A command that did not do what was asked."""

    def __init__(self, what: str, why: str, remedy: str, status: ExitStatus = ExitStatus.FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy
        self.status = status

    def lines(self) -> tuple[str, str, str]:
        """The three lines, each without a break."""
        return f"error: {_flat(self.what)}", f"  why: {_flat(self.why)}", f"   do: {_flat(self.remedy)}"


def _flat(text: str) -> str:
    return " ".join(text.split())
