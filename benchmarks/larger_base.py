"""How well does a student on another base rank real cases?

Command: ``python benchmarks/larger_base.py params.qwen1.5b.yaml OUT`` in a workspace whose
``align`` and ``tune`` ran, such as that of ``make repro-real``. The profile is laid over its
parameters and the student distilled on its split, without the passes of LoRA, which move the AUROC
of real cases by less than 0.001 and take most of the time, and without rationales, on which no risk
depends: what is judged is the fitted head with all that it reads. Prints, for each source, AUROC,
calibration slope and ECE with 95 % intervals over whole diseases beside TF-IDF fitted on the same
part, and the paired difference. What it made lies in the folder OUT and is not made again.

It reads the test part. Choose nothing by what it prints.
"""

import json
import shutil
import sys
from collections import deque
from pathlib import Path

import numpy as np
from real_student import fitted_alone, report, tfidf_risks

from rarealert.cases.store import read_cases
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.distil import distil
from rarealert.stages.profile import use_profile
from rarealert.stages.score import student_risks


def main() -> None:
    """Measure, and print two tables for each source."""
    here, home = Paths.here(), Paths(Path(sys.argv[2]).absolute())
    params = fitted_alone(laid_over(Path(sys.argv[1]), here, home))
    parts = {
        part: read_cases(here.build("split") / f"{part}.parquet") for part in ("train", "test")
    }
    asked = [item.case for item in parts["test"]]
    models = {
        "student": judged(params, here, home),
        "tfidf": tfidf_risks(parts["train"], asked, params.score.seed),
    }
    sources = np.asarray([item.case.source for item in parts["test"]])
    for source in (*np.unique(sources), None):
        among = np.flatnonzero(sources == source) if source else np.arange(len(sources))
        report(str(source or "pooled"), [parts["test"][row] for row in among], models)


def laid_over(profile: Path, here: Paths, home: Paths) -> Params:
    """The workspace's parameters under ``profile``."""
    home.root.mkdir(parents=True, exist_ok=True)
    shutil.copy(here.params, home.params)
    use_profile(profile, home)
    return load_params(home.params)


def judged(params: Params, here: Paths, home: Paths) -> dict[str, float]:
    """Risks of the test part by case id."""
    done = home.root / "risks.json"
    if not done.is_file():
        (home.root / "build").mkdir(parents=True, exist_ok=True)
        for stage in ("split", "align", "rationales", "tune"):
            link = home.build(stage)
            link.unlink(missing_ok=True)
            link.symlink_to(here.build(stage))
        if not (home.build("distil") / "adapter").is_dir():
            deque(distil(params, home), maxlen=0)
        cases = [item.case for item in read_cases(home.build("split") / "test.parquet")]
        adapter = home.build("distil") / "adapter"
        done.write_text(json.dumps(dict(student_risks(adapter, cases, params.score.batch_size))))
    return dict(json.loads(done.read_text()))


if __name__ == "__main__":
    main()
