"""The reasons in ErrorInfo and in problem documents: the closed set of what an error can say to a program."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ERROR_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "INVALID_ARGUMENT": "the request breaks a bound; the fields are named",
        "UNDECODABLE": "the bytes are no message of this rpc, or the body is no JSON",
        "TASK_NOT_FOUND": "no task has this id",
        "BREAKER_NOT_FOUND": "no breaker has this key",
        "RUN_NOT_FOUND": "no run has this id here",
        "TASK_NOT_STARTED": "no run of the task was accepted yet: it has no output",
        "OUTPUT_GONE": "the executor has no output of the run any more",
        "EXECUTOR_UNREACHABLE": "the executor that has the output cannot be reached: try again",
        "TASK_EXISTS": "a task with this id is there already",
        "REQUEST_ID_REUSED": "the request_id was used with another body: use a new one",
        "TASK_ENDED": "the task has ended already",
        "TASK_NOT_ENDED": "only a task that has ended or is quarantined can be queued again",
        "TASK_NOT_QUEUED": "only a task that has not started can be changed",
        "FOREIGN_RUN": "the run is another task's",
        "NOT_A_BRIDGE_RUN": "the run does not end by a callback",
        "RUN_ENDED": "the run has ended otherwise already",
        "QUEUE_FULL": "as many tasks wait as may",
        "TOO_MANY_DRAINS": "as many sources ask for a drain as may",
        "TOO_MANY_STREAMS": "as many streams are open as may: close one, or come back later",
        "TOO_SLOW": "the stream was read too slowly: open it anew",
        "STORAGE_UNAVAILABLE": "the database does not answer: try again",
        "JOURNAL_FAILED": "the executor cannot write to its disk",
        "not_leader": "this replica does not lead: ask the leader",
        "stale_term": "the sender no longer leads",
        "NOT_FOUND": "HTTP: there is no such path",
        "METHOD_NOT_ALLOWED": "HTTP: the path takes another method",
        "HTTP_ERROR": "HTTP: the request will not do, as its status says (413 too large, 415 another type than application/json)",
        "HOST_NOT_ALLOWED": "HTTP: the Host header names none of ours; see HTTP_ALLOWED_HOSTS",
        "CROSS_ORIGIN": "HTTP: a page of another origin asks",
        "READ_ONLY": "HTTP: writes are closed by HTTP_READ_ONLY",
        "PAYLOADS_HIDDEN": "HTTP: what tasks wrote is not shown; see HTTP_HIDE_PAYLOADS",
        "INTERNAL": "our fault; the id is in the log",
    }
)
"""One row a reason. `docs/reason-codes.md` is made of it."""
