"""A worker that Ray's memory monitor kills fails its trial, as any other death of a worker does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

_FAILURES = ("_actor_start_failed", "_actor_task_failed")


class WorkerOutOfMemoryError(RayActorError):  # type: ignore[misc]  # Ray ships no types
    """A trial's worker was killed because its machine ran out of memory."""


@contextmanager
def memory_faults_end_one_trial() -> Iterator[None]:
    """Let Tune treat what the memory monitor kills by its ``FailureConfig``, and name the reason.

    An ``OutOfMemoryError`` is neither an error of the actor nor one of its task. In mid-trial Tune takes it for a
    mistake of its own and ends the whole experiment; at the start of a worker it loses the reason (as of Ray 2.60,
    there is no setting against either).
    """
    originals = {name: getattr(RayActorManager, name) for name in _FAILURES}
    for name, original in originals.items():
        setattr(RayActorManager, name, _told(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(RayActorManager, name, original)


def _told(original: Callable[..., None]) -> Callable[..., None]:
    """Return a method of the manager that is told of a worker's death, where it is one for memory."""

    @functools.wraps(original)
    def failed(*args: Any, exception: Exception, **named: Any) -> None:
        if isinstance(exception, OutOfMemoryError) and not isinstance(exception, RayTaskError):
            exception = WorkerOutOfMemoryError(error_msg=str(exception))
        original(*args, exception=exception, **named)

    return failed
