"""Ask a registered version again: the same risks as when it was judged, and in what time?"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rarealert.cases.case import Case
from rarealert.screening.champion import RiskScorer
from rarealert.screening.frames import request_frame

CASES = 16
"""Cases asked again, spread over the sorted ids."""

_TIMED = 5  # single visits timed; the median forgives one that the machine interrupted


@dataclass(frozen=True)
class Asked:
    """Risks 0-1 by case id, and the median seconds for one visit."""

    risks: dict[str, float]
    latency_s: float


def ask_again(scorer: RiskScorer, cases: Sequence[Case]) -> Asked:
    """Score a spread of ``cases`` (at least one) together, then a few one by one."""
    ordered = sorted(cases, key=lambda case: case.case_id)
    chosen = ordered[:: max(1, len(ordered) // CASES)][:CASES]
    answers = scorer.predict(request_frame(chosen))
    risks = {str(row["case_id"]): float(row["risk"]) for row in answers.to_dict("records")}
    seconds = []
    for case in chosen[:_TIMED]:
        started = time.perf_counter()
        scorer.predict(request_frame([case]))
        seconds.append(time.perf_counter() - started)
    return Asked(risks, statistics.median(seconds))
