"""Panel files: the teachers to ask, each with its kind and options."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from rarealert.errors import BadInputError

TeacherId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

_FOLDER = resources.files("rarealert.teachers") / "panels"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.jsonl\.gz$")]


class ReasonerSpec(BaseModel):
    """A teacher that is code: inference over disease knowledge, no language model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["reasoner"]
    method: str
    """A name in ``rarealert.teachers.reasoners.METHODS``."""


class RecordedSpec(BaseModel):
    """A teacher whose answers are in a file: ``data/<corpus>/teachers/<file>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["recorded"]
    corpus: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    file: FileName


class LocalSpec(BaseModel):
    """A causal language model that runs here through transformers, on a budget of cases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["local"]
    model: str
    """A packaged name, a folder, or a name in the local Hugging Face cache."""
    cases: Annotated[int, Field(ge=1)] | None = None
    """The most cases to ask it about, chosen by digest; ``None`` is all."""
    batch_size: Annotated[int, Field(ge=1)] = 16


class Price(BaseModel):
    """What a million tokens cost, in US dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Limits(BaseModel):
    """What an endpoint allows, and how long to wait for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: Annotated[int, Field(ge=1)] = 8
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 120
    """Seconds for one call, from the first byte sent to the last one read."""
    attempts: Annotated[int, Field(ge=1)] = 6
    """Calls for one case, retried after 429, 5xx, a time-out or a lost connection."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """Longest first wait before a retry, in seconds; it doubles with each retry."""
    outage_s: Annotated[float, Field(gt=0)] = 600
    """Seconds without a single good response after which the endpoint is given up."""


class EndpointSpec(BaseModel):
    """A language model behind an OpenAI-compatible server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["endpoint"]
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$")]
    """Without user, password or query, because a key must not be in a file."""
    model: str
    key_variable: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None
    """Environment variable that holds the key; ``null`` for a server that needs none."""
    price: Price | None
    """``null`` for a server without a price per token."""
    limits: Limits = Limits()
    structured_output: Literal["json_schema", "json_object", "prompt"] = "json_schema"
    """Whether the server enforces the schema, enforces JSON, or only gets the schema as text."""
    weights: Literal["stated", "ranked"] = "stated"
    """``ranked`` for small models whose weights do not sum to 1: they only order the insights."""
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    """``null`` for reasoning models that reject one."""
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    """Alternatives to request for each token; 0 for servers that offer none."""
    max_text_chars: Annotated[int, Field(ge=8)] | None = None
    """Longest text in the schema, for small models that do not stop; strict hosts reject it."""


TeacherSpec = Annotated[
    ReasonerSpec | RecordedSpec | LocalSpec | EndpointSpec, Field(discriminator="kind")
]


class PanelSpec(BaseModel):
    """The teachers in the order in which they are asked and listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teachers: Annotated[tuple[TeacherSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [teacher.id for teacher in self.teachers]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"the id {twice[0]} is given twice")
        return self


def panel_names() -> list[str]:
    """Names of the packaged panels."""
    return sorted(item.name.removesuffix(".yaml") for item in _FOLDER.iterdir())


def load_panel(name: str, root: Path | None = None) -> PanelSpec:
    """The packaged panel ``name``, or the file ``name`` below ``root`` if it ends in ``.yaml``.

    Keep your own panel below ``data/``, where DVC pins it with the cases.

    Raises:
        BadInputError: there is no such panel, or its file is not a valid one.
    """
    if name.endswith(".yaml"):
        try:
            return parse_panel(((root or Path()) / name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"The panel {name} can't be read; correct the path.") from error
    if name not in panel_names():
        raise BadInputError(
            f"params.yaml: teach.panel: there is no panel {name!r}; "
            f"choose one of {', '.join(panel_names())}, or a .yaml file below data/."
        )
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_panel(text, f"panels/{name}.yaml")


def parse_panel(text: str, name: str) -> PanelSpec:
    """The panel in the YAML ``text``; ``name`` is used in error messages.

    Raises:
        BadInputError: not YAML, or a key is unknown, missing or has a wrong value.
    """
    try:
        return PanelSpec.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise BadInputError(f"{name} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInputError(f"{name}: {key}: {first['msg']}. Correct the key.") from error
