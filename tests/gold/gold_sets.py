"""The gold sets and how well labels, context and first visits do on them.

``python tests/gold/gold_sets.py [MODEL]`` prints the share right of each set and half; see README.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rarealert.knowledge.labels import load_labeller
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

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


def visit_outcomes(model: Path) -> Iterator[Outcome]:
    """One outcome for each first visit: an alert where and only where one is expected."""
    from rarealert.screening.champion import load_folder

    cases = [
        Case.model_validate({"source": "gold"} | {name: text for name, text in row.items() if text})
        for row in _rows("first_visits.csv")
    ]
    expected = {row["case_id"]: row["expected"] for row in _rows("first_visits_expected.csv")}
    answers = load_folder(model).scorer.answer([read_visit(case) for case in cases])
    for answer in answers:
        wanted = expected[answer.case_id]
        alert = answer.band == "alert" and not answer.abstain
        yield Outcome(answer.case_id, f"expected {wanted}", alert == (wanted == "alert"))


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
    if len(sys.argv) > 1:
        sets["first visits"] = list(visit_outcomes(Path(sys.argv[1])))
    for name, outcomes in sets.items():
        print(name, *table(outcomes), sep="\n")


if __name__ == "__main__":
    main()
