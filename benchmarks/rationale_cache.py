"""What do a projection and a rerun of a full cache cost?

Command: ``python benchmarks/rationale_cache.py 160000``: that many visits, ten teachers, and all
answers in the cache. Prints the processor seconds and the peak memory of each step.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rarealert.teachers.cache import RationaleCache
from rarealert.teachers.collect import ask_panel
from rarealert.teachers.projection import project
from rarealert.teachers.reasoners.reasoner import ReasonerTeacher
from rarealert.teachers.teacher_answer import Differential, Insight, TeacherAnswer
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit

PANEL = [ReasonerTeacher(f"t{number}", "likelihood_ratio") for number in range(10)]
STORY = "Progressive weakness of both legs for three months, with tingling of the feet. " * 14
WHY = "Expected in 55 % of patients with the disease and 2 % of all others. " * 2
ANSWER = TeacherAnswer(
    insights=tuple(Insight(name=f"finding {n}", weight=0.2, explanation=WHY) for n in range(5)),
    differential=(Differential(name="Fabry disease", orpha_code="ORPHA:324"),) * 5,
    risk=50,
    explanation=WHY * 2,
)


def main() -> None:
    """Fill a cache, then measure each step in a process of its own."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for step in (fill, project_all, ask_again):
            worker = multiprocessing.get_context("spawn").Process(
                target=measure, args=(step, Path(folder), count)
            )
            worker.start()
            worker.join()


def measure(step: Callable[[Path, int], None], folder: Path, count: int) -> None:
    """Run ``step`` and print its cost."""
    began = time.process_time()
    step(folder, count)
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{step.__name__}: {time.process_time() - began:.1f} s, {mb:.0f} MB")


def cases(count: int) -> Iterator[Case]:
    """Visits of some 1,100 characters, no two alike."""
    for number in range(count):
        story = f"{number}. {STORY}"
        yield Case(case_id=f"c{number:06d}", source="simulated", history_of_present_illness=story)


def fill(folder: Path, count: int) -> None:
    """Every teacher's answer to every case."""
    with RationaleCache(folder / "cache") as cache:
        for case in cases(count):
            reading = read_visit(case)
            for teacher in PANEL:
                cache.add(teacher.request(reading), case.case_id, ANSWER)


def project_all(folder: Path, count: int) -> None:
    """The file that the stage ``rationales`` writes."""
    projection = project(PANEL, list(cases(count)), RationaleCache(folder / "cache"))
    written = projection.write(folder / "answers.parquet", frozenset(one.id for one in PANEL))
    assert written == len(PANEL) * count


def ask_again(folder: Path, count: int) -> None:
    """The stage ``teach`` with nothing left to ask."""
    with RationaleCache(folder / "cache") as cache:
        _, known = cache.set_aside_damage()
        tallies = ask_panel(PANEL, list(cases(count)), cache, known)
    assert all(tally.cached == count for tally in tallies.values())


if __name__ == "__main__":
    main()
