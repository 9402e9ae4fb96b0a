"""RA021: its columns are those that screening expects."""

from rarealert.registry.gates.operational import SchemaKept


def test_the_expected_columns_pass(sound):
    assert SchemaKept().check(sound()).passed


def test_each_fault_is_said(sound):
    result = SchemaKept().check(sound(schema_faults=("The answer lacks band", "No signature")))
    assert not result.passed
    assert "The answer lacks band; No signature." in result.reason
