"""The guard of one local run: a small process of its own that outlives the executor. Standard library only.

    python -I -S guard.py RUN_DIR

It leads a session, adopts every orphan below it, starts the command, caps its log, enforces time-out and lease, ends the
whole tree (TERM, grace, KILL), and writes how it all ended. Files of RUN_DIR:

    spec.json   argv, env, cwd, timeout_s, grace_s, log_max_bytes, cgroup (written by the executor)
    lease       "<ttl> <from>" in nanoseconds of CLOCK_BOOTTIME; ttl 0: none (rewritten by the executor)
    claim       who may begin this run: this guard, or an executor that has given it up; the first wins
    cancel      why it is cancelled (written by the executor before SIGTERM)
    state.json  phase "started", then "ended"; or "failed": the command could not be started; or "cancelled": it was not to be
    output.log  the head of standard output and error; output-<first byte>.log: pieces of its tail, oldest gone first
    result      the last 64 KiB of standard output
    reserve     room on the disk for what is written at the end: a full disk must not lose a finished run
"""

import os
import sys


def main() -> int:
    """Guards the run of the folder in argv."""
    # Isolated, Python looks nowhere for our own modules.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from executor_service.host.guarding.guard import guard_run  # only now it can be found

    return guard_run(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
