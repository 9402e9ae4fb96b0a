"""Lay a profile, such as ``params.full.yaml``, over ``params.yaml`` (``rarealert params use``).

A profile holds only the keys that differ. ``params.yaml`` stays the only configuration that stages
and DVC read, so a run's settings are always the ones that git shows.
"""

import io
from pathlib import Path
from typing import Any

from rarealert.errors import BadInputError
from rarealert.params import load_params
from rarealert.paths import Paths


def use_profile(profile: Path, paths: Paths) -> str:
    """Write the values of ``profile`` into ``params.yaml``, comments kept; what to do next.

    Raises:
        BadInputError: either file is missing or no YAML, or the outcome is no configuration; then
            ``params.yaml`` stays as it was.
    """
    text, changed = merged(paths.params, profile)
    partial = paths.params.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    try:
        load_params(partial)
    except BadInputError as error:
        partial.unlink()
        raise BadInputError(f"{profile} over {paths.params.name}: {error}") from error
    partial.replace(paths.params)
    return (
        f"{changed} values of {profile.name} are new in params.yaml. Look at `git diff`, commit "
        "(only committed runs can be promoted), then dvc repro."
    )


def merged(base: Path, profile: Path) -> tuple[str, int]:
    """``base`` with the values of ``profile``, as text with its comments, and how many changed.

    Raises:
        BadInputError: a file is missing or is not a mapping of sections.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Plain(RoundTripRepresenter):
        """Writes a missing value as ``null``, as the file does."""

    Plain.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()
    yaml.Representer = Plain
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    whole = _read(yaml, base)
    changed = 0
    for section, values in _read(yaml, profile).items():
        held = whole.get(section)
        if not isinstance(held, dict) or not isinstance(values, dict):
            raise BadInputError(f"{profile}: {section} is no section of {base.name}.")
        for key, value in values.items():
            changed += key not in held or held[key] != value
            held[key] = value
    stream = io.StringIO()
    yaml.dump(whole, stream)
    return stream.getvalue(), changed


def _read(yaml: Any, file: Path) -> Any:
    from ruamel.yaml.error import YAMLError

    try:
        held = yaml.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(
            f"{file} is missing; name a profile such as params.full.yaml."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} is not valid YAML; mend it.") from error
    if not isinstance(held, dict):
        raise BadInputError(f"{file} holds no sections; write them as in params.yaml.")
    return held
