"""A student that costs nothing behind the real ``Screener``, so that tests see the real rules.

    python toy.py SOURCE OUT [SOURCE OUT]...

screens files with it, one by one, and prints a line of JSON a file: peak resident bytes up to
then, processor seconds, rows screened.
"""

import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from rarealert.screening.answer import Answer, Screener
from rarealert.screening.batch import screen_file
from rarealert.screening.champion import ScreeningModel
from rarealert.student.evidence import TokenLogits
from rarealert.student.model import Prediction, Rationale
from rarealert.visits.case import TEXT_FIELDS

_ABSTAINS = 10.0  # added to a logit, to mark a visit on which the toy abstains


def words_of(case):
    return " ".join(text for name in TEXT_FIELDS if (text := getattr(case, name)))


@dataclass
class Look:
    """What the toy makes of a visit; ``weights`` are log-odds of words."""

    risk: float
    band: str = "low"
    truncated: bool = False
    abstain: bool = False
    distance: float = 0.5
    weights: dict = field(default_factory=dict)


def by_length(case):
    """The risk is the number of the text's characters over 100."""
    risk = min(1.0, len(words_of(case)) / 100)
    return Look(risk, "alert" if risk > 0.5 else "low")


class ToyStudent:
    def __init__(self, look=by_length, rationale="because"):
        self.look, self.rationale = look, rationale
        self.explained = []

    def predict(self, readings, batch_size):
        return [self._predicted(each, self.look(each.case)) for each in readings]

    def rationales(self, readings, bands):
        names = [each.case.case_id for each in readings]
        self.explained += names
        return [Rationale(self.rationale.format(name), "free") for name in names]

    def _predicted(self, reading, look):
        spans = [match.span() for match in re.finditer(r"\w+", reading.text)]
        logits = [look.weights.get(reading.text[slice(*span)].lower(), 0.0) for span in spans]
        places = np.array(spans, dtype=int).reshape(-1, 2)
        tokens = TokenLogits(reading, places, np.array(logits), len(spans))
        logit = look.risk + (_ABSTAINS if look.abstain else 0.0)
        features = np.array([look.distance])
        name = reading.case.case_id
        return Prediction(name, look.risk, logit, look.band, look.truncated, features, tokens)


class ToyUncertainty:
    """Half the risk to half its complement; the distance is the only feature."""

    neutral = 0.0

    def __init__(self):
        self.venn_abers = SimpleNamespace(interval=self._interval, supported=lambda risks: risks)

    def _interval(self, logits):
        risks = logits % _ABSTAINS
        return risks / 2, (1 + risks) / 2

    def abstains(self, logits):
        return logits >= _ABSTAINS

    def ood_score(self, features):
        return features[:, 0]


class Scorer:
    """Notes what it was asked, and stops after some calls as a killed process would."""

    def __init__(self, look=by_length, rationale="because", calls=10**9):
        self.student = ToyStudent(look, rationale)
        self.calls = calls
        self.asked = []

    @property
    def seen(self):
        return [case_id for ids, *_ in self.asked for case_id in ids]

    def answer(self, readings, prevalence=None, rationale="none"):
        if len(self.asked) == self.calls:
            raise KeyboardInterrupt
        self.asked.append(([each.case.case_id for each in readings], prevalence, rationale))
        return Screener(self.student, ToyUncertainty(), 0.5).answer(readings, prevalence, rationale)


def model(scorer=None, version="2"):
    return ScreeningModel("toy", version, "d" * 64, scorer or Scorer())


def plain_answer(case_id, **fields):
    """An answer without anything to note, but for ``fields``."""
    held = {
        "risk": 0.1,
        "risk_low": 0.05,
        "risk_high": 0.2,
        "band": "low",
        "ood_score": 0.5,
        "findings": 3,
    }
    flags = ("abstain", "out_of_distribution", "not_english", "truncated")
    held |= dict.fromkeys(flags, False)
    return Answer(case_id=case_id, **{**held, "evidence": (), **fields})


class CheapScorer:
    """The risk is a share of the digits in the case id."""

    def answer(self, readings, prevalence=None, rationale="none"):
        names = [each.case.case_id for each in readings]
        risks = [int("0" + re.sub(r"\D", "", name)) % 100 / 100 for name in names]
        return [
            plain_answer(name, risk=risk, band="alert" if risk > 0.9 else "low")
            for name, risk in zip(names, risks, strict=True)
        ]


def peak_bytes():
    """Peak resident memory of this process alone; getrusage would count its parent's at a fork."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


def main():
    for source, out in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        began = time.process_time()
        report = screen_file(Path(source), Path(out), model(CheapScorer()))
        told = {"peak": peak_bytes(), "cpu_s": round(time.process_time() - began, 2)}
        counts = {"screened": report.screened, "refused": report.refused}
        print(json.dumps(told | counts))


if __name__ == "__main__":
    main()
