"""Where in a language model's prose its diagnosis stands, and whether it states one at all.

A model asked for a diagnosis often writes a sentence around it ("The patient's symptoms are
consistent with malaria") and sometimes declines ("Without the image I cannot provide a diagnosis").
A refusal is no diagnosis of something common: it states nothing.
"""

import re

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
