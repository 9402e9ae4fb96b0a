"""The text of simulated visits, made from sampled findings.

Neither the label nor the disease of a finding is an input, so the wording can't depend on them.
One renderer serves every register: a register is a set of sentences by slot, see ``phrases``.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rarealert.simulation.phrases import (
    ChronicCondition,
    Course,
    Register,
    Sex,
    duration,
    listed,
    load_sentences,
    patient_words,
    relative,
    with_article,
)
from rarealert.simulation.typing_errors import with_typing_errors
from rarealert.simulation.vital_signs import vital_signs
from rarealert.simulation.vocabulary import VisitFinding

Layout = Literal["sections", "complaint_and_history", "history"]

_CHILD_YEARS = 13  # below it a parent speaks
_REGISTERS: dict[Register | None, float] = {  # None: the patient's own words, or a parent's
    "note": 0.28,
    "letter": 0.28,
    "vignette": 0.16,
    None: 0.28,
}
_LAYOUTS: dict[Layout, float] = {"sections": 0.55, "complaint_and_history": 0.22, "history": 0.23}
_WORDS_MEDIAN, _WORDS_SIGMA, _WORDS_RANGE = 85, 0.6, (20, 400)  # log-normal, as real visits have
_LAY_SHARE = {"note": 0.35, "letter": 0.4, "vignette": 0.35, "patient": 0.85, "parent": 0.85}
_LAY_COMPLAINT = 0.3  # more lay words in complaints: they quote the patient
_TYPING_ERRORS = ((0.6, 0), (0.3, 60), (0.1, 20))  # share of hurried visits, words to an error
_PART_KEPT = {"past": 0.65, "family": 0.5, "social": 0.5, "examination": 0.7, "vitals": 0.6}
_SHORT = 60  # words; a shorter visit has fewer parts
_CLINICIAN: tuple[Register, ...] = ("note", "letter")  # who writes the examination of own words


@dataclass(frozen=True, slots=True)
class Style:
    """How a visit is written, drawn before its findings and without regard to the label."""

    register: Register
    examiner: Register
    layout: Layout
    words: int
    parts: frozenset[str]
    errors_every: int


@dataclass(frozen=True, slots=True)
class SimulatedVisit:
    """A patient and sampled findings, in the order of mention.

    ``uncertain`` and ``past`` findings are told as such and are not the patient's today;
    ``chronic`` conditions are known ones beside the complaint.
    """

    age_years: float
    sex: Sex
    course: Course
    present: tuple[VisitFinding, ...]
    absent: tuple[VisitFinding, ...]
    uncertain: tuple[VisitFinding, ...]
    past: tuple[VisitFinding, ...]
    familial: VisitFinding | None
    family_illness: ChronicCondition | None
    chronic: tuple[ChronicCondition, ...]
    style: Style


def draw_style(age_years: float, rng: random.Random) -> Style:
    """A register, a layout and a length for a patient of this age."""
    drawn = rng.choices(tuple(_REGISTERS), tuple(_REGISTERS.values()))[0]
    speaker: Register = "patient" if age_years >= _CHILD_YEARS else "parent"
    words = round(rng.lognormvariate(0, _WORDS_SIGMA) * _WORDS_MEDIAN)
    return Style(
        register=drawn or speaker,
        examiner=rng.choice(_CLINICIAN) if drawn is None else drawn,
        layout=rng.choices(tuple(_LAYOUTS), tuple(_LAYOUTS.values()))[0],
        words=min(max(words, _WORDS_RANGE[0]), _WORDS_RANGE[1]),
        parts=frozenset(
            part
            for part, share in _PART_KEPT.items()
            if rng.random() < share * min(1, words / _SHORT)
        ),
        errors_every=rng.choices(
            [every for _, every in _TYPING_ERRORS], [share for share, _ in _TYPING_ERRORS]
        )[0]
        if drawn in ("note", None)
        else 0,
    )


def render_visit(visit: SimulatedVisit, rng: random.Random) -> dict[str, str | None]:
    """The text fields of the visit by name; an absent field is ``None``."""
    fields = _Writer(visit, rng).fields()
    every = visit.style.errors_every
    if every:
        fields = {name: with_typing_errors(text, every, rng) for name, text in fields.items()}
    return dict(fields)


class _Writer:
    """Writes one visit; a sentence without findings is used once, and one of each topic."""

    def __init__(self, visit: SimulatedVisit, rng: random.Random) -> None:
        self._visit, self._rng, self._style = visit, rng, visit.style
        self._used: set[str] = set()
        self._topics: set[str] = set()
        self._affected = frozenset[str]().union(*(finding.ancestors for finding in visit.present))
        self._duration = duration(visit.course, visit.age_years, visit.style.register, rng)
        self._words = patient_words(visit.age_years, visit.sex, visit.style.register, rng)
        symptoms = [finding for finding in visit.present if finding.symptom]
        signs = [finding for finding in visit.present if not finding.symptom]
        self._leading = (symptoms or signs)[: rng.choice((1, 1, 2))]
        examined = "examination" in self._parts
        told = symptoms if examined else list(visit.present)
        self._reported = [finding for finding in told if finding not in self._leading]
        self._observed = [f for f in signs if examined and f not in self._leading]

    @property
    def _parts(self) -> frozenset[str]:
        """The parts that the visit has; own words alone have no examination."""
        own = self._style.register in ("patient", "parent") and self._style.layout == "history"
        return self._style.parts - {"examination", "vitals"} if own else self._style.parts

    def fields(self) -> dict[str, str]:
        """The texts of the fields that the layout fills, with plain sentences up to the length."""
        history = [*self._history()]
        past, family, social = [*self._past()], [*self._family()], [*self._social()]
        examination = [*self._examination()]
        vitals = self._vitals()
        complaint = self._complaint()
        told = (complaint, *history, *past, *family, *social, *examination, vitals)
        self._fill(history, self._style.words - sum(len(text.split()) for text in told))
        if self._style.layout == "sections":
            texts = {
                "chief_complaint": complaint,
                "history_of_present_illness": " ".join(history),
                "past_medical_history": " ".join(past),
                "family_history": " ".join(family),
                "social_history": " ".join(social),
                "physical_examination": " ".join(examination),
                "vitals": vitals,
            }
        else:
            lead = self._lead() if examination else ()
            texts = {
                "chief_complaint": complaint,
                "history_of_present_illness": " ".join(
                    (*history, *past, *family, *social, *lead, *examination, vitals)
                ).strip(),
            }
            if self._style.layout == "history":
                texts["history_of_present_illness"] = " ".join(
                    text for text in texts.values() if text
                )
                del texts["chief_complaint"]
        return {name: " ".join(text.split()) for name, text in texts.items() if text}

    def _complaint(self) -> str:
        slot = "opening" if self._style.layout == "history" else "complaint"
        if not self._leading:
            return self._say(f"{slot}_plain")
        words = self._wordings(self._leading, _LAY_COMPLAINT)
        return self._say(slot, f=listed(words, "and", self._style.register))

    def _history(self) -> Iterator[str]:
        visit = self._visit
        if visit.present and self._style.words > _SHORT / 2:
            yield self._say(f"onset_{visit.course}")
        denied = [f for f in visit.absent if f.symptom or "examination" not in self._parts]
        sentences = [
            *self._sentences("report", self._reported, "and"),
            *self._sentences("deny", denied, "or"),
            *(self._say("uncertain", f=self._wordings([f])[0]) for f in visit.uncertain),
            *(self._say("past", f=self._wordings([f])[0]) for f in visit.past),
        ]
        if self._style.register in ("patient", "parent"):
            self._rng.shuffle(sentences)
        yield from sentences

    def _past(self) -> Iterator[str]:
        chronic, note = self._visit.chronic, self._style.register == "note"
        if chronic:
            names = [self._chronic_name(condition) for condition in chronic]
            yield self._say("chronic", c=listed(names, "and", self._style.register))
            medicines = [c.medication_note if note else c.medication for c in chronic]
            if self._rng.random() < 0.7:
                yield self._say("medication", m=", ".join(medicines))
        elif "past" in self._parts:
            yield self._say("chronic_none")
            if self._rng.random() < 0.5:
                yield self._say("medication_none")

    def _chronic_name(self, condition: ChronicCondition) -> str:
        own = {"note": condition.note, "patient": condition.lay, "parent": condition.lay}
        return own.get(self._style.register, condition.plain)

    def _family(self) -> Iterator[str]:
        if "family" not in self._parts:
            return
        told = [self._wordings([self._visit.familial])[0]] if self._visit.familial else []
        if self._visit.family_illness:
            told.append(self._chronic_name(self._visit.family_illness))
        if not told:
            yield self._say("family_none")
        for words in told:
            yield self._say("relative", None, f=words, **relative(self._words, self._rng))

    def _social(self) -> Iterator[str]:
        adult = self._visit.age_years >= 18
        if "social" in self._parts:
            for _ in range(self._rng.choice((1, 1, 2, 3))):
                yield self._say("social_adult" if adult else "social_child")

    def _examination(self) -> Iterator[str]:
        if "examination" not in self._parts:
            return
        writer = self._style.examiner
        absent = [finding for finding in self._visit.absent if not finding.symptom]
        sentences = [
            *self._sentences("sign", self._observed, "and", writer),
            *self._sentences("no_sign", absent, "or", writer),
            *(self._say("exam_plain", writer) for _ in range(self._rng.choice((0, 1, 1, 2, 3)))),
        ]
        sentences = sentences or [self._say("exam_plain", writer)]
        self._rng.shuffle(sentences)
        yield from sentences

    def _lead(self) -> Sequence[str]:
        leads = load_sentences().get((self._style.examiner, "exam_lead"), ())
        return [self._rng.choice(leads).text] if leads else []

    def _vitals(self) -> str:
        if "vitals" not in self._parts:
            return ""
        findings = frozenset(finding.hpo_id for finding in self._visit.present)
        note = self._style.examiner == "note"
        return f"{vital_signs(self._visit.age_years, findings, note, self._rng)}."

    def _fill(self, history: list[str], words: int) -> None:
        """Put remarks among the sentences of the history until ``words`` more are said."""
        while words > 0:
            remark = self._say("remark")
            if not remark:
                return
            history.insert(self._rng.randint(min(1, len(history)), len(history)), remark)
            words -= len(remark.split())

    def _sentences(
        self,
        slot: str,
        findings: Sequence[VisitFinding],
        link: str,
        register: Register | None = None,
    ) -> Iterator[str]:
        """Sentences of one to four findings each."""
        register, left = register or self._style.register, list(findings)
        while left:
            count = self._rng.choice((1, 1, 2, 2, 3, 4))
            now, left = left[:count], left[count:]
            yield self._say(slot, register, f=listed(self._wordings(now), link, register))

    def _wordings(self, findings: Sequence[VisitFinding], more_lay: float = 0) -> list[str]:
        share = _LAY_SHARE[self._style.register] + more_lay
        chosen = []
        for finding in findings:
            first, second = finding.clinical, finding.lay
            if self._rng.random() < share:
                first, second = second, first
            chosen.append(self._rng.choice(first or second))
        return chosen

    def _say(self, slot: str, register: Register | None = None, **places: str) -> str:
        """A sentence of the slot that is not yet used; none is left: empty, or used again."""
        register, age = register or self._style.register, self._visit.age_years
        fitting = [
            sentence
            for sentence in load_sentences().get((register, slot), ())
            if sentence.age_min <= age <= sentence.age_max
            and sentence.not_with.isdisjoint(self._affected)
            and sentence.topic not in self._topics
        ]
        fresh = [sentence for sentence in fitting if sentence.text not in self._used]
        if not fresh and (not places or not fitting):
            return ""
        sentence = self._rng.choice(fresh or fitting)
        self._used.add(sentence.text)
        if sentence.topic:
            self._topics.add(sentence.topic)
        spoken = sentence.text.format(**self._words, **{"d": self._duration} | places)
        spoken = with_article(f"{spoken[0].upper()}{spoken[1:]}")
        return spoken if spoken.endswith(("!", "?", ".")) else f"{spoken}."
