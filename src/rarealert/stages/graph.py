"""Keeps the code dependencies in ``dvc.yaml`` true to what each stage imports.

Command: ``rarealert graph`` (report) or ``rarealert graph --write`` (mend).

DVC skips a stage whose ``deps`` did not change, so a module that is imported but not listed is a
stage that is skipped although its code changed.
"""

import ast
from pathlib import Path

from rarealert.errors import BadInputError, RareAlertError
from rarealert.paths import Paths
from rarealert.stages import STAGES

PLUMBING = (
    "rarealert.errors",
    "rarealert.params",
    "rarealert.paths",
    "rarealert.stages",
    "rarealert.stages.harness",
    "rarealert.tracking",
)
"""Modules that carry values and report them but decide none: a change there re-runs nothing.

Parameter values are tracked by DVC's own ``params``; see docs/decisions/0001.
"""


def code_dependencies(stage: str, source: Path) -> list[str]:
    """Files below ``source`` that decide what ``stage`` makes, as paths ``src/…``, sorted.

    They are all modules it imports, directly or not, at module level or inside functions, the
    packages these lie in where their ``__init__`` holds more than a docstring, and the packaged
    data that they name.
    """
    import grimp

    graph = grimp.build_graph("rarealert", cache_dir=None)
    start = f"rarealert.stages.{stage}"
    reached = {start} | graph.find_upstream_modules(start)
    modules = {name for name in reached if not _is_plumbing(name)}
    places = {source / Path(*name.split(".")) for name in modules}
    files = {place.with_suffix(".py") for place in places if not place.is_dir()}
    packages = {folder for place in places for folder in (place, *place.parents)}
    inits = (folder / "__init__.py" for folder in packages if folder.is_relative_to(source))
    files |= {file for file in inits if file.is_file() and _holds_code(file)}
    data = {beside for file in files for beside in _data_read_by(file)}
    return sorted(file.relative_to(source.parent).as_posix() for file in files | data)


def _is_plumbing(module: str) -> bool:
    exact = module in PLUMBING
    return exact or module.startswith("rarealert.tracking.") or module == "rarealert"


def _holds_code(init: Path) -> bool:
    body = ast.parse(init.read_text(encoding="utf-8")).body
    plumbing = _is_plumbing(f"rarealert.{init.parent.name}")
    return not plumbing and not all(isinstance(node, ast.Expr) for node in body)


def _data_read_by(module: Path) -> list[Path]:
    """Packaged data at or below the module's folder that the module names, itself or its folder."""
    kept = {".tsv", ".yaml", ".j2", ".html", ".css", ".md"}
    text = module.read_text(encoding="utf-8")
    data = [file for file in module.parent.rglob("*") if file.suffix in kept]
    below = [file for file in data if file.parent != module.parent]
    named = {file for file in data if f'"{file.name}"' in text}
    return sorted(named | {file for file in below if f'"{file.parent.name}"' in text})


def sync(*, write: bool) -> str:
    """Compare or rewrite the ``src/`` deps of every stage; a sentence that says what changed.

    Raises:
        RareAlertError: ``write`` is off and a stage's deps are not what it imports.
    """
    from ruamel.yaml import YAML

    root = Paths.here().root
    file = root / "dvc.yaml"
    if not file.is_file():
        raise BadInputError(f"{file} is missing; run the command inside a checkout.")
    yaml = YAML()
    yaml.width = 100
    pipeline = yaml.load(file)
    wrong = []
    for stage in STAGES:
        deps = pipeline["stages"][stage]["deps"]
        data = [dep for dep in deps if not dep.startswith("src/")]
        wanted = [*code_dependencies(stage, root / "src"), *data]
        if list(deps) != wanted:
            wrong.append(stage)
            deps[:] = wanted
    if wrong and not write:
        raise RareAlertError(
            f"dvc.yaml's deps differ from what {', '.join(wrong)} import; "
            "run `rarealert graph --write`."
        )
    if wrong:
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(pipeline, stream)
    return (
        f"dvc.yaml: {len(wrong)} of {len(STAGES)} stages rewritten" if wrong else "dvc.yaml: true"
    )
