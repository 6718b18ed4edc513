"""Pieces of an output as frames."""

from __future__ import annotations

import json
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from scheduler_service.http.output_stream import OutputFrames


def parsed(frame: str) -> tuple[int, dict[str, Any]]:
    id_, event, data, *rest = frame.split("\n")
    assert (event, rest) == ("event: output", ["", ""])
    return int(id_.removeprefix("id: ")), json.loads(data.removeprefix("data: "))


@given(st.text(max_size=40), st.lists(st.integers(1, 7), max_size=60), st.integers(0, 1_000))
def test_text_comes_whole_however_it_is_cut_and_from_wherever_a_reader_resumes(text: str, cuts: list[int], start: int) -> None:
    data = text.encode("utf-8")
    frames, offset, told, resumed = OutputFrames(), start, "", []
    for size in [*cuts, len(data)]:
        piece = data[offset - start : offset - start + size]
        if not piece:
            break
        id_, body = parsed(frames.frame(pb.StreamTaskLogsResponse(run_id="r", offset=offset, data=piece)))
        assert (body["run_id"], body["offset"], body["missing"]) == ("r", offset, 0)
        offset += len(piece)
        told += body["text"]
        resumed.append((id_, told))
    assert told == text[: len(told)]
    if offset - start == len(data):
        assert told == text
    for id_, before in resumed:
        assert before + data[id_ - start :].decode("utf-8") == text, "nothing lost, nothing double, no half character"


def test_what_was_not_kept_is_counted_and_ends_a_half_character() -> None:
    frames = OutputFrames()
    frames.frame(pb.StreamTaskLogsResponse(run_id="r", offset=0, data="a\u2603".encode()[:2]))
    id_, body = parsed(frames.frame(pb.StreamTaskLogsResponse(run_id="r", offset=102, data=b"later")))
    assert (id_, body["missing"], body["text"]) == (107, 100, "later")


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    _, body = parsed(OutputFrames().frame(pb.StreamTaskLogsResponse(run_id="r", offset=0, data=b"a\xffb")))
    assert body["text"] == "a\ufffdb"
