"""How well and how fast findings are recognised: GSC+ abstracts and avey's vignettes.

``python benchmarks/recognition.py CORPORA`` prints document-level micro F1 on
GSC+ (exact HPO id, every mention whatever its state), the shares of avey's complaints recognised
and of absent items read as absent, and vignettes a second on one core.
"""

import gzip
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rarealert.knowledge.recognise import load_recogniser

_LINE = re.compile(r"^(Chief complaints|Absent findings): *(.*)$", re.MULTILINE)


def main() -> None:
    """Print the figures."""
    corpora = Path(sys.argv[1])
    print(abstracts(corpora / "hpo_gold/gsc_plus.jsonl.gz"))
    texts = [row["text"] for row in _rows(corpora / "avey/cases.jsonl.gz")]
    print(complaints(texts))
    print(absent_items(texts))
    started = time.process_time()
    for text in texts:
        load_recogniser().mentions(text)
    print(f"speed: {len(texts) / (time.process_time() - started):.0f} vignettes/s and core")


def abstracts(path: Path) -> str:
    """Micro precision, recall and F1 over the distinct ids of each document."""
    right = found = wanted = documents = 0
    for row in _rows(path):
        ids = {item.hpo_id for item in load_recogniser().mentions(row["text"])}
        gold = {item["hpo_id"] for item in row["gold"]}
        documents += 1
        right, found, wanted = right + len(ids & gold), found + len(ids), wanted + len(gold)
    precision, recall = right / found, right / wanted
    f1 = 2 * precision * recall / (precision + recall)
    return f"GSC+: F1 {f1:.3f}, precision {precision:.3f}, recall {recall:.3f} (n = {documents})"


def complaints(texts: list[str]) -> str:
    """The share of chief complaints in which a finding is recognised."""
    items = list(_items(texts, "Chief complaints"))
    known = sum(bool(load_recogniser().mentions(item)) for item in items)
    return f"avey complaints recognised: {known / len(items):.3f} (n = {len(items)})"


def absent_items(texts: list[str]) -> str:
    """An item counts where it is recognised within its line and every finding in it is excluded."""
    right = total = 0
    for text in texts:
        mentions = load_recogniser().mentions(text)
        for start, end in _places(text, "Absent findings"):
            states = [item.state for item in mentions if start <= item.start < end]
            total += 1
            right += bool(states) and all(state == "excluded" for state in states)
    return f"avey absent items read as absent: {right / total:.3f} (n = {total})"


def _items(texts: list[str], heading: str) -> Iterator[str]:
    for text in texts:
        for start, end in _places(text, heading):
            yield text[start:end]


def _places(text: str, heading: str) -> Iterator[tuple[int, int]]:
    """The place of each item of the comma-separated line under ``heading``."""
    for line in _LINE.finditer(text):
        if line[1] == heading:
            for item in re.finditer(r"[^,]+", line[2]):
                if item[0].strip(" ."):
                    yield line.start(2) + item.start(), line.start(2) + item.end()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


if __name__ == "__main__":
    main()
