"""The Ray cluster that work is spread over: found by RAY_ADDRESS, else started on this machine.

Nothing is reported to anybody: Ray's usage statistics are switched off before it starts.
"""

import os
from dataclasses import dataclass
from typing import Any

from rarealert.errors import RareAlertError

_CLIENT = "ray://"


@dataclass(frozen=True)
class Node:
    """One machine of the cluster that lives and has processors to give."""

    id: str
    cpus: int


def join() -> Any:
    """The module ``ray``, connected to a cluster; what is already connected stays so.

    Raises:
        RareAlertError: Ray is not installed, or its address is not one of a machine of the cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RareAlertError(
            "Ray is not installed; run pip install 'rarealert[ray]', or use the engine local."
        ) from error
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(_CLIENT):
        raise RareAlertError(
            f"RAY_ADDRESS is a Ray client's ({_CLIENT}…): run the command on a machine of the "
            "cluster, with RAY_ADDRESS=auto, so that its files are in reach."
        )
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, configure_logging=False)
        except ConnectionError as error:
            raise RareAlertError(
                f"No Ray cluster answers at RAY_ADDRESS={address}; start it (ray start --head), or "
                "unset the variable to use this machine alone."
            ) from error
    return ray


def nodes(ray: Any) -> list[Node]:
    """The living machines that have processors to give, the largest first."""
    found = [
        Node(one["NodeID"], int(one["Resources"].get("CPU", 0)))
        for one in ray.nodes()
        if one["Alive"]
    ]
    return sorted((one for one in found if one.cpus), key=lambda one: (-one.cpus, one.id))


def pinned(node_id: str) -> Any:
    """The scheduling strategy that places an actor on this machine and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)
