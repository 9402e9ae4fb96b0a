"""The text of simulated visits, made from sampled findings.

Neither the label nor the disease of a finding is an input, so the wording can't depend on them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rarealert.knowledge import packaged_rows
from rarealert.simulation.vocabulary import VisitFinding

Course = Literal["acute", "subacute", "chronic"]
Sex = Literal["female", "male"]

_LAY_COMPLAINT = 0.7  # share of complaints in the patient's own words
_LAY_HISTORY = 0.5  # share of the history's findings that the clinician leaves in those words
_LAY_SIGN = 0.15  # share of the examination's
_HISTORY_LENGTH = (190, 240)  # characters aimed at; plain sentences fill up to it
_HISTORY_SENTENCES = (5, 6)  # at most four contain findings
_EXAM_SENTENCES = (4, 5)  # at most two contain findings
_TEXT_LENGTH = (405, 505)  # characters aimed at in complaint, history and examination together
_WORD_LENGTH = (6.0, 6.5)  # characters a word aimed at, the space included
_SENTENCE = 20  # characters off the aim that weigh as much as a character a word
_CANDIDATES = 6  # plain sentences compared at a time; with more, the same ones would always win
_FIELD_KEPT = {  # share of visits that have the field
    "past_medical_history": 0.8,
    "family_history": 0.75,
    "social_history": 0.7,
    "vitals": 0.8,
}
_ADULT_YEARS = 18
_DURATIONS = {  # with their length in years, at most the patient's age
    "acute": (("2 days", 0.0), ("4 days", 0.0), ("a week", 0.02), ("10 days", 0.03)),
    "subacute": (("3 weeks", 0.06), ("a month", 0.08), ("2 months", 0.17), ("3 months", 0.25)),
    "chronic": (("6 months", 0.5), ("a year", 1.0), ("18 months", 1.5), ("3 years", 3.0)),
}

_PULSE_BY_AGE = ((1, 130), (3, 115), (8, 95), (14, 82), (121, 74))  # years below, beats a minute
_BREATHS_BY_AGE = ((1, 38), (3, 28), (8, 22), (14, 18), (121, 15))  # years below, a minute
_SYSTOLIC_BY_AGE = ((1, 85), (3, 92), (8, 100), (14, 110), (40, 120), (121, 132))  # mmHg
_FEVER, _FAST_PULSE, _FAST_BREATH, _HYPERTENSION = (
    "HP:0001945",
    "HP:0001649",
    "HP:0002789",
    "HP:0000822",
)


@dataclass(frozen=True, slots=True)
class SimulatedVisit:
    """A patient and sampled findings, in the order of mention."""

    age_years: float
    sex: Sex
    course: Course
    present: tuple[VisitFinding, ...]
    absent: tuple[VisitFinding, ...]
    familial: VisitFinding | None


def render_visit(visit: SimulatedVisit, rng: random.Random) -> dict[str, str | None]:
    """The text fields of the visit by name; an absent field is ``None``."""
    symptoms = [finding for finding in visit.present if finding.symptom]
    signs = [finding for finding in visit.present if not finding.symptom]
    leading = (symptoms or signs)[: rng.choice((1, 1, 2))]
    reported = [finding for finding in symptoms if finding not in leading]
    observed = [finding for finding in signs if finding not in leading]
    duration = _duration(visit, rng)
    kept = {name: rng.random() < share for name, share in _FIELD_KEPT.items()}
    complaint = _sentence(f"{_listed(leading, rng, 'and', _LAY_COMPLAINT)} for {duration}")
    history = _history(visit, reported, rng)
    left = rng.uniform(*_TEXT_LENGTH) - len(complaint) - len(history)
    fields: dict[str, str | None] = {
        "chief_complaint": complaint,
        "history_of_present_illness": history,
        "past_medical_history": f"{rng.choice(_texts()['past'])}.",
        "family_history": _family(visit, rng),
        "social_history": _social(visit, rng),
        "physical_examination": _examination(visit, observed, left, rng),
        "vitals": _vitals(visit, rng),
    }
    return {name: text if kept.get(name, True) else None for name, text in fields.items()}


@lru_cache(maxsize=1)
def _texts() -> Mapping[str, tuple[str, ...]]:
    """Sentences without findings, and relatives, by kind."""
    texts: dict[str, tuple[str, ...]] = {}
    for row in packaged_rows("sentences.tsv", "rarealert.simulation"):
        texts[row["kind"]] = (*texts.get(row["kind"], ()), row["text"])
    return texts


def _duration(visit: SimulatedVisit, rng: random.Random) -> str:
    lived = [text for text, years in _DURATIONS[visit.course] if years <= visit.age_years]
    if not lived:
        courses = ("subacute", "acute")
        lived = [
            text for name in courses for text, years in _DURATIONS[name] if years <= visit.age_years
        ]
    return rng.choice(lived)


def _history(visit: SimulatedVisit, reported: Sequence[VisitFinding], rng: random.Random) -> str:
    speaker = "The patient" if visit.age_years >= _ADULT_YEARS else "A parent"
    denied = [finding for finding in visit.absent if finding.symptom]
    leads = ("There is no", f"{speaker} denies", "There has been no")
    sentences = [
        f"{rng.choice(_texts()[f'onset_{visit.course}'])}.",
        *_in_pairs(
            reported, (f"{speaker} also reports", f"{speaker} mentions"), "and", _LAY_HISTORY, rng
        ),
        *_in_pairs(denied, leads, "or", _LAY_HISTORY, rng),
    ]
    aim = rng.uniform(*_HISTORY_LENGTH)
    return _filled(sentences, _HISTORY_SENTENCES, aim, _texts()["plain_history"], rng)


def _examination(
    visit: SimulatedVisit, observed: Sequence[VisitFinding], aim: float, rng: random.Random
) -> str:
    absent = [finding for finding in visit.absent if not finding.symptom]
    leads = ("Examination shows", "Findings are", "On examination there is")
    sentences = [
        *_in_pairs(observed, leads, "and", _LAY_SIGN, rng),
        *_in_pairs(absent, ("There is no",), "or", _LAY_SIGN, rng),
    ]
    return _filled(sentences, _EXAM_SENTENCES, aim, _texts()["plain_examination"], rng)


def _in_pairs(
    findings: Sequence[VisitFinding],
    leads: Sequence[str],
    link: str,
    lay_share: float,
    rng: random.Random,
) -> Iterator[str]:
    """Sentences of one or two findings: in longer lists, commas would count the findings."""
    for start in range(0, len(findings), 2):
        pair = findings[start : start + 2]
        yield _sentence(f"{rng.choice(leads)} {_listed(pair, rng, link, lay_share)}")


def _filled(
    sentences: Sequence[str],
    counts: Sequence[int],
    aim: float,
    plain: Sequence[str],
    rng: random.Random,
) -> str:
    """The sentences with plain ones among them: about ``aim`` characters, a number from ``counts``.

    Each step takes the plain sentence that keeps the length of text and words nearest to their
    aims, so that neither depends on the patient's findings.
    """
    word_aim, wanted = rng.uniform(*_WORD_LENGTH), rng.choice(counts)
    pool = [(f"{text}.", len(text) + 2, text.count(" ") + 1) for text in plain]
    rng.shuffle(pool)
    whole = list(sentences)
    characters = sum(len(text) + 1 for text in whole)
    words = sum(text.count(" ") + 1 for text in whole)
    while len(whole) < wanted:
        share = (aim - characters) / (wanted - len(whole))
        misfits = [
            abs((characters + more) / (words + count) - word_aim) + abs(more - share) / _SENTENCE
            for _, more, count in pool[:_CANDIDATES]
        ]
        text, more, count = pool.pop(misfits.index(min(misfits)))
        characters, words = characters + more, words + count
        whole.insert(rng.randint(0, len(whole)), text)
    return " ".join(whole)


def _family(visit: SimulatedVisit, rng: random.Random) -> str:
    relative, plain = rng.choice(_texts()["relative"]), rng.choice(_texts()["plain_family"])
    if visit.familial is None:
        return f"{plain}."
    return _sentence(f"{relative} has {_wording(visit.familial, rng, _LAY_HISTORY)}")


def _social(visit: SimulatedVisit, rng: random.Random) -> str:
    adult = visit.age_years >= _ADULT_YEARS
    kinds = ("adult_living", "adult_smoking") if adult else ("child_living", "child_habits")
    return " ".join(f"{rng.choice(_texts()[kind])}." for kind in kinds)


def _wording(finding: VisitFinding, rng: random.Random, lay_share: float) -> str:
    lay_first = rng.random() < lay_share
    wordings = (finding.lay if lay_first else finding.clinical) or finding.clinical or finding.lay
    return rng.choice(wordings)


def _listed(
    findings: Sequence[VisitFinding], rng: random.Random, link: str, lay_share: float
) -> str:
    return f" {link} ".join(_wording(finding, rng, lay_share) for finding in findings)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _vitals(visit: SimulatedVisit, rng: random.Random) -> str:
    """Resting values by age (means after PALS and Fleming 2011), raised by fever and the like."""
    found = {finding.hpo_id for finding in visit.present}
    temperature = rng.gauss(38.6 if _FEVER in found else 36.8, 0.3)
    pulse = rng.gauss(_by_age(_PULSE_BY_AGE, visit), 7) + 12 * (_FEVER in found)
    pulse += 25 * (_FAST_PULSE in found)
    breaths = rng.gauss(_by_age(_BREATHS_BY_AGE, visit), 1.5) + 10 * (_FAST_BREATH in found)
    systolic = rng.gauss(_by_age(_SYSTOLIC_BY_AGE, visit), 6) + 30 * (_HYPERTENSION in found)
    readings = (
        f"temperature {temperature:.1f} C",
        f"pulse {pulse:.0f}/min",
        f"blood pressure {systolic:.0f}/{systolic * 0.63:.0f} mmHg",
        f"respirations {breaths:.0f}/min",
        f"oxygen saturation {rng.choice((96, 97, 98, 99))} %",
    )
    kept = [reading for reading in readings if rng.random() < 0.8] or [readings[0]]
    return _sentence(", ".join(kept))


def _by_age(table: Sequence[tuple[int, int]], visit: SimulatedVisit) -> int:
    return next(value for below, value in table if visit.age_years < below)
