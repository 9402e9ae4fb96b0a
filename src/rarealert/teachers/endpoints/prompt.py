"""The messages sent to a language model: instructions, the visit as quoted data, and repairs."""

import json
import re
from functools import cache
from importlib import resources
from typing import Literal

from rarealert.files import digest
from rarealert.teachers.panel import EndpointSpec
from rarealert.visits.reading import Reading

PROMPT_VERSION = "1"
"""Part of every cache key, beside the digest of the prompt's text."""

Message = dict[Literal["role", "content"], str]

_WEIGHTS = {
    "stated": '"weight" (its share of your judgement, 0 to 1; the five sum to 1) ',
    "ranked": "the most important first, ",
}
_COMMANDS = re.compile(
    r"""(?ix)
    \b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}
      \b(?:instruction|rule|prompt|above|previous|prior|system)s?\b
    | \b(?:answer|respond|reply|output|return|say|report|set)\b[^.\n]{0,30}
      \b(?:risk|json|score|0|zero|100)\b
    | \byou\ are\ (?:now|a|an)\b[^.\n]{0,30}\b(?:assistant|model|ai|bot|system)\b
    | \b(?:system|developer)\ (?:prompt|message|instruction)s?\b
    | <\|?\s*/?\s*(?:im_start|im_end|system|assistant|inst)\b
    | ^\s*(?:system|assistant)\s*:
    """,
    re.MULTILINE,
)


@cache
def _template() -> str:
    folder = resources.files("rarealert.teachers.endpoints") / "prompts"
    return (folder / "screening.md").read_text(encoding="utf-8")


def prompt_method() -> str:
    """Version and digest of the prompt, as the cache key holds them."""
    return f"screening-{PROMPT_VERSION}@{digest(_template().encode())}"


def messages_for(reading: Reading, spec: EndpointSpec, schema: dict[str, object]) -> list[Message]:
    """The messages that ask a model about a visit.

    The visit is a JSON string on a separate line. Quotes and line breaks in it are escaped, so no
    text of a case can end the quotation. The schema is included where the server does not enforce
    it.
    """
    system = _template().replace("{weights}", _WEIGHTS[spec.weights])
    if spec.structured_output != "json_schema":
        system += f"\nThe object follows this JSON Schema:\n{json.dumps(schema)}\n"
    quoted = json.dumps(reading.text, ensure_ascii=False)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"The visit:\n{quoted}\nAnswer with the JSON object."},
    ]


def repair_messages(reply: str, problem: str) -> list[Message]:
    """The messages to add after an invalid reply."""
    ask = f"That is not a valid answer: {problem}. Send the whole JSON object again, corrected."
    return [
        {"role": "assistant", "content": reply or "(empty)"},
        {"role": "user", "content": ask},
    ]


def commands_the_model(reading: Reading) -> bool:
    """Whether the visit's text looks like an attempt to instruct a model.

    This flags cases for reviewers. The defence is that the text is quoted and that every reply is
    validated.
    """
    return _COMMANDS.search(reading.text) is not None
