"""A panel is a file: who is asked, of which kind, with which options."""

from importlib import resources
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
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.jsonl\.gz$")]


class ReasonerSpec(BaseModel):
    """A teacher that is code: inference over disease knowledge, no language model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["reasoner"]
    method: str
    """A name in ``rarealert.teachers.reasoners.METHODS``."""


class RecordedSpec(BaseModel):
    """A teacher whose answers were made elsewhere: ``data/<corpus>/teachers/<file>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: TeacherId
    kind: Literal["recorded"]
    corpus: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    file: FileName


TeacherSpec = Annotated[ReasonerSpec | RecordedSpec, Field(discriminator="kind")]


class Panel(BaseModel):
    """The teachers in the order in which they are asked and listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teachers: Annotated[tuple[TeacherSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [teacher.id for teacher in self.teachers]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"the id {twice[0]} stands twice")
        return self


def panel_names() -> list[str]:
    """The panels that are packaged, by name."""
    folder = resources.files("rarealert.teachers") / "panels"
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def load_panel(name: str) -> Panel:
    """The packaged panel ``name``.

    Raises:
        BadInputError: there is no such panel, or its file is not a valid one.
    """
    if name not in panel_names():
        raise BadInputError(
            f"params.yaml: teach.panel: there is no panel {name!r}; "
            f"choose one of {', '.join(panel_names())}."
        )
    file = resources.files("rarealert.teachers") / "panels" / f"{name}.yaml"
    return parse_panel(file.read_text(encoding="utf-8"), f"panels/{name}.yaml")


def parse_panel(text: str, name: str) -> Panel:
    """The panel that the YAML ``text`` describes; ``name`` is what errors call it.

    Raises:
        BadInputError: not YAML, or a key that is unknown, missing or ill-valued.
    """
    try:
        return Panel.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise BadInputError(f"{name} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInputError(f"{name}: {key}: {first['msg']}. Mend the key.") from error
