"""A repeated call gets the first answer: `request_id` with what was asked and what was answered, kept for 24 h."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from scheduler_service.transactions.ports import StoredRequest, Transaction
from service_runtime.errors import AlreadyExists


async def once(
    tx: Transaction, method: str, request_id: str, body: bytes, work: Callable[[Transaction], Awaitable[bytes]]
) -> bytes:
    """Does `work` unless this method and request_id have an answer already; then that is returned.

    `body` is the request as sent; an empty request_id does not repeat. Raises AlreadyExists when the same id came with another
    body.
    """
    if not request_id:
        return await work(tx)
    body_hash = hashlib.sha256(body).digest()
    stored = await tx.stored_request(method, request_id)
    if stored is not None:
        if stored.body_hash != body_hash:
            raise AlreadyExists(
                f"request_id {request_id!r} was used for another {method} within the last 24 h; choose a new one",
                reason="REQUEST_ID_REUSED",
            )
        return stored.response
    response = await work(tx)
    await tx.store_request(method, request_id, StoredRequest(body_hash, response))
    return response
