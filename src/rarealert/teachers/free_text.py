"""Answers from the free text of recorded language models.

CRAFT-MD publishes several free-text diagnoses a vignette, MedR-Bench reasoning with a final
diagnosis. The MedR-Bench models also saw ancillary tests, which a first visit does not have. A
reasoning step that mentions imaging, biopsy, laboratory, genetics or surgery is therefore left out,
and explanations are composed of names and counts alone. The risk of such a teacher still rests on
more than the visit: its figures are an upper bound.
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
from rarealert.teachers.teacher_answer import Differential, Insight, TeacherAnswer

_LEAD = re.compile(
    r"^(?:(?:based on|given|considering)\b[^,.]*,\s*)?"
    r"(?:i (?:would )?(?:suspect|think)[^:]{0,20}?\s+)?"
    r"(?:(?:the|a|this|my|patient'?s?)\s+)*"
    r"(?:(?:most|more|likely|probable|possible|final|suspected|underlying|working|primary|leading|"
    r"best|correct|appropriate|single)\s+)*"
    r"(?:diagnosis|cause|condition|explanation|answer|patient)\b[^.:\n]{0,60}?"
    r"(?:\b(?:is|be|has|includes?|remains)\b|:)\s*:?\s*"
    r"(?:(?:most|very|highly|likely|probably|possibly|either|to be|consistent with|suffering from|"
    r"experiencing|a (?:case|diagnosis) of|suggestive of|having|have)\b\s*)*:?\s*",
    re.I,
)
_LABEL = re.compile(
    r"^(?:(?:most likely|likely|final|probable|possible)\s+)?(?:diagnosis|answer)\s*:\s*", re.I
)
_TAIL = re.compile(
    r"\s+(?:is|are|appears?|seems?|would be|remains)\s+(?:to be\s+)?(?:also\s+)?"
    r"(?:the\s+|a\s+)?(?:most|likely|probable|possible|final|leading|suspected)\b.*$",
    re.I,
)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.I)
_SENTENCE = re.compile(r"(?:(?<=[A-Za-z\d\]]{3})|(?<=\w[)\]]))\.(?:\s+(?=[A-Z(])|\s*$)|\n")
_MARKUP = re.compile(r"[*_`#>]+")

_ABOUT_THE_CASE = re.compile(
    r"^(?:based on|given|considering|with|without|from|this|these|it|the|his|her|patient'?s?|"
    r"symptoms|findings|however|but|although|while)\b",
    re.I,
)
"""Openings of a sentence about the case; a disease name does not begin so."""

_CUES = (
    re.compile(
        r"\b(?:diagnosis|cause|condition|consideration)\b[^.;:]{0,250}?"
        r"\b(?:is|be|includes?|like|such as)\b\s*:?\s*",
        re.I,
    ),
    re.compile(
        r"\b(?:(?:consistent|compatible) with|suggest(?:s|ing|ive of)?|indicat(?:es?|ing|ive of)|"
        r"points? (?:to|towards?)|(?:most likely|likely|probably|possibly) "
        r"(?:associated with|due to|caused by|related to)|"
        r"(?:this|it) (?:is|could be|may be|appears to be))\b\s*:?\s*",
        re.I,
    ),
)
"""Words before the diagnosis in such a sentence; those that name the diagnosis come first."""

_AFTER_CUE = re.compile(
    r"^(?:(?:most|more|very|highly|likely|probably|possibly|either|to be|that|of|as|"
    r"(?:an?|the|his|her|this|patient'?s?|child|baby|infant|boy|girl|man|woman|he|she|it|they)|"
    r"(?:may|might|could|can|would|must)|have|has|had|be|is|are|having|suffering from|"
    r"(?:a |the )?(?:diagnosis|case|possibility|presence|conditions?)(?: of)?|like|such as)\b\s*)+",
    re.I,
)
_ASIDE = re.compile(r"\s*\((?:which|as|since|because|assuming|presuming|not|i)\b[^()]*\)", re.I)
_DECLINES = re.compile(
    r"\b(?:can ?not|can'?t|unable to|not (?:possible|able|appropriate|sufficient|enough)|"
    r"impossible|insufficient|does not (?:include|provide|contain|mention|specify)|"
    r"(?:is|are|was|were) not (?:provided|included|presented|available|specified)|apologi[sz]e)\b|"
    r"^(?:without|sorry|i'?m sorry|i am sorry)\b",
    re.I,
)


def statement(text: str) -> str:
    """The first sentence of ``text`` that states a diagnosis, empty where none does.

    Markup and openings such as "The final diagnosis is" are removed. After a sentence that declines
    to diagnose ("Without the image I cannot provide a diagnosis"), a later one counts only if it
    names a suspicion: declining is not a diagnosis of a common disease.
    """
    plain = " ".join(_MARKUP.sub(" ", text).replace("\n\n", " \n").split(" ")).strip()
    plain = _LABEL.sub("", plain)
    lead = _LEAD.match(plain)
    if lead and not _DECLINES.search(lead[0]):
        plain = plain[lead.end() :]
    parts = _SENTENCE.split(_ASIDE.sub("", plain))
    sentences = [" ".join(one.split()) for one in parts if one and one.strip()]
    if not sentences or not _DECLINES.search(sentences[0]):
        return _tidied(sentences[0] if sentences else "")
    suspected = (suspected_in(one) for one in sentences[1:] if not _DECLINES.search(one))
    return next((one for one in suspected if one), "")


def suspected_in(stated: str) -> str:
    """The suspected disease in a sentence about the case, empty where there is none.

    "The findings are most consistent with malaria" gives "malaria"; a bare name gives nothing.
    """
    if not _ABOUT_THE_CASE.match(stated):
        return ""
    cue = next((found for cue in _CUES if (found := cue.search(stated))), None)
    return _tidied(_AFTER_CUE.sub("", stated[cue.end() :])) if cue else ""


def _tidied(stated: str) -> str:
    """``stated`` without article and without a tail such as "is the most likely diagnosis"."""
    if not _ABOUT_THE_CASE.match(stated):
        stated = _ARTICLE.sub("", _TAIL.sub("", stated))
    return stated.strip(' .:;,"\u201c\u201d')


_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]")
_JOINT = re.compile(
    r"\s+(?:or|and|with|without|due to|secondary to|caused by|associated with|complicated by|"
    r"in the (?:context|setting) of|leading to|of the|in the|involving|such as|including|versus|"
    r"vs\.?|likely|possibly|presenting (?:as|with)|following|resulting (?:in|from)|affecting|"
    r"arising|superimposed on|induced by|related to|specifically|also known as|causing|on)\s+|"
    r"\s*[,;:/]\s*|\s+[-\u2013\u2014]\s+",
    re.I,
)
_QUALIFIER = re.compile(
    r"^(?:severe|mild|moderate|early|advanced|recurrent|classic(?:al)?|typical|possible|probable|"
    r"likely|suspected|left|right|bilateral|unilateral|localized|metastatic|sporadic|secondary|"
    r"symptomatic|new[- ]onset|late[- ]onset|early[- ]onset|adult|pediatric|giant|large|"
    r"underlying)\s+",
    re.I,
)
_LONGEST = 160
_SMALL_LETTERS = re.compile(r"[a-z]{2}")
_SHORT = 5  # characters; a word of no more in brackets is an abbreviation


Resolve = Callable[[str], Disorder | None]
"""The rare Orphanet disorder that a name means, else ``None``."""


@dataclass(frozen=True)
class StatedDiagnosis:
    """A diagnosis as worded by the model, and the Orphanet disorder it names, if any."""

    wording: str
    disorder: Disorder | None

    @property
    def name(self) -> str:
        """The disorder's name, else the model's wording."""
        return self.disorder.name if self.disorder else self.wording

    @property
    def orpha_code(self) -> str | None:
        """The disorder's code, ``None`` without one."""
        return self.disorder.orpha_code if self.disorder else None


