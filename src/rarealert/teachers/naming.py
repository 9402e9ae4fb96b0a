"""From what a language model wrote as its diagnosis to disease names and Orphanet disorders."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from rarealert.knowledge.orphanet import Disorder
from rarealert.teachers.stating import statement, suspected_in

_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.I)
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
    """What stands before the first joint: complications, causes and sites left out."""
    outside = " ".join(_BRACKETS.sub(" ", stated).split()) or stated
    main = next((part for part in _JOINT.split(outside) if part and part.strip()), outside)
    return main[:_LONGEST].strip(" .:;,") or stated[:_LONGEST]
