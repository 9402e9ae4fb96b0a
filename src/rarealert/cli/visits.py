"""Commands about cases: fill ``data/``, label a diagnosis, print the schema, audit shortcuts."""

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Fill data/: the embedded corpus, or one of your own.")
audit_app = typer.Typer(help="Audit a corpus for shortcuts that no model should learn.")


def add_commands(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(data_app, name="data")
    app.add_typer(audit_app, name="audit")
    app.command()(schema)


@data_app.command("materialise")
def data_materialise() -> None:
    """Rebuild the embedded corpus bit for bit and check it against data.dvc."""
    from rarealert.cli.checkout import materialise

    print(materialise())


@data_app.command("label")
def data_label(
    diagnosis: Annotated[str, typer.Argument(help="a name, or an ORPHA, OMIM or ICD-10-CM code")],
) -> None:
    """Print whether a diagnosis counts as rare, nonrare or excluded, and why."""
    from rarealert.knowledge.labels import verdict_line
    from rarealert.paths import Paths

    print(verdict_line(diagnosis, Paths.here().data))


@data_app.command("import")
def data_import(
    source: Annotated[
        str,
        typer.Argument(help="craftmd, medrbench, phenopackets, fhir, table or orphanet"),
    ],
    path: Annotated[Path, typer.Argument(help="file, folder or zip in its published format")],
    columns: Annotated[
        Path | None, typer.Option(help="column map of a table (docs/importing.md)")
    ] = None,
) -> None:
    """Check a corpus and copy it into data/; then run `dvc add data` to pin it."""
    from rarealert.paths import Paths
    from rarealert.sources.importing import import_source

    print(import_source(source, path, Paths.here().data, columns).sentence())


@data_app.command("docs")
def data_docs() -> None:
    """Build Great Expectations' Data Docs of the ingested cases in build/data_docs."""
    from rarealert.params import load_params
    from rarealert.paths import Paths
    from rarealert.quality.data_docs import build_data_docs

    paths = Paths.here()
    print(build_data_docs(load_params(paths.params), paths))


@audit_app.command("shortcuts")
def audit_shortcuts(
    cases: Annotated[Path | None, typer.Option(help="a cases.parquet instead of ingest's")] = None,
    limit: Annotated[float, typer.Option(help="AUROC above which a control is flagged")] = 0.6,
) -> None:
    """Test whether style alone predicts the labels, per source and pooled; exit code 1 if so."""
    from rarealert.evaluation.shortcut_audit import audit
    from rarealert.paths import Paths

    outcome = audit(Paths.here(), cases, limit)
    print(outcome.sentence())
    if outcome.audit.flags:
        raise typer.Exit(1)


def schema(
    labelled: Annotated[bool, typer.Option(help="with the label, or the visit alone")] = True,
) -> None:
    """Print the JSON Schema of a case."""
    import json

    from rarealert.visits.case import json_schema

    print(json.dumps(json_schema(labelled=labelled), indent=2, sort_keys=True))
