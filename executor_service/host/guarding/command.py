"""Starts the command of a run."""

import ctypes
import errno
import os
import signal

from executor_service.host.guarding.control_group import ControlGroup

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(Exception):
    """The command is there and could not be started; the errno says why."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{os.strerror(number)} (errno {number})")
        self.number = number


def start_command(spec: dict[str, object], group: ControlGroup | None) -> tuple[int, int, int]:
    """Starts the command, in a group if there is one; returns its pid and the read ends of its output and error.

    Raises StartFailed.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_command(spec, group, guard, out_write, err_write)
        except OSError as error:
            os.write(told_write, str(error.errno or errno.EIO).encode())
        finally:
            os._exit(127)
    for handle in (out_write, err_write, told_write):
        os.close(handle)
    told = os.read(told_read, 16)
    os.close(told_read)
    if told:
        os.waitpid(pid, 0)
        os.close(out_read)
        os.close(err_read)
        raise StartFailed(int(told))
    return pid, out_read, err_read


def _become_command(spec: dict[str, object], group: ControlGroup | None, guard: int, out: int, err: int) -> None:
    os.setpgid(0, 0)
    if group is not None:
        group.enter()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(127)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(str(spec["cwd"]))
    argv = [str(word) for word in spec["argv"]]  # type: ignore[attr-defined]  # a JSON list
    os.execve(argv[0], argv, {str(k): str(v) for k, v in spec["env"].items()})  # type: ignore[attr-defined]  # a JSON object
