"""The gold sets and how well labels, context and first visits do on them.

``python tests/gold/gold_sets.py [MODEL [CORPORA]]`` prints the share right of each set and half,
and with the folder of a registered version how it does on first visits, on strange texts and on the
physicians' vignettes of CORPORA; see README.
"""

import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarealert.knowledge.labels import load_labeller
from rarealert.visits.case import Case
from rarealert.visits.demographics import parse_age, parse_sex
from rarealert.visits.reading import Reading, read_visit

if TYPE_CHECKING:
    from rarealert.screening.answer import Answer, Scorer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """Whether one entry of a gold set came out as it should; ``kind`` groups entries."""

    text: str
    kind: str
    right: bool

    @property
    def locked(self) -> bool:
        return int(sha256(self.text.encode()).hexdigest(), 16) % 2 == 0


def _rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as stream:
        if name.endswith(".tsv"):
            return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        return list(csv.DictReader(stream))


def label_outcomes() -> Iterator[Outcome]:
    """One outcome for each diagnosis, labelled without Orphanet's tables."""
    labeller = load_labeller()
    for row in _rows("diagnoses.tsv"):
        right = labeller.label(row["text"]).label == row["expected"]
        yield Outcome(row["text"], row["kind"], right)


def context_outcomes() -> Iterator[Outcome]:
    """One outcome for each sentence: right if every finding has its state and holder."""
    sentences = defaultdict(list)
    for row in _rows("context_sentences.tsv"):
        sentences[row["sentence"].replace("\\n", "\n")].append(row)
    for sentence, rows in sentences.items():
        case = Case(case_id="gold", source="gold", history_of_present_illness=sentence)
        reading = read_visit(case)
        right = all(_is_read_right(reading, sentence, row) for row in rows)
        yield Outcome(sentence, "sentence", right)


def _is_read_right(reading: Reading, sentence: str, row: dict[str, str]) -> bool:
    start = sentence.lower().index(row["finding"].lower())
    end = start + len(row["finding"])
    return any(
        (found.state, found.holder) == (row["state"], row["holder"])
        for found in reading.findings
        if found.span.start < end and start < found.span.end
    )


def first_visits() -> tuple[list[Case], list[bool]]:
    """The first visits, and whether a rare disease should be thought of."""
    expected = {row["case_id"]: row["expected"] for row in _rows("first_visits_expected.csv")}
    cases = [
        Case.model_validate({"source": "gold"} | {name: text for name, text in row.items() if text})
        for row in _rows("first_visits.csv")
    ]
    return cases, [expected[case.case_id] == "alert" for case in cases]


def strange_texts() -> list[Case]:
    """Texts that are no first visits, as history."""
    return [
        Case(case_id=str(place), source="gold", history_of_present_illness=row["text"])
        for place, row in enumerate(_rows("strange_texts.tsv"))
    ]


def vignettes(corpora: Path) -> tuple[list[Case], list[bool]]:
    """Avey's vignettes with a verdict, whole, and whether their diagnosis is rare."""
    folder = corpora / "avey"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        labels = {row["case_id"]: row["label_relaxed"] for row in csv.DictReader(stream)}
    with gzip.open(folder / "cases.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [row for row in map(json.loads, stream) if labels[row["case_id"]] != "excluded"]
    cases = [
        Case(
            case_id=row["case_id"],
            source="avey",
            age_years=parse_age(row["text"]),
            sex=parse_sex(row["text"]),
            history_of_present_illness=row["text"],
        )
        for row in rows
    ]
    return cases, [labels[case.case_id] == "rare" for case in cases]


def figures(answers: "list[Answer]", rare: list[bool]) -> Iterator[str]:
    """Lines with AUROC, alerts and flags; the interval is over visits."""
    from sklearn.metrics import roc_auc_score

    risk, truth = np.array([answer.risk for answer in answers]), np.array(rare)
    rng, draws = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = rng.integers(0, len(truth), len(truth))
        if 0 < truth[drawn].sum() < len(truth):
            draws.append(roc_auc_score(truth[drawn], risk[drawn]))
    low, high = np.percentile(draws, (2.5, 97.5))
    yield f"  AUROC {roc_auc_score(truth, risk):.3f} ({low:.3f} to {high:.3f}), n = {len(truth)}"
    for name, group in (("rare", truth), ("other", ~truth)):
        held = [answer for answer, inside in zip(answers, group, strict=True) if inside]
        bands = [answer.band for answer in held]
        found = np.median([answer.findings for answer in held])
        yield (
            f"  {name}: {bands.count('alert')} alert and {bands.count('low')} low of {len(held)}, "
            f"{found:g} findings in the median"
        )
    for flag in ("abstain", "out_of_distribution", "truncated"):
        yield f"  {flag}: {sum(getattr(answer, flag) for answer in answers)} of {len(answers)}"


def report(scorer: "Scorer", corpora: Path | None) -> Iterator[str]:
    """Lines on first visits, on strange texts, and on vignettes where there are corpora."""
    cases, rare = first_visits()
    answers = scorer.answer([read_visit(case) for case in cases])
    locked = [Outcome(case.case_id, "visit", right=True).locked for case in cases]
    for name, kept in (("both halves", (True, False)), ("locked half", (True,))):
        chosen = [place for place, half in enumerate(locked) if half in kept]
        yield f"first visits, {name}"
        yield from figures([answers[at] for at in chosen], [rare[at] for at in chosen])
    strange = scorer.answer([read_visit(case) for case in strange_texts()])
    marked = sum(answer.out_of_distribution or answer.not_english for answer in strange)
    far = sum(answer.out_of_distribution for answer in strange)
    yield f"strange texts\n  marked {marked} of {len(strange)}, {far} by their distance"
    if corpora:
        cases, rare = vignettes(corpora)
        yield "avey"
        yield from figures(scorer.answer([read_visit(case) for case in cases]), rare)


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """Lines with the share right of each half, and of each kind over both halves."""
    groups = {"open half": [each for each in outcomes if not each.locked]}
    groups["locked half"] = [each for each in outcomes if each.locked]
    for each in outcomes:
        groups.setdefault(each.kind, []).append(each)
    for name, held in groups.items():
        right = sum(each.right for each in held)
        yield f"  {name:<18}{right:>4} of {len(held):<4} {right / len(held):.3f}"


def main() -> None:
    sets = {"labels": list(label_outcomes()), "context": list(context_outcomes())}
    for name, outcomes in sets.items():
        print(name, *table(outcomes), sep="\n")
    if len(sys.argv) > 1:
        from rarealert.screening.champion import load_folder

        corpora = Path(sys.argv[2]) if len(sys.argv) > 2 else None
        print(*report(load_folder(Path(sys.argv[1])).scorer, corpora), sep="\n")


if __name__ == "__main__":
    main()
