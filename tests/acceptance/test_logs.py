"""At level debug, under work that goes well and badly, the logs hold no password and nothing that anybody submitted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from tests.acceptance.programs import DESCRIPTION, Pair, Program, eventually
from tests.fakes.misbehaving_http_server import MisbehavingServer, plain

URL_PASSWORD = "kept-in-the-url"
TITLE = "Told to nobody by title"
SUBMITTED = "told-to-nobody-by-description"
PAYLOAD = "told-to-nobody-by-payload"
ANSWER = "told-to-nobody-by-the-answer"
REASON = "told-to-nobody-by-id"


@pytest.fixture
async def hook() -> AsyncIterator[MisbehavingServer]:
    async with MisbehavingServer().running() as server:
        yield server


@pytest.fixture
async def pair(tmp_path: Path, database_url: str, hook: MisbehavingServer) -> AsyncIterator[Pair]:
    made = Pair(
        tmp_path,
        database_url,
        HK_MINIMAX_URL=hook.url.replace("://", f"://somebody:{URL_PASSWORD}@"),
        LOG_LEVEL="debug",
        LOG_FORMAT="json",
        FAILURE_THRESHOLD="100",
    )
    await made.start()
    yield made
    await made.stop()


def lines(program: Program) -> list[dict[str, object]]:
    """Each line of a log; one that is no JSON object fails."""
    read = [json.loads(line) for line in program.log.read_text("utf-8").splitlines()]
    assert all({"event", "level", "timestamp"} <= set(line) for line in read)
    return read


async def test_no_secret_and_no_payload_is_logged(pair: Pair, hook: MisbehavingServer, database_url: str) -> None:
    database_password = urlsplit(database_url).password
    assert database_password
    payload = Struct()
    payload.update({"note": PAYLOAD, "nested": {"note": [PAYLOAD]}})
    told = {"title": TITLE, "description": f"{DESCRIPTION} {SUBMITTED}", "payload": payload}
    await pair.until_ended(await pair.submit(2, **told))

    # MiniMax: well, refused with an echo, then broken.
    for behaviour in (plain({"success": True, "result": ANSWER}), plain({"success": False, "error": ANSWER}, 422)):
        hook.behaviour = behaviour
        await pair.until_ended(await pair.submit(1, task_type="talk", **told))
    hook.behaviour = plain({"success": False, "error": ANSWER}, 500)
    (failing,) = await pair.submit(1, task_type="talk", **told)

    async def failed() -> bool:
        (task,) = await pair.tasks([failing])
        return task.start_failures > 0

    await eventually(failed)

    # A command that cannot be started, calls that are refused, an executor that goes and a database that is away.
    pair.write_command(interpreter="/no/such/interpreter")
    await pair.submit(1, **told)
    async with pair.calls() as stub:
        for request in (pb.TaskSpec(title="", description=SUBMITTED), pb.TaskSpec(title=TITLE, task_type=SUBMITTED * 100)):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.SubmitTask(pb.SubmitTaskRequest(task=request), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetTask(pb.GetTaskRequest(task_id=REASON), timeout=10)
    await pair.executor.end()
    await pair.scheduler.end()

    for program in (pair.scheduler, pair.executor):
        read = lines(program)
        assert {"rpc"} <= {str(line["event"]) for line in read}
        text = program.log.read_text("utf-8")
        secrets = (database_password, URL_PASSWORD, TITLE, SUBMITTED, PAYLOAD, ANSWER, REASON)
        assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize(
    "broken",
    [
        "postgresql://somebody:{}@127.0.0.1:9/cecelia",
        "postgresql//somebody:{}@host",
        "postgresql://somebody:{}/more@127.0.0.1/cecelia",
        "postgresql://somebody:more@{}@127.0.0.1/cecelia",
        "host=127.0.0.1 port=9 password={}",
    ],
)
async def test_a_database_that_cannot_be_reached_does_not_tell_its_password(pair: Pair, broken: str) -> None:
    await pair.scheduler.end()
    pair.scheduler._env["DATABASE_URL"] = broken.format(URL_PASSWORD)
    pair.scheduler.log.write_text("")
    await pair.scheduler.begin()

    async def said() -> bool:
        return bool(pair.scheduler.log.read_text())

    await eventually(said)
    await pair.scheduler.end()
    assert URL_PASSWORD not in pair.scheduler.log.read_text()
