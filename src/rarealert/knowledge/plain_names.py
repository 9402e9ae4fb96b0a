"""A diagnosis as a clinician writes it, less what a terminology leaves out of a name."""

import re
from collections.abc import Iterator

_LINK = re.compile(
    r"\s(?:with|due to|secondary to|caused by|associated with|complicated by|in|"
    r"resulting from|from|and|on a background of)\s",
    re.I,
)
_AFTER = re.compile(
    r"[,;]?\s*(?:\bs/p\b|\bstatus post\b|\bpost[- ]|\bafter\b|\bon treatment\b|"
    r"\bwithout\b|\bin remission\b|\bunder treatment\b).*$",
    re.I | re.S,
)
_STATE = re.compile(
    r"\b(?:mild|moderate|severe|newly diagnosed|known|confirmed|established|left|right|bilateral|"
    r"unilateral|exacerbations?|flares?|relapsed?|episodes?|attacks?|stable|unstable|"
    r"(?:stage|grade) (?:\d[a-d]?|[ivx]+)|poorly controlled|well[- ]controlled|combined type|"
    r"[a-z0-9]+[- ](?:positive|negative)|uncomplicated|complicated|unspecified|nos)\b",
    re.I,
)
_COURSE = re.compile(
    r"\b(?:acute|chronic|subacute|recurrent|refractory|persistent|"
    r"paroxysmal|intermittent|direct|indirect|advanced|early|late|classic(?:al)?|"
    r"typical|primary|adult|paediatric|pediatric|degenerative)\b",
    re.I,
)
_SERIES = re.compile(r",?\s+(?:type\s+|group\s+)?(?:\d+[A-Za-z]?|[IVX]+[a-c]?)$")
_NOT_THE_PATIENTS = re.compile(
    r"\b(?:family history|fh of|fhx|relatives?|mother|father|sibling|screening|screen for|"
    r"rule[sd]? out|r/o|exclude[sd]?|suspected|suspicion|possible|probable|query|\?|vs\.?|versus|"
    r"no evidence|no signs?|denies|negative for|unlikely|not|at risk|risk of|carrier|exposure|"
    r"susceptibility|vaccin\w+|prophylaxis|history of|trait)(?:\b|(?<=\?))|\?",
    re.I,
)


def is_anothers_or_doubtful(text: str) -> bool:
    """Whether ``text`` speaks of a relative's, a doubtful, a denied or a mere risk of a disease."""
    return bool(_NOT_THE_PATIENTS.search(text))


def plainer_names(text: str) -> Iterator[str]:
    """Shorter names of the same disease, the nearest first.

    "Wilms tumor, s/p nephrectomy" gives "Wilms tumor", "Anemia, sideroblastic" gives "sideroblastic
    Anemia", "severe left knee osteoarthritis" "knee osteoarthritis".
    """
    bare = _AFTER.sub("", text).strip(" .,;")
    head, comma, rest = bare.partition(",")
    if bare != text:
        yield bare
    if comma:
        yield f"{rest.strip()} {head}"
    state = _without(_STATE, bare)
    for shorter in (state, _without(_COURSE, state)):
        if shorter and shorter != bare:
            yield shorter
    if comma:
        yield head
    if (short := _SERIES.sub("", bare)) != bare:
        yield short


def _without(words: re.Pattern[str], text: str) -> str:
    return " ".join(words.sub(" ", text).split()).strip(" ,;-")


def linked_parts(text: str) -> tuple[str, ...]:
    """The diseases of "A due to B", "A with B" and the like; none if nothing links two."""
    parts = tuple(part.strip(" ,.;") for part in _LINK.split(_AFTER.sub("", text)))
    return parts if len(parts) > 1 else ()
