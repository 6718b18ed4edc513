"""A task's output as server-sent events; a frame's id is the offset at which its reader goes on."""

from __future__ import annotations

import codecs

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request

from scheduler_service.http import shapes
from scheduler_service.http.event_stream import place_of
from service_runtime.field_checks import FieldChecker

TAIL_BYTES = 16 * 1024
END_FRAME = "event: end\ndata: {}\n\n"


def asked_output(request: Request) -> pb.StreamTaskLogsRequest:
    """The output from an offset on; without one, its tail. Raises InvalidArgument."""
    check = FieldChecker()
    offset = place_of(request, (), check)
    check.done()
    task_id = request.path_params["task_id"]
    if offset is None:
        return pb.StreamTaskLogsRequest(task_id=task_id, follow=True, tail_bytes=TAIL_BYTES)
    return pb.StreamTaskLogsRequest(task_id=task_id, follow=True, offset=offset)


class OutputFrames:
    """Pieces as text: a character that two pieces share is told with the second, and no reader resumes inside of it."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ended: int | None = None

    def frame(self, piece: pb.StreamTaskLogsResponse) -> str:
        """A piece as a frame; `missing` is how many bytes before it were not kept."""
        missing = 0 if self._ended is None else piece.offset - self._ended
        if missing:
            self._decoder.reset()
        self._ended = piece.offset + len(piece.data)
        text = self._decoder.decode(piece.data)
        begun, _ = self._decoder.getstate()
        body = {"run_id": piece.run_id, "offset": piece.offset, "missing": missing, "text": text}
        return f"id: {self._ended - len(begun)}\nevent: output\ndata: {shapes.compact(body)}\n\n"