def read_diagnosis(text: str, resolve: Resolve) -> StatedDiagnosis | None:
    """The diagnosis that ``text`` states, ``None`` where it states none or declines.

    Only the first statement counts; hedging and management follow it. Its suspicion, the whole, its
    parts and the names in brackets are looked up in this order; the first Orphanet disorder counts.
    """
    stated = statement(text)
    if not re.search(r"[A-Za-z]{2}", stated):
        return None
    suspected = suspected_in(stated)
    wordings = [*names_in(suspected), *names_in(stated)]
    found = next((disorder for name in wordings if (disorder := resolve(name))), None)
    return StatedDiagnosis(_main_part(suspected or stated), found)


def names_in(stated: str) -> list[str]:
    """Candidate disease names in a statement, the longest first, each once.

    An abbreviation in brackets is left out: it repeats the name before it and is ambiguous.
    """
    outside = " ".join(_BRACKETS.sub(" ", stated).split())
    if outside:
        stated = _BRACKETS.sub(lambda one: " " if _is_abbreviation(one[1]) else one[0], stated)
    inside = [text for text in _BRACKETS.findall(stated) if text.strip()]
    parts = [part for part in _JOINT.split(outside) if part and part.strip()]
    found: dict[str, None] = {}
    for wording in (outside, stated, *parts, *inside):
        plain = _ARTICLE.sub("", wording.strip(" .:;,"))
        found[plain] = None
        while (shorter := _QUALIFIER.sub("", plain)) != plain:
            plain = shorter
            found[plain] = None
    return [name for name in found if name]


