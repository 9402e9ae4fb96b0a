"""Great Expectations' own Data Docs of the validation (``rarealert data docs``).

The site goes to ``build/data_docs``, which neither git nor DVC keeps: it holds times and run ids.
It shows counts only, no case text. Links to the network (Bootstrap, jQuery, icons) are removed; a
style sheet and a script beside this module replace them.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from rarealert.params import Params
from rarealert.paths import Paths
from rarealert.quality.checkpoint import quiet_context, read_inputs, run_checkpoints

_SITE = "rarealert"
_REMOTE = re.compile(
    r'<link\b[^>]*href="https?:[^>]*>|<script\b[^>]*src="https?:[^>]*></script>|'
    r"<img\b[^>]*src=\"https?:[^>]*>|url\('https?:[^']*'\)",
    re.S,
)


def build_data_docs(params: Params, paths: Paths) -> str:
    """Build the site from the ingested cases; a failed expectation is no error.

    Returns:
        The path of the first page and the number of expectations met, as a sentence.

    Raises:
        BadInputError: a file of ingest, or the file of pinned profiles, is missing or damaged.
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
    """Replace what the page would fetch by our style sheet and script in the site's folder."""
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
