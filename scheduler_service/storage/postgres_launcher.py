"""Starts PostgreSQL's programs as an unprivileged user, tied to the life of the scheduler. Standard library only.

    python -I -S postgres_launcher.py PARENT_PID USER KEEP PROGRAM [ARGUMENT ...]

A process of its own, because changing users or setting a parent-death signal between fork and exec would run gRPC's fork
handlers. USER '' keeps the user. KEEP names what the user could not reach otherwise ('' for nothing): then one capability to
read is kept across the change of user, so that no folder's permissions need to be opened for everybody.
"""

import contextlib
import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _prctl(*arguments: int) -> int:
    words = [ctypes.c_ulong(argument) for argument in arguments] + [ctypes.c_ulong(0)] * (5 - len(arguments))
    result = int(_libc.prctl(*words))
    if result < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return result


def reading_capability() -> int | None:
    """The capability that lets a process read past folder permissions, the weaker one first; None when neither can be had."""
    held = {}
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in ("CapPrm", "CapBnd"):
                held[name] = int(value, 16)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if held["CapPrm"] & held["CapBnd"] & (1 << capability):
            return capability
    return None


def become(user: str, keep: bool) -> None:
    """Becomes a user for good; with `keep`, one capability to read stays, for the programs started from here too."""
    entry = pwd.getpwnam(user)
    capability = reading_capability() if keep else None
    if capability is not None:
        _prctl(PR_SET_KEEPCAPS, 1)
        # Otherwise access(2), by which PostgreSQL checks its own binaries, takes no notice of the capability.
        # Without CAP_SETPCAP it must do without: enough for the data, not for binaries in a closed folder.
        with contextlib.suppress(OSError):
            _prctl(PR_SET_SECUREBITS, _prctl(PR_GET_SECUREBITS) | SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    if capability is not None:
        mask = 1 << capability
        header = _Header(CAPABILITY_VERSION_3, 0)
        data = (_Data * 2)(_Data(mask, mask, mask), _Data(0, 0, 0))
        if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
            raise OSError(ctypes.get_errno(), "capset")
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
    os.environ["HOME"] = entry.pw_dir
    os.environ["USER"] = user


def main() -> None:
    """Changes the user, ties itself to its parent, becomes the program."""
    parent, user, keep, program = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    os.umask(0o077)
    if user:
        try:
            become(user, keep=bool(keep))
        except (OSError, KeyError) as error:
            sys.exit(f"error: cannot become the user {user} who runs PostgreSQL: {error}")
    # After the change of user, which clears it. SIGINT is PostgreSQL's fast shutdown.
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != parent:
        sys.exit("error: the scheduler has gone")
    try:
        os.execv(program, sys.argv[4:])
    except OSError as error:
        sys.exit(f"error: cannot start {program}: {error.strerror}")


if __name__ == "__main__":
    main()
