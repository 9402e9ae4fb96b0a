"""The frame of every stage: load parameters, run its function, log its items, print one line."""

import sys
import time
from collections.abc import Callable, Iterator

from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.tracking.items import Item, Summary
from rarealert.tracking.sink import open_run

StageFunction = Callable[[Params, Paths], Iterator[Item]]


def run_stage(name: str, stage: StageFunction) -> None:
    """Run ``stage`` in the current workspace, log the items it yields, print one line.

    Items are logged as they are yielded, so a killed stage keeps what it had reported.
    ``build/<name>/run.json`` is written last: it exists only for a finished stage.
    """
    started = time.perf_counter()
    paths = Paths.here()
    params = load_params(paths.params)
    if sys.stdout.isatty():  # the summary overwrites this line
        print(f"{name:<11}running", end="\r", flush=True)
    record = paths.build(name) / "run.json"
    with open_run(name, paths.root, paths.tracking_uri, record) as sink:
        summary = ""
        for item in stage(params, paths):
            if isinstance(item, Summary):
                summary = item.text
            sink.log(item)
    print(f"{name:<11}{summary} ({time.perf_counter() - started:.1f} s)", flush=True)
