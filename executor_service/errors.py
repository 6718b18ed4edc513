"""The executor's own errors.

ExecutorError
├── JournalError       the journal cannot be read or written
└── BackendError       a backend broke its protocol
"""

from __future__ import annotations


class ExecutorError(Exception):
    """Base of the executor's own errors."""


class JournalError(ExecutorError):
    """The journal cannot be read or written."""


class BackendError(ExecutorError):
    """A backend broke its protocol."""
