"""A language model on every machine of a Ray cluster: batches go to whichever is free.

Each machine loads the model from where this one names it, once, and uses all its processors. The
answers come back here, where the caller keeps them; a batch whose machine is lost goes to another.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import join, nodes, pinned
from rarealert.teachers.local.teacher import Judged, LocalTeacher
from rarealert.teachers.ray_engine import OTHER_VERSION
from rarealert.visits.case import Case


class Reader:
    """The model on one machine; ``key`` is what the request of ``case`` has to be called."""

    def __init__(self, teacher: LocalTeacher, threads: int, case: Case, key: str):
        import torch

        torch.set_num_threads(threads)
        if teacher.request(case).key != key:
            raise RareAlertError(OTHER_VERSION)
        self._teacher = teacher

    def judge(self, batch: Sequence[Case]) -> Judged:
        """As ``LocalTeacher.judge``."""
        return self._teacher.judge(batch)


def judge_on_ray(
    teacher: LocalTeacher, batches: Sequence[Sequence[Case]]
) -> Iterator[tuple[Sequence[Case], Judged]]:
    """Each batch with its judgements, in the order in which they are ready.

    Raises:
        RareAlertError: no cluster to join, or no machine of it could do the work.
    """
    if not batches:
        return
    ray = join()
    from ray.exceptions import RayActorError, RayTaskError

    first = batches[0][0]
    remote = ray.remote(Reader)
    readers = [
        remote.options(num_cpus=1, scheduling_strategy=pinned(node.id)).remote(
            teacher, node.cpus, first, teacher.request(first).key
        )
        for node in nodes(ray)[: len(batches)]
    ]
    idle, waiting = deque(readers), deque(batches)
    under_way: dict[Any, tuple[Any, Sequence[Case]]] = {}
    why: object = "it has no machine with a processor to give"
    try:
        while waiting or under_way:
            while waiting and idle:
                reader, batch = idle.popleft(), waiting.popleft()
                under_way[reader.judge.remote(batch)] = reader, batch
            if not under_way:
                raise RareAlertError(
                    f"No machine of the Ray cluster could run the teacher {teacher.id}: {why}"
                )
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            reader, batch = under_way.pop(ready)
            try:
                judged: Judged = ray.get(ready)
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError as error:
                why = _reason(error)
                waiting.appendleft(batch)
                continue
            idle.append(reader)
            yield batch, judged
    finally:
        for reader in readers:
            ray.kill(reader)


def _reason(error: Exception) -> str:
    """Why an actor died: its own sentence where it had one."""
    cause = getattr(error, "cause", None) or getattr(error, "__cause__", None)
    return str(cause) if isinstance(cause, RareAlertError) else "its processes died"
