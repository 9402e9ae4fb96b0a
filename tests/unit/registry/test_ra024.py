"""RA024: the model card is attached."""

import pytest

from rarealert.registry.gates.approval import CardAttached


@pytest.mark.parametrize(
    ("card", "passed"), [("Adapter `f00d`.", True), ("Adapter `cafe`.", False), (None, False)]
)
def test_the_card_names_this_adapter(approval, card, passed):
    held = approval(card=card, card_of_adapter=card)
    assert CardAttached().check(held).passed is passed


@pytest.mark.parametrize(
    ("copy", "passed"), [("Adapter `f00d`.", True), (None, True), ("Adapter `f00d`, cured.", False)]
)
def test_the_adapters_copy_says_the_same(approval, copy, passed):
    verdict = CardAttached().check(approval(card_of_adapter=copy))
    assert verdict.passed is passed
    assert ("differs" in verdict.reason) is not passed
