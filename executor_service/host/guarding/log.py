"""The output of a run on disk, capped."""

import os

# Half of the log is the head; the tail is kept in so many pieces, the oldest of which goes when a new one begins.
LOG_SEGMENTS = 8


class Log:
    """The output on disk: its head in output.log, its tail in pieces named by their first byte; what lies between is counted."""

    def __init__(self, directory: str, most: int) -> None:
        self._directory = directory
        self._segment_max = max(1, (most - most // 2) // LOG_SEGMENTS)
        self._segments: list[tuple[str, int]] = []
        self._position = 0
        self.dropped = 0
        self._file: int | None = self._open("output.log")
        self._room = most // 2

    def _open(self, name: str) -> int | None:
        path = os.path.join(self._directory, name)
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return None

    def write(self, data: bytes) -> None:
        """Appends it all, and lets go of the oldest segment of the tail when there are too many."""
        while data:
            if self._room == 0:
                self._next_segment()
            written = self._append(data[: self._room])
            self._position += written
            self._room -= written
            data = data[written:]
            if written == 0:
                # A full disk must not end the run: its work is worth more than its log. Once there is room, a new segment says
                # by its name how much is missing.
                self.dropped += len(data)
                self._position += len(data)
                self._room = 0
                return

    def _append(self, data: bytes) -> int:
        if self._file is None:
            return 0
        try:
            written = os.write(self._file, data)
        except OSError:
            return 0
        if self._segments:
            name, size = self._segments[-1]
            self._segments[-1] = name, size + written
        return written

    def _next_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        while len(self._segments) >= LOG_SEGMENTS:
            name, size = self._segments.pop(0)
            self.dropped += size
            self._remove(name)
        name = f"output-{self._position:020d}.log"
        self._file = self._open(name)
        self._room = self._segment_max
        if self._file is not None:
            self._segments.append((name, 0))

    def _remove(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._directory, name))
        except OSError:
            return

    def make_room(self) -> None:
        """Lets go of everything: the disk is full, and how the run ended matters more."""
        for name, _size in self._segments:
            self._remove(name)
        self._segments = []
        try:
            os.truncate(os.path.join(self._directory, "output.log"), 0)
        except OSError:
            return