def _is_abbreviation(text: str) -> bool:
    """Whether ``text`` is one word, short or without two small letters in a row.

    "MDD", "NSTEMI" and "cad" are, "PEComa" and "Wegener" are not.
    """
    word = text.strip(" .:;,")
    return len(word.split()) == 1 and (len(word) <= _SHORT or not _SMALL_LETTERS.search(word))


def _main_part(stated: str) -> str:
    """The text before the first joint, without complications, causes and sites."""
    outside = " ".join(_BRACKETS.sub(" ", stated).split()) or stated
    main = next((part for part in _JOINT.split(outside) if part and part.strip()), outside)
    return main[:_LONGEST].strip(" .:;,") or stated[:_LONGEST]


_DIGITS = 4
_MOST = 5


def answer_of_trials(trials: Sequence[object], resolve: Resolve) -> TeacherAnswer | None:
    """The answer of one model from several trials, ``None`` where no trial states a diagnosis.

    The risk is the share of usable trials that name an Orphanet disorder. Insights and differential
    are the distinct diagnoses by frequency, weighted by their share of the trials: their agreement
    is the only confidence that these models gave.
    """
    diagnoses = [
        diagnosis
        for text in trials
        if isinstance(text, str) and (diagnosis := read_diagnosis(text, resolve))
    ]
    if not diagnoses:
        return None
    groups: dict[str, list[StatedDiagnosis]] = {}
    for diagnosis in diagnoses:
        key = diagnosis.orpha_code or normalise_name(diagnosis.wording)
        groups.setdefault(key, []).append(diagnosis)
    counts = [  # ties keep the order of mention
        (group[0], len(group)) for group in sorted(groups.values(), key=lambda group: -len(group))
    ]
    rare = sum(diagnosis.disorder is not None for diagnosis in diagnoses)
    return TeacherAnswer(
        insights=_trial_insights(counts[:_MOST], len(diagnoses)),
        differential=tuple(
            Differential(name=diagnosis.name, orpha_code=diagnosis.orpha_code)
            for diagnosis, _ in counts[:_MOST]
        ),
        risk=round(100 * rare / len(diagnoses)),
        explanation=_trials_explained(counts[:_MOST], rare, len(diagnoses)),
    )


def _trial_insights(
    counts: Sequence[tuple[StatedDiagnosis, int]], trials: int
) -> tuple[Insight, ...]:
    counted = sum(count for _, count in counts)
    weights = [round(count / counted, _DIGITS) for _, count in counts]
    weights[0] = round(weights[0] + 1 - sum(weights), _DIGITS)
    return tuple(
        Insight(
            name=diagnosis.name,
            weight=weight,
            explanation=f"Named in {count} of {trials} trials; {_in_orphanet(diagnosis)}.",
        )
        for (diagnosis, count), weight in zip(counts, weights, strict=True)
    )


def _in_orphanet(diagnosis: StatedDiagnosis) -> str:
    if diagnosis.disorder is None:
        return "Orphanet has no disorder of this name"
    return f"Orphanet disorder {diagnosis.disorder.orpha_code}"


