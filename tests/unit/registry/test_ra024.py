"""RA024: the model card is attached."""

import pytest

from rarealert.registry.gates.approval import CardAttached


@pytest.mark.parametrize(
    ("card", "passed"), [("Adapter `f00d`.", True), ("Adapter `cafe`.", False), (None, False)]
)
def test_the_card_names_this_adapter(approval, card, passed):
    assert CardAttached().check(approval(card=card)).passed is passed
