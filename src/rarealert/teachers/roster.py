"""Build the teachers of a panel, and check that each answers one made-up visit."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from rarealert.errors import BadInputError, RareAlertError
from rarealert.teachers.cache import Usage
from rarealert.teachers.endpoints.endpoint import EndpointTeacher, Exchange
from rarealert.teachers.local import LocalTeacher
from rarealert.teachers.panel import EndpointSpec, LocalSpec, PanelSpec, RecordedSpec, load_panel
from rarealert.teachers.recorded import RecordedTeacher, load_recorded
from rarealert.teachers.teacher import Teacher
from rarealert.visits.case import Case
from rarealert.visits.reading import read_visit


def assemble(panel: PanelSpec, data: Path, sources: frozenset[str]) -> list[Teacher]:
    """The teachers of ``panel`` in its order, for cases of ``sources``.

    Recorded answers are read from ``data``, and only those of ``sources``. Disease knowledge and
    models are loaded with the first question.

    Raises:
        BadInputError: a recorded file is missing or damaged, or a method is unknown.
    """
    from rarealert.teachers.reasoners.reasoner import METHODS, ReasonerTeacher

    teachers: list[Teacher] = []
    for spec in panel.teachers:
        if isinstance(spec, RecordedSpec):
            teachers.append(load_recorded(spec, data, sources))
        elif isinstance(spec, EndpointSpec):
            teachers.append(EndpointTeacher(spec))
        elif isinstance(spec, LocalSpec):
            teachers.append(LocalTeacher(spec))
        elif spec.method in METHODS:
            teachers.append(ReasonerTeacher(spec.id, spec.method))
        else:
            raise BadInputError(
                f"The panel's teacher {spec.id} has the unknown method {spec.method!r}; "
                f"choose one of {', '.join(sorted(METHODS))}."
            )
    return teachers


EXAMPLE = Case(
    case_id="example",
    source="simulated",
    age_years=9,
    sex="female",
    chief_complaint="Walks less and less steadily.",
    history_of_present_illness=(
        "Unsteady gait since the age of 6, slowly worse; slurred speech for a year. No fever, no "
        "head injury. School results are unchanged."
    ),
    family_history="Parents are cousins. A brother has the same gait.",
    physical_examination="Ataxia, absent ankle reflexes, pes cavus, scoliosis.",
)
"""A made-up visit of no corpus, so that a check sends nothing of a patient."""

_CORPORA = frozenset(("craftmd", "medrbench"))


@dataclass(frozen=True)
class TeacherCheck:
    """One teacher's answer to one visit; ``problem`` is empty where it is valid."""

    teacher: str
    seconds: float
    risk: int | None
    usage: Usage
    problem: str

    def line(self, width: int) -> str:
        """One row of the table of ``check_panel``."""
        tokens = (self.usage.prompt_tokens or 0) + (self.usage.completion_tokens or 0)
        verdict = f"valid, risk {self.risk}" if self.risk is not None else self.problem
        return (
            f"{self.teacher:<{width}} {self.seconds:>8.2f} {tokens:>8,} "
            f"{self.usage.cost_usd or 0.0:>10.5f}  {verdict}"
        )


def check_panel(name: str, root: Path, data: Path) -> tuple[str, bool]:
    """A table with one row a teacher, and whether all answered validly.

    Nothing is cached. A recorded teacher gives its first recorded answer.

    Raises:
        BadInputError: there is no such panel, or a file that it names is missing.
    """
    teachers = assemble(load_panel(name, root), data, _CORPORA)
    width = max(len(teacher.id) for teacher in teachers)
    checks = [_check(teacher) for teacher in teachers]
    head = f"{'teacher':<{width}} {'seconds':>8} {'tokens':>8} {'US dollars':>10}  answer"
    lines = [head, *(check.line(width) for check in checks)]
    return "\n".join(lines), all(not check.problem for check in checks)


def _check(teacher: Teacher) -> TeacherCheck:
    started = time.perf_counter()
    exchange, usage, risk, problem = Exchange(), Usage(), None, ""
    try:
        if isinstance(teacher, EndpointTeacher):
            risk = asyncio.run(teacher.ask_once(read_visit(EXAMPLE), exchange)).risk
        elif isinstance(teacher, LocalTeacher):
            ((answer, usage),) = teacher.ask_many([read_visit(EXAMPLE)])
            risk = answer.risk
        elif (found := teacher.ask(read_visit(_case_for(teacher)))) is not None:
            risk = found.risk
        else:
            problem = "its first recorded answer states nothing usable"
    except RareAlertError as error:
        problem = str(error)
    except Exception as error:
        problem = str(error) or f"failed: {type(error).__name__}"
    if isinstance(teacher, EndpointTeacher):
        usage = exchange.usage
    return TeacherCheck(teacher.id, time.perf_counter() - started, risk, usage, problem)


def _case_for(teacher: Teacher) -> Case:
    if not isinstance(teacher, RecordedTeacher):
        return EXAMPLE
    first = next(iter(teacher.rows), None)
    if first is None:
        raise BadInputError("its file has no row")
    return EXAMPLE.model_copy(update={"case_id": first, "source": teacher.corpus})
