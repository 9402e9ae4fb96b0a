"""How the threads of one forward pass wait for each other."""

import os


def wait_asleep() -> None:
    """Let torch's threads sleep between two layers; call it before torch is imported.

    GNU's OpenMP spins by default, and on a machine that has other work to do each thread then
    spends its share of the processor on waiting for one that has none: a hundred seconds were not
    enough for five rationales that take under thirty asleep. What the environment says goes first
    (``OMP_WAIT_POLICY``, OpenMP 5.0, section 6.7).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
