"""What every stage's ``main`` does around its one function: parameters, sink, summary line."""

import sys
import time
from collections.abc import Callable, Iterator

from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.tracking.items import Item, Summary
from rarealert.tracking.sink import open_run

StageFunction = Callable[[Params, Paths], Iterator[Item]]


def run_stage(name: str, stage: StageFunction) -> None:
    """Run ``stage`` in the current workspace, log what it yields, print one line.

    Items are logged as they come, so a stage that is killed leaves what it had reported.
    ``build/<name>/run.json`` is written last: it exists only for a stage that finished.
    """
    started = time.perf_counter()
    paths = Paths.here()
    params = load_params(paths.params)
    if sys.stdout.isatty():  # a line that the summary overwrites
        print(f"{name:<11}running", end="\r", flush=True)
    record = paths.build(name) / "run.json"
    with open_run(name, paths.root, paths.tracking_uri, record) as sink:
        said = ""
        for item in stage(params, paths):
            if isinstance(item, Summary):
                said = item.text
            sink.log(item)
    print(f"{name:<11}{said} ({time.perf_counter() - started:.1f} s)", flush=True)
