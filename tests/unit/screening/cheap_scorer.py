"""A scorer that costs next to nothing, and a process that screens files with it, one by one.

    python cheap_scorer.py SOURCE OUT [SOURCE OUT]... [--chunk ROWS] [--pause SECONDS]

prints a line of JSON a file: peak resident bytes up to then, processor seconds, rows screened.
"""

import argparse
import json
import time
from pathlib import Path

import pandas as pd

from rarealert.screening.answer import SAID
from rarealert.screening.batch import CHUNK_ROWS, screen_file
from rarealert.screening.champion import ScreeningModel


class CheapScorer:
    """The risk is a share of the digits in the case id; ``pause`` seconds stand for a model."""

    def __init__(self, pause=0.0):
        self.pause = pause

    def predict(self, data, params=None):
        time.sleep(self.pause)
        digits = ["".join(each for each in name if each.isdigit()) for name in data["case_id"]]
        rows = pd.DataFrame({"case_id": data["case_id"].to_numpy()})
        rows["risk"] = [int(each or 0) % 100 / 100 for each in digits]
        rows["risk_low"], rows["risk_high"] = rows["risk"] / 2, (1 + rows["risk"]) / 2
        rows["band"] = ["alert" if risk > 0.9 else "low" for risk in rows["risk"]]
        rows["ood_score"] = 0.5
        for name in ("abstain", "out_of_distribution", "not_english", "truncated"):
            rows[name] = False
        rows["evidence"] = "[]"
        return rows[list(SAID)]


def model(pause=0.0):
    return ScreeningModel("toy", "1", "d" * 64, CheapScorer(pause))


def peak_bytes():
    """Peak resident memory of this process alone; getrusage would count its parent's at a fork."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--chunk", type=int, default=CHUNK_ROWS)
    parser.add_argument("--pause", type=float, default=0.0)
    asked = parser.parse_args()
    for source, out in zip(asked.files[::2], asked.files[1::2], strict=True):
        began = time.process_time()
        report = screen_file(source, out, model(asked.pause), chunk_rows=asked.chunk)
        told = {"peak": peak_bytes(), "cpu_s": round(time.process_time() - began, 2)}
        counts = {"screened": report.screened, "refused": report.refused}
        print(json.dumps(told | counts))


if __name__ == "__main__":
    main()
