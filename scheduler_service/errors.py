"""The scheduler's errors.

ServiceError (service_runtime.errors)      what callers may see
SchedulerError
├── StorageUnavailable                      the database cannot be reached, or did not answer in time
├── NotLeader                               this replica does not lead (any more)
├── ExecutorUnreachable                     an executor did not answer: what it did is unknown
└── OutputGone                              an executor knows nothing of a run whose output was asked for
"""

from __future__ import annotations


class SchedulerError(Exception):
    """Base of the scheduler's own errors."""


class StorageUnavailable(SchedulerError):
    """The database cannot be reached, or did not answer in time. A commit under way may have happened."""


class NotLeader(SchedulerError):
    """This replica does not lead. `address` is the leader's, where known."""

    def __init__(self, address: str = "") -> None:
        super().__init__(f"this replica does not lead; the leader is {address or 'unknown'}")
        self.address = address


class ExecutorUnreachable(SchedulerError):
    """An executor did not answer. Whether it acted is unknown."""


class OutputGone(SchedulerError):
    """An executor knows nothing of a run whose output was asked for."""
