"""CRAFT-MD's recorded models: five free-text diagnoses a vignette become one answer.

MedR-Bench's recorded models: reasoning and final diagnosis become one answer.

These models also saw the ancillary tests, which a first visit does not have. What they wrote is
therefore cut before it can become a rationale: a reasoning step that speaks of imaging, biopsy,
laboratory, genetics or surgery is left out, and the explanation is put together from names and
counts alone. Their risk still knows more than a visit does, so a figure for such a teacher is an
upper bound, not a rival of the student.

Orphanet's names and HPO's as readers of what a language model wrote.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rarealert.knowledge.hpo import load_ontology
from rarealert.knowledge.names import name_words, normalise_name
from rarealert.knowledge.orphanet import Disorder, load_index, looks_common, without_brackets
from rarealert.knowledge.profiles import load_rare_profiles
from rarealert.knowledge.recognise import Recogniser, load_recogniser
from rarealert.teachers.answer import Differential, Insight, TeacherAnswer
from rarealert.teachers.stated_diagnoses import Diagnosis, Resolve, read_diagnosis

_DIGITS = 4
_MOST = 5


@dataclass
class _Group:
    """Trials that name one disease."""

    diagnosis: Diagnosis
    trials: int = 1


def answer_of_trials(trials: Sequence[object], resolve: Resolve) -> TeacherAnswer | None:
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
    return TeacherAnswer(
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


_HEADING = re.compile(
    r"^[ \t>#*`]*(?:\d+\.\s*)?(?:final\s+)?(?:answer|diagnosis)\b[ \t*:#`]*:?[ \t*]*", re.I | re.M
)
_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.S)
_STEP = re.compile(r"<step\s*\d+>\s*(.*?)(?=<step\s*\d+>|\Z)", re.S | re.I)
_PARAGRAPH = re.compile(r"\n\s*\n")
_RARE_WORD = re.compile(
    r"\brare (?!in\b)|\brare\b(?=[.,;])|\buncommon (?:disease|disorder|condition)", re.I
)
_AFTER_THE_VISIT = re.compile(
    r"\b(?:ct|mri|mra|pet|x-?rays?|radiograph\w*|radiolog\w*|ultraso\w+|sonogra\w*|echo\w*|doppler|"
    r"imag(?:e|es|ing)|scans?|scintigra\w*|angiogra\w*|mammogra\w*|tomogra\w*|biops\w*|aspirat\w*|"
    r"histo\w*|patholog\w*|pathognomonic|cytolog\w*|immuno\w*|ihc|stain\w*|cd\d+|s-?100|markers?|"
    r"genetic\w*|genom\w*|gene|sequenc\w*|mutation\w*|variants?|exome|karyotyp\w*|fish|pcr|"
    r"lab|labs|laborator\w*|blood (?:work|test\w*|count\w*|smear)|serum|plasma|levels?|counts?|"
    r"cultur\w*|serolog\w*|antibod\w*|antigen\w*|titer\w*|csf|puncture|marrow|endoscop\w*|\w+scopy|"
    r"\w+oscopic|ecg|ekg|eeg|emg|electro\w+|surg\w+|operat\w+|intraop\w*|postop\w*|resect\w*|"
    r"excis\w*|laparo\w*|autops\w*|ancillary|tests?|testing|tested|findings on|confirm\w*|"
    r"elevated|detect\w*|profile|hormon\w*|cortisol|aldosterone|acth|tsh|psa|ferritin|lactate|"
    r"hyp\w*(?:emia|calcuria)|\w+(?:penia|cytosis|proteinemia)|proteinuria|"
    r"creatinine|hemoglobin|leuko\w*|crp|esr|wbc|platelets?|enzymes?|bilirubin|sodium|potassium|"
    r"calcium|glucose|urinalysis|treat\w*|therap\w*|follow-?up|"
    r"\d+(?:\.\d+)?\s*[a-z\u00b5]{1,5}/(?:[dm]?l|mm3|hpf))\b",
    re.I,
)
_MOST_RECORDED_MEDRBENCH = 5
_LONGEST_STEP = 400
_FINAL, _CONSIDERED, _CALLED_RARE = 0.6, 0.25, 0.15
_HALF_CONSIDERED = 2  # so many Orphanet disorders in the reasoning count half


@dataclass(frozen=True)
class Readers:
    """What a text is read with: names to disorders, codes mentioned, findings mentioned."""

    resolve: Resolve
    disorders_in: Callable[[str], list[Disorder]]
    """The Orphanet disorders that a text mentions, each once, in order."""
    findings_in: Callable[[str], list[str]]
    """HPO names of the findings that a text mentions, each once, in order."""


def answer_of_reasoning(answer: str, thinking: str, readers: Readers) -> TeacherAnswer | None:
    """The answer of one model, ``None`` where it states no final diagnosis.

    Risk is 60 points if the final diagnosis names an Orphanet disorder, up to 25 for the Orphanet
    disorders that the reasoning considers (n / (n + 2) of them), and 15 if the reasoning calls
    the case rare: it rises with each of the three and with nothing else. The models gave no
    weights, so up to five steps count alike.
    """
    text = _THINK.sub("", answer)
    heading = _last_heading(text)
    diagnosis = read_diagnosis(text[heading[1] :], readers.resolve) if heading else None
    if heading is None or diagnosis is None:
        return None
    reasoning = f"{thinking}\n{''.join(_THINK.findall(answer))}\n{text[: heading[0]]}"
    considered = readers.disorders_in(reasoning)
    called_rare = bool(_RARE_WORD.search(reasoning))
    risk = (
        _FINAL * (diagnosis.disorder is not None)
        + _CONSIDERED * len(considered) / (len(considered) + _HALF_CONSIDERED)
        + _CALLED_RARE * called_rare
    )
    return TeacherAnswer(
        insights=_insights_recorded_medrbench(text[: heading[0]], readers),
        differential=_differential(diagnosis, considered),
        risk=round(100 * risk),
        explanation=_explanation_recorded_medrbench(diagnosis, len(considered), called_rare),
    )


def _last_heading(text: str) -> tuple[int, int] | None:
    """Start and end of the last heading that something follows."""
    places = [
        (match.start(), match.end())
        for match in _HEADING.finditer(text)
        if text[match.end() :].strip(" \n`*")
    ]
    return places[-1] if places else None


def steps_of_visit(reasoning: str) -> list[str]:
    """The steps, or paragraphs where there are none, that a first visit could have led to."""
    steps = _STEP.findall(reasoning) or _PARAGRAPH.split(reasoning)
    plain = [" ".join(re.sub(r"[*#`>]+", " ", step).split()) for step in steps]
    return [step for step in plain if step.endswith(".") and not _AFTER_THE_VISIT.search(step)]


def _insights_recorded_medrbench(reasoning: str, readers: Readers) -> tuple[Insight, ...]:
    steps = steps_of_visit(reasoning)[:_MOST_RECORDED_MEDRBENCH]
    named: list[tuple[str, str]] = []
    for number, step in enumerate(steps, start=1):
        findings = readers.findings_in(step)
        named.append((", ".join(findings[:2]) or f"Reasoning step {number}", step))
    return tuple(
        Insight(name=name, weight=1 / len(steps), explanation=_cut(step)) for name, step in named
    )


def _cut(step: str) -> str:
    if len(step) <= _LONGEST_STEP:
        return step
    return step[:_LONGEST_STEP].rsplit(" ", 1)[0] + " …"


def _differential(diagnosis: Diagnosis, considered: list[Disorder]) -> tuple[Differential, ...]:
    final = diagnosis.orpha_code
    others = [disorder for disorder in considered if disorder.orpha_code != final]
    return (
        Differential(name=diagnosis.name, orpha_code=final),
        *(
            Differential(name=item.name, orpha_code=item.orpha_code)
            for item in others[: _MOST_RECORDED_MEDRBENCH - 1]
        ),
    )


def _explanation_recorded_medrbench(
    diagnosis: Diagnosis, considered: int, called_rare: bool
) -> str:
    standing = (
        f"Orphanet disorder {diagnosis.disorder.orpha_code}"
        if diagnosis.disorder
        else "no Orphanet disorder by this name"
    )
    return (
        f"The model's final diagnosis is {diagnosis.name}, {standing}. Its reasoning considers "
        f"{considered} Orphanet disorders and {'calls' if called_rare else 'does not call'} "
        "something about the case rare."
    )


_MIN_CHARACTERS = 6  # shorter single words are abbreviations with many meanings


@lru_cache(maxsize=1)
def load_readers(data: Path) -> Readers:
    """Readers over Orphanet's names and the packaged HPO, built once a process.

    Orphadata's tables in ``data/orphanet`` are used where they lie there, else the installed
    names. A disorder above Europe's bound for rarity is no rare disease, so it is never found.

    Raises:
        BadInputError: Orphadata's tables are there but not as published.
    """
    tables = data / "orphanet"
    index = load_index(tables if tables.is_dir() else None)
    rare = {code: found for code, found in index.by_code.items() if not found.common}
    names = {profile.name: profile.disease_id for profile in load_rare_profiles()}
    names |= {found.name: code for code, found in rare.items()}
    phrases = {
        words: code
        for name, code in names.items()
        if code in rare and len(" ".join(words := name_words(name))) >= _MIN_CHARACTERS
    }
    disorders, findings, ontology = Recogniser(phrases), load_recogniser(), load_ontology()

    def resolve(name: str) -> Disorder | None:
        if looks_common(without_brackets(name)):
            return None
        found = index.resolve(name)
        return None if found is None or found.common else found

    def disorders_in(text: str) -> list[Disorder]:
        codes = dict.fromkeys(mention.hpo_id for mention in disorders.mentions(text))
        return [rare[code] for code in codes]

    def findings_in(text: str) -> list[str]:
        told = (mention.hpo_id for mention in findings.mentions(text) if not mention.negated)
        return [ontology.name(hpo_id) for hpo_id in dict.fromkeys(told)]

    return Readers(resolve, disorders_in, findings_in)
