"""The two services for other Python programs; `dispatchctl` itself calls through it.

    from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
    from dispatchctl.api import Scheduler, errors

    with Scheduler("127.0.0.1:50051") as scheduler:
        task = pb.TaskSpec(title="Count the words", description="Count the words of this text.")
        stored = scheduler.call(scheduler.rpcs.SubmitTask, pb.SubmitTaskRequest(task=task)).task

It stands here and not in a package of its own because it is the command line's own client: whoever installs one has the other,
and neither can fall behind.
"""

from dispatchctl.api.asynchronous import AsyncExecutor, AsyncScheduler
from dispatchctl.api.synchronous import Executor, Scheduler
from service_runtime import errors

__all__ = ["AsyncExecutor", "AsyncScheduler", "Executor", "Scheduler", "errors"]
