"""The HPO findings that a first visit can have, and their wordings.

``visit_terms.tsv`` lists terms by role: findings that are always seen at a visit, branches of HPO
that are not (laboratory, imaging, histology), symptoms, and branches limited to a sex or age.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rarealert.knowledge import packaged_rows
from rarealert.knowledge.hpo import Ontology, Term, load_ontology
from rarealert.knowledge.names import normalise_name, word_set
from rarealert.knowledge.profiles import load_common_profiles, load_rare_profiles
from rarealert.knowledge.recognise import load_everyday_wordings, load_recogniser

_UNSEEN_WORDS = re.compile(
    r"""circulating|concentration\b|serum|plasma|biopsy|histolog|electro|\beeg|\bemg|\becg|mri\b|
    imaging|radiograph|x.ray|ultraso|level\b|enzyme|antibod|genetic|chromosom|mutation|deletion|
    abnormality|morpholog|epiphys|metaphys|ossific|vertebra|trabec|cortical|medull|densit|
    matur|intracran|intrahep|ventric|atrial|aort|arter|callos|cerebell|cerebral|pituitar|
    thyroidism|adren|pancrea|renal|kidney|hepatic|uter[ui]|ovar|retin|macula[r]?\b|optic|
    fund[ui]s|immunoglob|deficiency|lymphopen|neutrop|thrombocyt|anemia|leuk|carcin|
    sarcoma|tumor|neoplas|cancer|adenoma|death|mortality|intrauter|fetal|
    amniot|pregnan|congenital|aplasia|hypoplas|agenes|dysplas|atresia|stenosis|fistula|
    cyst|calcific|necrosis|fibrosis|fibre|fiber|nerve|conduct|potential|metacarp|
    metatars|phalan|carpal|tarsal|femoral|tibia|fibula|humer|radius|radial|ulna|acetab|iliac|
    pubic|sella|foram|hemivert|acro-?osteo|onset|recessive|dominant|steatosis|cirrhosis|
    block\b|shock|dysreg|dysfunc|infiltrat|mitral|tricusp|regurg|insufficien|organ.failure|
    respiratory.failure|liver.failure|amyloid|granulom|
    aqueduct|cochlea|internal|duct\b|autoimm|bronchiect|myopath|neuropath|dystroph|lupus|
    nephr|encephal|valve|gallbl|abscess|diaphragm|\bperi(?:car|ton)d|embol|thrombo|infarct|
    opacit|capacity|pleocyt|diffusing|expiratory|lavage|saturation|
    angiograph|lesion|refractory|\btype\b|provoked|induced|response to|specific|syndrome""",
    re.X | re.I,
)
_INFANT_WORDS = re.compile(r"neonat|infan|newborn|poor suck|colic|umbilical", re.I)
_SPEAKER_YEARS = 3.0  # a younger child can't report pain or fatigue
_ADULT_YEARS, _INFANT_YEARS, _MENARCHE_YEARS, _MENOPAUSE_YEARS = 18.0, 2.0, 12.0, 56.0
_ALL_YEARS = 120.0
_NOT_A_NOUN = word_set(
    """febrile feverish tired exhausted unwell pale confused disoriented drowsy sleepy lethargic
    sluggish irritable fussy cranky anxious depressed clumsy unsteady floppy icteric obese
    overweight constipated nauseous nauseated queasy winded breathless vomited vomits fainted
    faints coughs sweats forgetful sleepless bloated itchy always feels tires leaks looks drinks
    falls bruises worn small short can't cannot often hard heart slow late not has have is are
    fast behind off room hearing congested shaky temperature walks feeds being gained lost fits
    emesis manic fussing wheezes murmurs very drowsy no missed snore sneeze
    throwing losing turning feeling breaking having getting going coming seeing gaining passing
    eating drinking growing"""
)
_NOT_A_PHRASE = word_set(
    """i me my he she his they we you can can't cannot could won't don't doesn't isn't is are was
    were has have had gets goes keeps feels looks comes baby babies infant toddler child children
    school nappy nappies classmates playground grizzly"""
)
"""Words of a clause, which no list of findings has, and of a parent about a child."""
_FEVER, _CHILLS = "HP:0001945", "HP:0025143"
_MAX_WORDS = 5
_CLINICAL = 3  # clinical wordings a finding; HPO's later synonyms are the rarer ones
_JARGON = re.compile(  # not a clinician's words
    r"abnormal|physiology|morpholog|functional|retard|mental def", re.I
)
_LABORATORY = re.compile(  # known after the visit, even of common conditions
    r"""circulating|concentration\b|serum|plasma|biopsy|\bmri\b|radiograph|electro|antibod|
    rheumatoid.factor|neutro|eosinophil|leuko|thrombocyt|lymphop|reactive|sedimentation""",
    re.X | re.I,
)
_MIN_DEPTH = 3  # steps below Phenotypic abnormality; a higher term names an organ, not a finding


@dataclass(frozen=True, slots=True)
class VisitFinding:
    """A finding that a first visit can have, with lay and clinical wordings."""

    hpo_id: str
    lay: tuple[str, ...]
    clinical: tuple[str, ...]
    symptom: bool
    sex: Literal["female", "male"] | None
    age_min: float
    age_max: float
    ancestors: frozenset[str]

    def possible(self, age_years: float, sex: str) -> bool:
        """Whether a patient of this age and sex can have the finding."""
        return self.sex in (None, sex) and self.age_min <= age_years <= self.age_max


@lru_cache(maxsize=1)
def load_vocabulary() -> Mapping[str, VisitFinding]:
    """Every finding of the profiles (and its parents) that a first visit can have, by HPO id.

    Only wordings that the recogniser maps back to the same finding are kept, so that a case's text
    and its coded findings agree.
    """
    ontology = load_ontology()
    common, rare = (
        {finding.hpo_id for profile in profiles for finding in profile.findings}
        for profiles in (load_common_profiles(), load_rare_profiles())
    )
    everyday: dict[str, list[str]] = {}
    for wording, hpo_id in load_everyday_wordings():
        everyday.setdefault(hpo_id, []).append(wording)
    named = common | rare
    wanted = named.union(*(ontology.terms[term].parents for term in named))
    found: dict[str, VisitFinding] = {}
    for hpo_id in sorted(wanted):
        everyday_sign = hpo_id in common and not _LABORATORY.search(ontology.name(hpo_id))
        if everyday_sign or _is_seen(hpo_id, ontology):
            finding = _visit_finding(ontology.terms[hpo_id], everyday.get(hpo_id, ()), ontology)
            if finding.clinical or finding.lay:
                found[hpo_id] = finding
    return found


@lru_cache(maxsize=1)
def _terms_by_role() -> Mapping[str, frozenset[str]]:
    terms: dict[str, set[str]] = {}
    for row in packaged_rows("visit_terms.tsv", "rarealert.simulation"):
        terms.setdefault(row["role"], set()).add(row["hpo_id"])
    return {role: frozenset(ids) for role, ids in terms.items()}


def _is_seen(hpo_id: str, ontology: Ontology) -> bool:
    """Whether history or examination can show the finding, without a test."""
    above, terms = ontology.ancestors(hpo_id), _terms_by_role()
    if hpo_id in terms["always_seen"] or not ontology.is_phenotype(hpo_id):
        return hpo_id in terms["always_seen"]
    if len(above) <= _MIN_DEPTH or _UNSEEN_WORDS.search(ontology.name(hpo_id)):
        return False
    return bool(terms["seen_below"] & above) or not terms["unseen_below"] & above


def _visit_finding(term: Term, everyday: Iterable[str], ontology: Ontology) -> VisitFinding:
    above, terms = ontology.ancestors(term.id), _terms_by_role()
    exact = [synonym for synonym in term.synonyms if synonym.scope == "EXACT"]
    lay = [*everyday, *(synonym.text for synonym in exact if synonym.layperson)]
    lay_names = {normalise_name(wording) for wording in lay}
    clinical = [term.name, *(s.text for s in exact if normalise_name(s.text) not in lay_names)][
        :_CLINICAL
    ]
    low, high = _ages(term, above)
    return VisitFinding(
        hpo_id=term.id,
        lay=_readable(lay, term.id),
        clinical=_readable(clinical, term.id),
        symptom=bool(terms["symptom_below"] & above) and not terms["sign"] & above,
        sex="male"
        if terms["male_below"] & above
        else "female"
        if terms["female_below"] & above
        else None,
        age_min=low,
        age_max=high,
        ancestors=above,
    )


def _ages(term: Term, above: frozenset[str]) -> tuple[float, float]:
    if "HP:0000140" in above:  # menstruation
        return _MENARCHE_YEARS, _MENOPAUSE_YEARS
    if _terms_by_role()["adult_below"] & above:
        return _ADULT_YEARS, _ALL_YEARS
    if _terms_by_role()["speaker_below"] & above:
        return _SPEAKER_YEARS, _ALL_YEARS
    return 0.0, _INFANT_YEARS if _INFANT_WORDS.search(term.name) else _ALL_YEARS


def _readable(wordings: Iterable[str], hpo_id: str) -> tuple[str, ...]:
    """Short wordings in the case of running text that the recogniser maps back to ``hpo_id``."""
    kept: dict[str, None] = {}
    for wording in wordings:
        words = wording.split()
        plain = re.fullmatch(r"[A-Za-z' -]+", wording) is not None
        unusual = words[0].lower() in _NOT_A_NOUN or not _NOT_A_PHRASE.isdisjoint(
            wording.lower().split()
        )
        unusual = unusual or _JARGON.search(wording) is not None
        if not plain or len(words) > _MAX_WORDS or unusual:
            continue
        text = " ".join(_running_case(word) for word in words)
        if _maps_back(text, hpo_id):
            kept[text] = None
    return tuple(kept)


def _maps_back(text: str, hpo_id: str) -> bool:
    """Whether the wording is recognised within a list, affirmed as well as denied."""
    recogniser = load_recogniser()
    for lead, link, state in (("There is", "and", "present"), ("There is no", "or", "excluded")):
        mentions = recogniser.mentions(f"{lead} fever, {text} {link} chills.")
        found = [(mention.hpo_id, mention.state) for mention in mentions]
        if found != [(term, state) for term in (_FEVER, hpo_id, _CHILLS)]:
            return False
    return True


def _running_case(word: str) -> str:
    """Lower case, except for abbreviations and names of people or germs."""
    return word if word[:2].isupper() or word in _proper_nouns() else word.lower()


@lru_cache(maxsize=1)
def _proper_nouns() -> frozenset[str]:
    """Words that HPO's names capitalise after the first word, and never write in lower case."""
    names = (term.name.split() for term in load_ontology().terms.values())
    words = [placed for name in names for placed in enumerate(name)]
    small = {word for _, word in words if word.islower()}
    return frozenset(
        word for place, word in words if place and word[0].isupper() and word.lower() not in small
    )
