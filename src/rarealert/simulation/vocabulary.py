"""Which HPO findings a first visit can hold, and in which words a visit tells them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rarealert.knowledge.hpo import Ontology, Term, load_ontology
from rarealert.knowledge.names import normalise_name, word_set
from rarealert.knowledge.profiles import load_common_profiles, load_rare_profiles
from rarealert.knowledge.recognise import load_everyday_wordings, load_recogniser

_ALWAYS_SEEN = frozenset(
    (
        "HP:0001945",  # Fever
        "HP:0001944",  # Dehydration
        "HP:0001622",  # Premature birth
        "HP:0001518",  # Small for gestational age
        "HP:0000822",  # Hypertension
        "HP:0001635",  # Congestive heart failure
        "HP:0002716",  # Lymphadenopathy
        "HP:0001744",  # Splenomegaly
        "HP:0002240",  # Hepatomegaly
        "HP:0030148",  # Heart murmur
        "HP:0000023",  # Inguinal hernia
        "HP:0000518",  # Cataract
    )
)
_UNSEEN_BRANCHES = frozenset(
    (
        "HP:0001939",  # metabolism: laboratory
        "HP:0025354",  # cells: laboratory, histology
        "HP:0002664",  # neoplasm: found by imaging or biopsy
        "HP:0001197",  # prenatal: ultrasound
        "HP:0012443",  # brain morphology: imaging
        "HP:0002143",  # spinal cord morphology: imaging
        "HP:0001627",  # heart morphology: echocardiography
        "HP:0002597",  # vessels
        "HP:0012210",  # kidney morphology: ultrasound
        "HP:0012718",  # digestive morphology
        "HP:0001871",  # blood: laboratory
        "HP:0010987",  # white blood cells
        "HP:0000479",  # retina
        "HP:0000587",  # optic nerve
        "HP:0012373",  # eye physiology tests
        "HP:0000818",  # endocrine: laboratory
        "HP:0012647",  # inflammatory response
        "HP:0010876",  # proteins
        "HP:0003110",  # urine tests
        "HP:0012211",  # renal physiology
        "HP:0000130",  # uterus
        "HP:0000035",  # testis morphology
        "HP:0002088",  # lung morphology
        "HP:0011400",  # myelination
        "HP:0004303",  # muscle fibres
        "HP:0011804",  # muscle physiology tests
    )
)
_SEEN_BELOW = frozenset(
    (
        "HP:0001892",  # bleeding
        "HP:0000980",  # pallor
        "HP:0012378",  # fatigue
        "HP:0003011",  # musculature
        "HP:0001324",  # weakness
        "HP:0003394",  # muscle spasm
        "HP:0003326",  # muscle pain
        "HP:0000140",  # menstruation
        "HP:0000853",  # goitre
        "HP:0000989",  # itch
        "HP:0001959",  # thirst
        "HP:0000103",  # much urine
        "HP:0000790",  # blood in urine
        "HP:0000771",  # breast growth in men
        "HP:0000028",  # undescended testis
        "HP:0002619",  # varicose veins
        "HP:0001009",  # telangiectasia
        "HP:0002239",  # blood in stool
        "HP:0100738",  # eating behaviour
        "HP:0008070",  # sparse hair
    )
)
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
_SYMPTOM_BRANCHES = frozenset(
    (
        "HP:0025142",  # constitutional
        "HP:0012531",  # pain
        "HP:0025032",  # digestive physiology
        "HP:0012638",  # nervous physiology
        "HP:0002795",  # respiratory physiology
        "HP:0000504",  # vision
        "HP:0000364",  # hearing
        "HP:0011025",  # cardiovascular physiology
        "HP:0002719",  # recurrent infections
        "HP:0001892",  # bleeding
        "HP:0000140",  # menstruation
        "HP:0012211",  # renal physiology
        "HP:0009127",  # limb function
    )
)
_SIGNS = word_set(
    """HP:0001251 HP:0001252 HP:0001257 HP:0001347 HP:0001265 HP:0001284 HP:0000639 HP:0030148
    HP:0000822 HP:0002240 HP:0001744 HP:0002716 HP:0030830 HP:0002789 HP:0001649 HP:0000969
    HP:0012398 HP:0000988 HP:0001337 HP:0002063 HP:0002067 HP:0100540"""
)
_MALE_BRANCHES = frozenset(("HP:0010461", "HP:0012874", "HP:0030015", "HP:0000771"))
_FEMALE_BRANCHES = frozenset(
    ("HP:0010460", "HP:0000140", "HP:0012886", "HP:0030016", "HP:0031505", "HP:0000138")
)
_ADULT_BRANCHES = frozenset(
    (
        "HP:0000789",  # infertility
        "HP:0000144",  # decreased fertility
        "HP:0000726",  # dementia
        "HP:0100639",  # erectile dysfunction
        "HP:0008209",  # early menopause
        "HP:0030018",  # changed libido
        "HP:0030016",  # dyspareunia
        "HP:0000939",  # osteoporosis
        "HP:0002621",  # atherosclerosis
        "HP:0100753",  # schizophrenia
    )
)
_INFANT_WORDS = re.compile(r"neonat|infan|newborn|poor suck|colic|umbilical", re.I)
_TOLD_BRANCHES = frozenset(
    (
        "HP:0012531",  # pain
        "HP:0003401",  # tingling
        "HP:0002321",  # vertigo
        "HP:0000360",  # tinnitus
        "HP:0000504",  # vision
        "HP:0002018",  # nausea
        "HP:0000739",  # anxiety
        "HP:0000716",  # depression
        "HP:0012378",  # fatigue
    )
)
_TALKING_YEARS = 3.0  # below it nobody tells of pain or fatigue
_ADULT_YEARS, _INFANT_YEARS, _MENARCHE_YEARS, _MENOPAUSE_YEARS = 18.0, 2.0, 12.0, 56.0
_ALL_YEARS = 120.0
_NOT_A_NOUN = word_set(
    """febrile feverish tired exhausted unwell pale confused disoriented drowsy sleepy lethargic
    sluggish irritable fussy cranky anxious depressed clumsy unsteady floppy icteric obese
    overweight constipated nauseous nauseated queasy winded breathless vomited vomits fainted
    faints coughs sweats forgetful sleepless bloated itchy always feels tires leaks looks drinks
    falls bruises worn small short can't cannot often hard heart slow late not has have is are
    fast behind off room hearing congested shaky temperature walks feeds being gained lost fits
    emesis manic fussing wheezes murmurs very drowsy no missed"""
)
_FEVER, _CHILLS = "HP:0001945", "HP:0025143"
_MAX_WORDS = 5
_CLINICAL = 3  # clinical wordings a finding; HPO's later synonyms are the rarer ones
_JARGON = re.compile(r"abnormal|physiology|morpholog|functional", re.I)  # no visit says so
_MIN_DEPTH = 3  # steps below Phenotypic abnormality: above it a term names an organ, not a finding


@dataclass(frozen=True, slots=True)
class VisitFinding:
    """A finding that a first visit can hold, with the words for it."""

    hpo_id: str
    lay: tuple[str, ...]
    clinical: tuple[str, ...]
    symptom: bool
    sex: Literal["female", "male"] | None
    age_min: float
    age_max: float
    ancestors: frozenset[str]

    def possible(self, age_years: float, sex: str) -> bool:
        """Whether a patient of this age and sex can come with the finding."""
        return self.sex in (None, sex) and self.age_min <= age_years <= self.age_max


@lru_cache(maxsize=1)
def load_vocabulary() -> Mapping[str, VisitFinding]:
    """Every finding of the profiles (and its parents) that a first visit can hold, by HPO id.

    Only wordings that the recogniser reads back as the same finding are kept, so that a case's
    text and its coded findings say the same.
    """
    ontology = load_ontology()
    profiles = (*load_rare_profiles(), *load_common_profiles())
    named = {finding.hpo_id for profile in profiles for finding in profile.findings}
    everyday: dict[str, list[str]] = {}
    for wording, hpo_id in load_everyday_wordings():
        everyday.setdefault(hpo_id, []).append(wording)
    common = {finding.hpo_id for profile in load_common_profiles() for finding in profile.findings}
    wanted = named.union(*(ontology.terms[term].parents for term in sorted(named)))
    found: dict[str, VisitFinding] = {}
    for hpo_id in sorted(wanted):
        if hpo_id in common or _is_seen(hpo_id, ontology):
            finding = _visit_finding(ontology.terms[hpo_id], everyday.get(hpo_id, ()), ontology)
            if finding.clinical or finding.lay:
                found[hpo_id] = finding
    return found


def _is_seen(hpo_id: str, ontology: Ontology) -> bool:
    above = ontology.ancestors(hpo_id)
    if hpo_id in _ALWAYS_SEEN or not ontology.is_phenotype(hpo_id):
        return hpo_id in _ALWAYS_SEEN
    if len(above) <= _MIN_DEPTH or _UNSEEN_WORDS.search(ontology.name(hpo_id)):
        return False
    return bool(_SEEN_BELOW & above) or not _UNSEEN_BRANCHES & above


def _visit_finding(term: Term, everyday: Iterable[str], ontology: Ontology) -> VisitFinding:
    above = ontology.ancestors(term.id)
    exact = [synonym for synonym in term.synonyms if synonym.scope == "EXACT"]
    lay = [*everyday, *(synonym.text for synonym in exact if synonym.layperson)]
    lay_names = {normalise_name(wording) for wording in lay}
    clinical = [term.name, *(s.text for s in exact if normalise_name(s.text) not in lay_names)][
        :_CLINICAL
    ]
    low, high = _ages(term, above)
    male, female = bool(_MALE_BRANCHES & above), bool(_FEMALE_BRANCHES & above)
    return VisitFinding(
        hpo_id=term.id,
        lay=_readable(lay, term.id),
        clinical=_readable(clinical, term.id),
        symptom=bool(_SYMPTOM_BRANCHES & above) and not _SIGNS & above,
        sex="male" if male else "female" if female else None,
        age_min=low,
        age_max=high,
        ancestors=above,
    )


def _ages(term: Term, above: frozenset[str]) -> tuple[float, float]:
    if "HP:0000140" in above:  # menstruation
        return _MENARCHE_YEARS, _MENOPAUSE_YEARS
    if _ADULT_BRANCHES & above:
        return _ADULT_YEARS, _ALL_YEARS
    if _TOLD_BRANCHES & above:
        return _TALKING_YEARS, _ALL_YEARS
    return 0.0, _INFANT_YEARS if _INFANT_WORDS.search(term.name) else _ALL_YEARS


def _readable(wordings: Iterable[str], hpo_id: str) -> tuple[str, ...]:
    """Short wordings in running text's case that the recogniser reads back as ``hpo_id``."""
    kept: dict[str, None] = {}
    for wording in wordings:
        words = wording.split()
        plain = re.fullmatch(r"[A-Za-z' -]+", wording) is not None
        unsaid = words[0].lower() in _NOT_A_NOUN or _JARGON.search(wording)
        if not plain or len(words) > _MAX_WORDS or unsaid:
            continue
        text = " ".join(_running_case(word) for word in words)
        if _reads_back(text, hpo_id):
            kept[text] = None
    return tuple(kept)


def _reads_back(text: str, hpo_id: str) -> bool:
    """Whether the wording is read as the finding within a list, affirmed as well as denied."""
    recogniser = load_recogniser()
    for lead, link, negated in (("There is", "and", False), ("There is no", "or", True)):
        read = recogniser.mentions(f"{lead} fever, {text} {link} chills.")
        told = [(mention.hpo_id, mention.negated) for mention in read]
        if told != [(term, negated) for term in (_FEVER, hpo_id, _CHILLS)]:
            return False
    return True


def _running_case(word: str) -> str:
    """Lower case, but for abbreviations and names of people or germs."""
    return word if word[:2].isupper() or word in _proper_nouns() else word.lower()


@lru_cache(maxsize=1)
def _proper_nouns() -> frozenset[str]:
    """Words that HPO's names capitalise away from the first place, and never write small."""
    names = (term.name.split() for term in load_ontology().terms.values())
    words = [placed for name in names for placed in enumerate(name)]
    small = {word for _, word in words if word.islower()}
    return frozenset(
        word for place, word in words if place and word[0].isupper() and word.lower() not in small
    )