def _trials_explained(counts: Sequence[tuple[StatedDiagnosis, int]], rare: int, trials: int) -> str:
    leading, count = counts[0]
    more = len(counts) - 1
    other = f", beside {more} other diagnos{'is' if more == 1 else 'es'}" if more else ""
    return (
        f"Asked {trials} times, the model named {leading.name} {count} times{other}. An Orphanet "
        f"disorder was named in {rare} of {trials} trials."
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
_LONGEST_STEP = 400
_FINAL, _CONSIDERED, _CALLED_RARE = 0.6, 0.25, 0.15
_HALF_CONSIDERED = 2  # Orphanet disorders in the reasoning that give half of its points


@dataclass(frozen=True)
class Readers:
    """Look-ups of disorders and findings in a text."""

    resolve: Resolve
    disorders_in: Callable[[str], list[Disorder]]
    """The Orphanet disorders that a text mentions, each once, in order."""
    findings_in: Callable[[str], list[str]]
    """HPO names of the findings that a text mentions, each once, in order."""


def answer_of_reasoning(answer: str, thinking: str, readers: Readers) -> TeacherAnswer | None:
    """The answer of one model from its reasoning, ``None`` where it states no final diagnosis.

    The risk is 60 points if the final diagnosis names an Orphanet disorder, up to 25 for the n
    Orphanet disorders in the reasoning (n / (n + 2) of them), and 15 if the reasoning calls the
    case rare. The models gave no weights, so up to five steps have equal ones.
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
        insights=_step_insights(text[: heading[0]], readers),
        differential=_differential(diagnosis, considered),
        risk=round(100 * risk),
        explanation=_reasoning_explained(diagnosis, len(considered), called_rare),
    )


def _last_heading(text: str) -> tuple[int, int] | None:
    """Start and end of the last heading that is followed by text."""
    places = [
        (match.start(), match.end())
        for match in _HEADING.finditer(text)
        if text[match.end() :].strip(" \n`*")
    ]
    return places[-1] if places else None


def steps_of_visit(reasoning: str) -> list[str]:
    """The steps (else paragraphs) of ``reasoning`` that use no ancillary test."""
    steps = _STEP.findall(reasoning) or _PARAGRAPH.split(reasoning)
    plain = [" ".join(re.sub(r"[*#`>]+", " ", step).split()) for step in steps]
    return [step for step in plain if step.endswith(".") and not _AFTER_THE_VISIT.search(step)]


def _step_insights(reasoning: str, readers: Readers) -> tuple[Insight, ...]:
    steps = steps_of_visit(reasoning)[:_MOST]
    return tuple(
        Insight(
            name=", ".join(readers.findings_in(step)[:2]) or f"Reasoning step {number}",
            weight=1 / len(steps),
            explanation=_cut(step),
        )
        for number, step in enumerate(steps, start=1)
    )


def _cut(step: str) -> str:
    if len(step) <= _LONGEST_STEP:
        return step
    return step[:_LONGEST_STEP].rsplit(" ", 1)[0] + " …"


def _differential(
    diagnosis: StatedDiagnosis, considered: list[Disorder]
) -> tuple[Differential, ...]:
    final = diagnosis.orpha_code
    others = [disorder for disorder in considered if disorder.orpha_code != final]
    return (
        Differential(name=diagnosis.name, orpha_code=final),
        *(Differential(name=item.name, orpha_code=item.orpha_code) for item in others[: _MOST - 1]),
    )


def _reasoning_explained(diagnosis: StatedDiagnosis, considered: int, called_rare: bool) -> str:
    orphanet = (
        f"Orphanet disorder {diagnosis.disorder.orpha_code}"
        if diagnosis.disorder
        else "no Orphanet disorder by this name"
    )
    return (
        f"The model's final diagnosis is {diagnosis.name}, {orphanet}. Its reasoning considers "
        f"{considered} Orphanet disorders and {'calls' if called_rare else 'does not call'} "
        "something about the case rare."
    )


_MIN_CHARACTERS = 6  # shorter single words are abbreviations with many meanings


@lru_cache(maxsize=1)
def load_readers(data: Path) -> Readers:
    """Readers over Orphanet's names and the packaged HPO, built once a process.

    Uses Orphadata's tables in ``data/orphanet`` if they exist, else the packaged names. Disorders
    more common than Europe's limit of rarity are never found.

    Raises:
        BadInputError: Orphadata's tables are not as published.
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
        ids = (mention.hpo_id for mention in findings.mentions(text) if mention.state == "present")
        return [ontology.name(hpo_id) for hpo_id in dict.fromkeys(ids)]

    return Readers(resolve, disorders_in, findings_in)
