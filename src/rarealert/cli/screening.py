"""Commands that use a registered model: screen, drift, serve, bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def add_commands(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command()(screen)
    app.command()(drift)
    app.command()(serve)
    app.command()(bundle)


def screen(
    source: Annotated[Path, typer.Argument(help="visits: JSONL, CSV, Parquet, FHIR, phenopackets")],
    out: Annotated[Path, typer.Option(help="answers to write: .jsonl, .csv or .parquet")],
    alias: Annotated[str, typer.Option(help="registered version: alias")] = "champion",
    prevalence: Annotated[
        float | None, typer.Option(help="share of rare disease among these visits, such as 0.02")
    ] = None,
    rationale: Annotated[
        Literal["alerts", "all", "none"], typer.Option(help="which visits get a rationale")
    ] = "none",
    model: Annotated[Path | None, typer.Option(help="folder of a model")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="this process, or a Ray cluster")
    ] = "local",
) -> None:
    """Score a file of visits with the registered model, on this machine."""
    from rarealert.screening.batch import Options
    from rarealert.screening.batch import screen as screen_visits

    options = Options(rationale, prevalence)
    print(screen_visits(source, out, alias, options, model, engine).sentence())


def drift(
    reference: Annotated[Path, typer.Argument(help="earlier visits or answers")],
    new: Annotated[Path, typer.Argument(help="later visits or answers")],
    out: Annotated[Path, typer.Option(help="page to write, with a .json beside it")] = Path(
        "drift.html"
    ),
    threshold: Annotated[float, typer.Option(help="population stability index")] = 0.1,
) -> None:
    """Compare two files of visits or of answers; exit code 1 if a quantity drifted.

    A quantity has drifted if its population stability index is above the threshold and above what
    chance explains. 0: no drift; 2: not compared.
    """
    from rarealert.screening.drift import drift as compare

    report = compare(reference, new, out, threshold)
    print(report.sentence())
    if report.drifted:
        raise typer.Exit(1)


def serve(
    host: Annotated[str, typer.Option(help="address; others than loopback need a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="TCP port; 0 for any free one")] = 8000,
    alias: Annotated[str, typer.Option(help="registered version: alias")] = "champion",
    model: Annotated[Path | None, typer.Option(help="folder of a model")] = None,
    prevalence: Annotated[float | None, typer.Option(help="rare share, for CDS cards")] = None,
    max_batch: Annotated[int | None, typer.Option(help="visits scored together")] = None,
    max_wait_ms: Annotated[float | None, typer.Option(help="ms a visit waits for others")] = None,
    max_visits: Annotated[int | None, typer.Option(help="visits in one request")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="visits in the queue")] = None,
    max_requests: Annotated[int | None, typer.Option(help="concurrent requests")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="bytes of one request")] = None,
    answer_timeout_s: Annotated[float | None, typer.Option(help="s until a 503")] = None,
    reload_s: Annotated[float | None, typer.Option(help="s between checks of the alias")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="CORS origin")] = None,
) -> None:
    """Serve the registered model over HTTP; RAREALERT_TOKEN sets the access token."""
    from rarealert.screening.service.app import chosen_settings, chosen_source
    from rarealert.screening.service.app import serve as run

    options = {
        "host": host,
        "port": port,
        "prevalence": prevalence,
        "max_batch": max_batch,
        "max_wait_ms": max_wait_ms,
        "max_visits": max_visits,
        "max_waiting": max_waiting,
        "max_requests": max_requests,
        "max_body_bytes": max_body_bytes,
        "answer_timeout_s": answer_timeout_s,
        "reload_s": reload_s,
        "allow_origin": tuple(allow_origin or ()),
    }
    given = {name: value for name, value in options.items() if value is not None}
    run(chosen_settings(given), chosen_source(model, alias))


def bundle(
    out: Annotated[Path, typer.Option(help="folder to write")],
    alias: Annotated[str, typer.Option(help="registered version: alias")] = "champion",
) -> None:
    """Write a folder for a clinic without a network: wheels, model, checksums, start script."""
    from rarealert.screening.bundle import bundle as make_bundle

    print(make_bundle(out, alias).sentence())
