"""A worker that Ray's memory monitor kills fails its trial, as any other death of a worker does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError


class WorkerOutOfMemoryError(RayActorError):  # type: ignore[misc]  # Ray ships no types
    """A trial's worker was killed because its machine ran out of memory."""


@contextmanager
def memory_faults_end_one_trial() -> Iterator[None]:
    """Let Tune treat what the memory monitor kills by its ``FailureConfig``, and end the trial alone.

    Tune takes an ``OutOfMemoryError`` for a mistake of its own and ends the whole experiment (as of Ray 2.60, there
    is no setting against it), since it is neither an error of the actor nor one of its task.
    """
    original = RayActorManager._actor_task_failed

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = WorkerOutOfMemoryError(error_msg=str(exception))
        original(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original
