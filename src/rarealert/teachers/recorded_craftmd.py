"""CRAFT-MD's recorded models: five free-text diagnoses a vignette become one answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from rarealert.knowledge.names import normalise_name
from rarealert.teachers.answer import Answer, Differential, Insight
from rarealert.teachers.naming import Diagnosis, Resolve, read_diagnosis

_DIGITS = 4
_MOST = 5


@dataclass
class _Group:
    """Trials that name one disease."""

    diagnosis: Diagnosis
    trials: int = 1


def answer_of_trials(trials: Sequence[object], resolve: Resolve) -> Answer | None:
    """The answer of one model, ``None`` where no trial states a diagnosis.

    Risk is the share of usable trials that name an Orphanet disorder. Insights and differential
    are the distinct diagnoses by frequency, weighted by their share of the trials: the agreement
    of independent trials is the only confidence these models gave.
    """
    told = [
        diagnosis
        for text in trials
        if isinstance(text, str) and (diagnosis := read_diagnosis(text, resolve))
    ]
    if not told:
        return None
    groups = _grouped(told)[:_MOST]
    counted = sum(group.trials for group in groups)
    rare = sum(diagnosis.disorder is not None for diagnosis in told)
    return Answer(
        insights=_insights(groups, counted, len(told)),
        differential=tuple(
            Differential(
                name=group.diagnosis.name,
                orpha_code=group.diagnosis.orpha_code,
            )
            for group in groups
        ),
        risk=round(100 * rare / len(told)),
        explanation=_explanation(groups, rare, len(told)),
    )


def _grouped(told: Sequence[Diagnosis]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for diagnosis in told:
        key = diagnosis.orpha_code or normalise_name(diagnosis.said)
        if key in groups:
            groups[key].trials += 1
        else:
            groups[key] = _Group(diagnosis)
    return sorted(groups.values(), key=lambda group: -group.trials)  # stable: first named first


def _insights(groups: Sequence[_Group], counted: int, trials: int) -> tuple[Insight, ...]:
    weights = [round(group.trials / counted, _DIGITS) for group in groups]
    weights[0] = round(weights[0] + 1 - sum(weights), _DIGITS)
    return tuple(
        Insight(
            name=group.diagnosis.name,
            weight=weight,
            explanation=(
                f"Named in {group.trials} of {trials} trials; {_standing(group.diagnosis)}."
            ),
        )
        for group, weight in zip(groups, weights, strict=True)
    )


def _standing(diagnosis: Diagnosis) -> str:
    if diagnosis.disorder is None:
        return "Orphanet has no disorder of this name"
    return f"Orphanet disorder {diagnosis.disorder.orpha_code}"


def _explanation(groups: Sequence[_Group], rare: int, trials: int) -> str:
    leading = groups[0]
    more = len(groups) - 1
    other = f", beside {more} other diagnos{'is' if more == 1 else 'es'}" if more else ""
    return (
        f"Asked {trials} times, the model named {leading.diagnosis.name} "
        f"{leading.trials} times{other}. An Orphanet disorder was named in {rare} of {trials} "
        "trials."
    )
