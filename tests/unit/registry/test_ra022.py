"""RA022: the base model's licence was accepted."""

from rarealert.params import load_params
from rarealert.registry.gates.operational import BaseLicence


def test_an_accepted_one_passes_and_its_licence_is_said(sound):
    result = BaseLicence({"smollm2-135m-instruct": "apache-2.0"}).check(sound())
    assert result.passed
    assert "apache-2.0" in result.reason


def test_any_other_fails(sound):
    result = BaseLicence({"smollm2-135m-instruct": "apache-2.0"}).check(sound(base_model="llama-9"))
    assert not result.passed
    assert "llama-9" in result.reason


def test_the_configured_base_model_is_accepted(repo):
    params = load_params(repo / "params.yaml")
    assert params.distil.base_model in params.register_.accepted_base_models
