"""What the findings of a visit say of the disease behind it: posteriors over profiles.

Findings are taken as independent given the disease, with the likelihoods of the reasoners'
engine (true-path rule, imprecise findings through the ontology; after LIRICAL, Robinson et al.
2020, Am J Hum Genet 107:403). This is knowledge alone: the student has no part in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rarealert.cases.case import Case
from rarealert.cases.render import render
from rarealert.knowledge.hpo import Ontology

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rarealert.cases.simulate_vocabulary import VisitFinding
    from rarealert.knowledge.profile_table import Vector
    from rarealert.teachers.reasoners.engine import Engine
    from rarealert.teachers.reasoners.workup import Workup

_TEMPERING = 0.5
"""Exponent of each likelihood: findings are not independent, so their joint is overconfident."""


@dataclass(frozen=True, eq=False)
class Beliefs:
    """The posteriors of one visit, each summing to 1 over its own table of diseases.

    ``work`` is what was read from the visit; ``rare`` and ``common`` have one weight a disease.
    """

    work: "Workup"
    rare: "Vector"
    common: "Vector"


@dataclass(frozen=True)
class LikelyDisease:
    """A rare disease with the share of the belief in rare diseases that it holds, 0 to 1."""

    orpha_code: str
    name: str
    head: str | None
    share: float


@dataclass(frozen=True)
class LikelyHead:
    """An Orphanet classification head, its share of the belief in rare diseases, and examples."""

    head: str
    share: float
    diseases: tuple[LikelyDisease, ...]


class Knowledge:
    """The engine and the findings that a first visit can ask for; use ``load_knowledge``."""

    def __init__(self, engine: "Engine", askable: "Mapping[str, VisitFinding]") -> None:
        import numpy as np

        self.ontology: Ontology = engine.ontology
        self._engine = engine
        self.askable = tuple(askable.values())
        ids = [finding.hpo_id for finding in self.askable]
        tables = (engine.rare, engine.common)
        self._chances: tuple[NDArray[np.float32], ...] = tuple(
            np.exp(np.array([engine.log_likelihoods(table, term) for term in ids])).astype("f4")
            for table in tables
        )
        engine.log_likelihoods.cache_clear()  # the matrices hold them in an eighth of the memory

    def beliefs(self, case: Case) -> Beliefs:
        """The posteriors after the findings of ``case``, coded ones and those in its text."""
        from rarealert.knowledge.recognise import load_recogniser
        from rarealert.teachers.reasoners.workup import work_up

        # The engine's own work_up keeps the visit's text in a cache, which a clinic must not.
        work = _with_coded(work_up(render(case), load_recogniser(), self.ontology), case)
        engine = self._engine
        rare = _TEMPERING * engine.joint_log_likelihood(engine.rare, work)
        common = _TEMPERING * engine.joint_log_likelihood(engine.common, work)
        return Beliefs(work, _posterior(rare), _posterior(common + engine.common.prior))

    def chances(self, beliefs: Beliefs) -> "tuple[Vector, Vector]":
        """P(finding | rare) and P(finding | common) of each askable finding, ``(n_askable,)``."""
        rare, common = self._chances
        return rare @ beliefs.rare, common @ beliefs.common

    def heads(self, beliefs: Beliefs, count: int = 4, examples: int = 3) -> tuple[LikelyHead, ...]:
        """The ``count`` classification heads that hold most of the belief in rare diseases.

        Empty where the visit has no finding: all diseases are then alike. Each head names the
        ``examples`` likeliest diseases below it.
        """
        import numpy as np

        from rarealert.knowledge.derived_heads import load_derived_heads

        if not beliefs.work.present:
            return ()
        heads = load_derived_heads()
        weights: dict[str, float] = {}
        diseases: dict[str, list[LikelyDisease]] = {}
        for row in np.argsort(-beliefs.rare, kind="stable"):
            profile = self._engine.rare.profiles[row]
            share, head = float(beliefs.rare[row]), heads.get(profile.disease_id)
            if head is None:
                continue
            weights[head] = weights.get(head, 0.0) + share
            known = diseases.setdefault(head, [])
            if len(known) < examples:
                known.append(LikelyDisease(profile.disease_id, profile.name, head, share))
        ranked = sorted(weights, key=lambda head: (-weights[head], head))[:count]
        return tuple(LikelyHead(head, weights[head], tuple(diseases[head])) for head in ranked)


def _with_coded(work: "Workup", case: Case) -> "Workup":
    from dataclasses import replace

    told = _merged(work.present, case.findings_present)
    denied = _merged(work.excluded, case.findings_excluded)
    return replace(work, present=told, excluded=tuple(t for t in denied if t not in told))


def _merged(read: Sequence[str], coded: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*read, *(coded or ()))))


def _posterior(logs: "Vector") -> "Vector":
    import numpy as np

    weights: Vector = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """The packaged knowledge, put together once a process (some seconds, about 100 MB)."""
    from rarealert.cases.simulate_vocabulary import load_vocabulary
    from rarealert.teachers.reasoners.engine import load_engine

    return Knowledge(load_engine(), load_vocabulary())
