"""Starts a program that is to end when its parent ends, even by kill -9: `child_launcher.py PARENT_PID PROGRAM ARGUMENT...`

A file of its own, and standard library only: it runs between a plain spawn and the program, so that the spawning process needs no
code between fork and exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for SIGTERM at the parent's death, makes sure that it lives, and becomes the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent has ended")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
