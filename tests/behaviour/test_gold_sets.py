"""Labels and context never get worse on the open half of the gold sets (tests/gold/README.md)."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "gold"))
import gold_sets


# The floors are what this tree reaches; raise them with every gain. The aims are 0.98 and 0.90.
@pytest.mark.parametrize(
    ("outcomes", "entries", "floor"),
    [(gold_sets.label_outcomes, 913, 0.99), (gold_sets.context_outcomes, 120, 0.98)],
    ids=["labels", "context"],
)
def test_the_open_half_is_at_least_as_right_as_before(outcomes, entries, floor):
    found = list(outcomes())
    assert len({each.text for each in found}) == entries
    held = [each for each in found if not each.locked]
    assert sum(each.right for each in held) / len(held) >= floor
