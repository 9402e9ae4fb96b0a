"""Where in a language model's prose its diagnosis stands, and whether it states one at all.

A model asked for a diagnosis often writes a sentence around it ("The patient's symptoms are
consistent with malaria") and sometimes declines ("Without the image I cannot provide a diagnosis").
A refusal is no diagnosis of something common: it states nothing.

From what a language model wrote as its diagnosis to disease names and Orphanet disorders.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from rarealert.knowledge.orphanet import Disorder

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
"""How a sentence opens that is about the case, and so is no disease's name itself."""

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
"""What stands before the name in such a sentence; the first speaks of the diagnosis itself."""

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
    """The first sentence of ``text`` that states a diagnosis; empty where none does.

    Markup, "The final diagnosis is" and the like are left out. After a sentence that declines to
    diagnose, a later one counts only for what it suspects in so many words.
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
    """What a sentence about the case suspects, empty where it is none or suspects nothing.

    "The findings are most consistent with malaria" suspects malaria; a name suspects nothing.
    """
    if not _ABOUT_THE_CASE.match(stated):
        return ""
    cue = next((found for cue in _CUES if (found := cue.search(stated))), None)
    return _tidied(_AFTER_CUE.sub("", stated[cue.end() :])) if cue else ""


def _tidied(stated: str) -> str:
    """Without article and "is the most likely diagnosis", unless that is where the name stands."""
    if not _ABOUT_THE_CASE.match(stated):
        stated = _ARTICLE.sub("", _TAIL.sub("", stated))
    return stated.strip(' .:;,"\u201c\u201d')


_ARTICLE_NAMING = re.compile(r"^(?:an?|the)\s+", re.I)
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
class Diagnosis:
    """A diagnosis in the words of who made it, and the Orphanet disorder it names, if any."""

    said: str
    disorder: Disorder | None

    @property
    def name(self) -> str:
        """The disorder's own name, else what was said."""
        return self.disorder.name if self.disorder else self.said

    @property
    def orpha_code(self) -> str | None:
        """The disorder's code, ``None`` without one."""
        return self.disorder.orpha_code if self.disorder else None


def read_diagnosis(text: str, resolve: Resolve) -> Diagnosis | None:
    """The diagnosis that ``text`` states, ``None`` where it states nothing.

    Only the first statement counts: what a model adds after it is hedging and management. What it
    suspects, its whole, what stands in brackets, and its parts are looked up in this order, and the
    first Orphanet disorder wins. A text that declines to diagnose states nothing.
    """
    stated = statement(text)
    if not re.search(r"[A-Za-z]{2}", stated):
        return None
    suspected = suspected_in(stated)
    wordings = [*names_in(suspected), *names_in(stated)]
    found = next((disorder for name in wordings if (disorder := resolve(name))), None)
    return Diagnosis(_main_part(suspected or stated), found)


def names_in(stated: str) -> list[str]:
    """Everything in a statement that may be a disease's name, the fullest first, each once.

    An abbreviation in brackets says again what stands before it, and may abbreviate much else: it
    is left out.
    """
    outside = " ".join(_BRACKETS.sub(" ", stated).split())
    if outside:
        stated = _BRACKETS.sub(lambda one: " " if _is_abbreviation(one[1]) else one[0], stated)
    inside = [text for text in _BRACKETS.findall(stated) if text.strip()]
    parts = [part for part in _JOINT.split(outside) if part and part.strip()]
    found: dict[str, None] = {}
    for wording in (outside, stated, *parts, *inside):
        plain = _ARTICLE_NAMING.sub("", wording.strip(" .:;,"))
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
    """What stands before the first joint: complications, causes and sites left out."""
    outside = " ".join(_BRACKETS.sub(" ", stated).split()) or stated
    main = next((part for part in _JOINT.split(outside) if part and part.strip()), outside)
    return main[:_LONGEST].strip(" .:;,") or stated[:_LONGEST]
