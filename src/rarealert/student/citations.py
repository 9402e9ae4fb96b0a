"""What an annotation says of a finding, told so that it can be looked up again.

A citation is ``<finding> is <how often> in <disease> (<ORPHA code>)``, the finding in the visit's
words and the rest from Orphanet's annotation in the HPO or from the table of common conditions.
Where a disease's own profile holds a rarer or more general term than the visit, nothing is cited.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from rarealert.cases.case import Label
from rarealert.knowledge.derived_heads import heads_of_finding
from rarealert.knowledge.heads import HEADS
from rarealert.knowledge.names import normalise_name
from rarealert.knowledge.profiles import (
    DiseaseProfile,
    FrequencyClass,
    load_common_profiles,
    load_rare_profiles,
)
from rarealert.knowledge.recognise import findings_of

_OFTEN: Mapping[FrequencyClass, str] = {
    "obligate": "always there",
    "very_frequent": "very frequent",
    "frequent": "frequent",
    "occasional": "occasional",
    "very_rare": "very rare",
}
_CITATION = re.compile(
    rf"(?P<finding>.+) is (?P<often>{'|'.join(_OFTEN.values())}) in "
    r"(?P<name>.+?)(?: \((?P<code>ORPHA:\d+)\))?"
)
_HEAD = re.compile(rf"\b(?:{'|'.join(name.lower() for name in HEADS.values())})\b")


def cite(label: Label, wordings: Mapping[str, str]) -> tuple[str, str] | None:
    """The finding of the visit that most patients with the labelled disease have, and its citation.

    ``wordings`` maps HPO ids that are present to the visit's words for them. ``None`` where the
    disease has no profile here, or none of its findings is present.
    """
    profile = _profiles().get(label.orpha_code or f"NAME:{normalise_name(label.disease_name)}")
    if profile is None:
        return None
    there = [item for item in profile.findings if not item.excluded and item.hpo_id in wordings]
    if not there:
        return None
    most = max(there, key=lambda item: item.frequency)
    code = f" ({profile.orpha_code})" if profile.orpha_code else ""
    often = _OFTEN[most.frequency_class]
    return most.hpo_id, f"{wordings[most.hpo_id]} is {often} in {profile.name}{code}"


def is_annotated(citation: str, present: frozenset[str]) -> bool:
    """Whether a citation tells of a present finding what the annotation of that disease says."""
    said = _CITATION.fullmatch(citation.strip())
    if said is None:
        return False
    profile = _profiles().get(said["code"] or f"NAME:{normalise_name(said['name'])}")
    if profile is None or profile.name.casefold() != said["name"].casefold():
        return False
    told = set(findings_of(said["finding"])[0]) & present
    return any(
        item.hpo_id in told and not item.excluded and _OFTEN[item.frequency_class] == said["often"]
        for item in profile.findings
    )


def heads_named(text: str) -> tuple[str, ...]:
    """Orphanet heads that ``text`` names, in lower case."""
    return tuple(_HEAD.findall(text.lower()))


def plausible_heads(present: Iterable[str]) -> tuple[str, ...]:
    """Heads of the organ systems of ``present`` HPO ids, in lower case, the most named first."""
    counts = Counter(head.lower() for item in present for head in heads_of_finding(item))
    return tuple(head for head, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


@lru_cache(maxsize=1)
def _profiles() -> Mapping[str, DiseaseProfile]:
    return {item.disease_id: item for item in (*load_rare_profiles(), *load_common_profiles())}
