"""A cgroup (version 2) around one run: it holds all of the run's processes, whatever they do to get away."""

import os

from executor_service.host.guarding.process_tree import process_group


class ControlGroup:
    """The cgroup at a path. A command that has left it (that takes root) is still found below the guard."""

    def __init__(self, path: str) -> None:
        self.path = path

    def make(self) -> bool:
        """Makes it; False where that cannot be done."""
        try:
            os.mkdir(self.path, 0o755)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def enter(self) -> None:
        """Moves this process in; its children are born there. Raises OSError."""
        self._write("cgroup.procs", b"0")

    def members(self) -> dict[int, int]:
        """All processes in it and in groups below it, each with its process group."""
        found: dict[int, int] = {}
        for folder, _, _ in os.walk(self.path):
            try:
                with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
                    found |= {int(line): process_group(int(line)) for line in file}
            except OSError:
                continue  # just removed, or a threaded group, whose processes are listed above it
        return found

    def kill(self) -> None:
        """KILL for all of them at once: nobody can be born in between."""
        try:
            self._write("cgroup.kill", b"1")
        except OSError:
            return  # it is gone

    def populated(self) -> bool:
        """Whether anybody is left, a zombie that nobody has reaped included."""
        try:
            with open(os.path.join(self.path, "cgroup.events"), encoding="ascii") as file:
                return "populated 1" in file.read()
        except OSError:
            return False

    def remove(self) -> None:
        """Takes it away, with the groups that the command has made in it."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # somebody is still in it: it is seen to when the run is taken up again

    def _write(self, name: str, data: bytes) -> None:
        handle = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
