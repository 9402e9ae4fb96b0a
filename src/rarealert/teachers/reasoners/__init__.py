"""Teachers that are code: each reasons over disease knowledge in a way of its own."""

from collections.abc import Callable, Mapping

from rarealert.teachers.answer import TeacherAnswer
from rarealert.teachers.reasoners.clues import onset_course_family, red_flags
from rarealert.teachers.reasoners.engine import Engine, Workup
from rarealert.teachers.reasoners.pattern import (
    common_explainer,
    information_content,
    multi_system,
)
from rarealert.teachers.reasoners.ranking import (
    likelihood_ratio,
    naive_bayes,
    ontology_similarity,
)
from rarealert.teachers.reasoners.retrieval import retrieval

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
