"""``rarealert data docs``: Great Expectations' own Data Docs of the checkpoint of ``validate``.

Writes the site into ``build/data_docs``, which neither git nor DVC keeps: it bears times and run
ids. The suites of ``validate`` run on the same cases, for counts and no values, so that no case
text can stand in it. What the pages would fetch from the network (Bootstrap, jQuery, icons) is
taken out; a style sheet and a script beside this module stand in for it.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.stages.validate import quiet_context, read_inputs, run_checkpoints

_SITE = "rarealert"
_REMOTE = re.compile(
    r'<link\b[^>]*href="https?:[^>]*>|<script\b[^>]*src="https?:[^>]*></script>|'
    r"<img\b[^>]*src=\"https?:[^>]*>|url\('https?:[^']*'\)",
    re.S,
)


def build_data_docs(params: Params, paths: Paths) -> str:
    """Build the site from the ingested cases and say where it lies; a failed check is no error.

    Raises:
        BadInputError: the files of ingest, or the pinned profiles, are missing or damaged.
    """
    inputs = read_inputs(params, paths)
    for expectations in inputs.suites.values():
        for expectation in expectations:
            expectation.description = expectation.meta["title"]
    folder = paths.build("data_docs")
    staged = folder.with_name("data_docs.partial")
    shutil.rmtree(staged, ignore_errors=True)
    context = quiet_context()
    context.add_data_docs_site(_SITE, _site(staged))
    outcomes = [outcome for _, outcome in run_checkpoints(context, inputs)]
    context.build_data_docs(site_names=[_SITE])
    for page in staged.rglob("*.html"):
        _without_network(page, staged)
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    results = [result for outcome in outcomes for result in outcome.results]
    met = sum(bool(result.success) for result in results)
    where = folder / "index.html"
    return f"{where}: {met} of {len(results)} expectations met; open it in a browser."


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder),
        },
    }


def _without_network(page: Path, site: Path) -> None:
    """Put our style and script, beside the site's own, in place of what would be fetched."""
    here = Path(__file__)
    for ending in (".css", ".js"):
        shutil.copyfile(here.with_suffix(ending), site / "static" / f"offline{ending}")
    up = "../" * (len(page.relative_to(site).parts) - 1)
    ours = (
        f'<link rel="stylesheet" href="{up}static/offline.css">'
        f'<script src="{up}static/offline.js"></script></head>'
    )
    text = _REMOTE.sub("", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</head>", ours, 1), encoding="utf-8")
