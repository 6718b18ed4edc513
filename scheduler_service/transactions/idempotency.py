"""A repeated call gets the first answer: `request_id` with what was asked and what was answered, kept for 24 h."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import StoredRequest
from service_runtime.errors import AlreadyExists

A = TypeVar("A")


class AnswerForm(NamedTuple, Generic[A]):
    """How an answer is kept."""

    encode: Callable[[A], bytes]
    decode: Callable[[bytes], A]


async def once(
    tx: Transaction,
    method: str,
    request_id: str,
    body: bytes,
    work: Callable[[Transaction], Awaitable[A]],
    form: AnswerForm[A],
) -> A:
    """Does `work` unless this method and request_id have an answer already; then that is returned.

    `body` is the request as sent; an empty request_id does not repeat. Raises AlreadyExists when the same id came with another
    body.
    """

    async def one(_places: Sequence[int]) -> list[A]:
        return [await work(tx)]

    (answer,) = await once_each(tx, method, [(request_id, body)], one, form)
    if isinstance(answer, AlreadyExists):
        raise answer
    return answer


async def once_each(
    tx: Transaction,
    method: str,
    calls: Sequence[tuple[str, bytes]],
    work: Callable[[Sequence[int]], Awaitable[Sequence[A]]],
    form: AnswerForm[A],
) -> list[A | AlreadyExists]:
    """The same for calls that share a transaction, each a request_id and a body; no two of them have one request_id.

    `work` is given the places of the calls that are to be carried out, and gives an answer for each.
    """
    hashes = [hashlib.sha256(body).digest() if request_id else b"" for request_id, body in calls]
    stored = await tx.stored_requests(method, [request_id for request_id, _ in calls if request_id])
    fresh = [place for place, (request_id, _) in enumerate(calls) if request_id not in stored]
    done = dict(zip(fresh, await work(fresh) if fresh else (), strict=True))
    named = {
        calls[place][0]: StoredRequest(hashes[place], form.encode(answer)) for place, answer in done.items() if calls[place][0]
    }
    await tx.store_requests(method, named)
    answers: list[A | AlreadyExists] = []
    for place, (request_id, _) in enumerate(calls):
        if place in done:
            answers.append(done[place])
        else:
            answers.append(
                _refusal(method, request_id, hashes[place], stored[request_id]) or form.decode(stored[request_id].response)
            )
    return answers


def _refusal(method: str, request_id: str, body_hash: bytes, stored: StoredRequest) -> AlreadyExists | None:
    if stored.body_hash == body_hash:
        return None
    return AlreadyExists(
        f"request_id {request_id!r} was used for another {method} within the last 24 h; choose a new one",
        reason="REQUEST_ID_REUSED",
    )
