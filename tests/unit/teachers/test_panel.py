"""Panel files: the packaged ones, a user's own, and what is refused."""

import pytest

from rarealert.errors import BadInputError
from rarealert.teachers.panel import (
    EndpointSpec,
    PanelSpec,
    ReasonerSpec,
    load_panel,
    panel_names,
    parse_panel,
)
from rarealert.teachers.reasoners.reasoner import METHODS
from rarealert.teachers.roster import assemble


def test_every_packaged_panel_is_valid():
    found = {name: len(load_panel(name).teachers) for name in panel_names()}
    assert found == {"embedded": 10, "local": 1, "recorded": 11, "ten-llms": 10}


def test_the_embedded_panel_asks_every_method_once():
    specs = load_panel("embedded").teachers
    methods = [spec.method for spec in specs if isinstance(spec, ReasonerSpec)]
    assert sorted(methods) == sorted(METHODS)


@pytest.mark.parametrize("name", ["ten-llms", "local"])
def test_every_packaged_endpoint_has_a_price_or_needs_no_key(name):
    for spec in load_panel(name).teachers:
        assert isinstance(spec, EndpointSpec)
        assert (spec.price is None) == (spec.key_variable is None)


def test_a_users_panel_is_a_file_in_the_workspace(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ours.yaml").write_text("teachers: [{id: a, kind: local, model: m}]")
    assert load_panel("data/ours.yaml", tmp_path).teachers[0].id == "a"
    with pytest.raises(BadInputError, match=r"data/other\.yaml"):
        load_panel("data/other.yaml", tmp_path)


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/v1", "https://host/v1?key=secret", "ftp://host", "host/v1"]
)
def test_a_base_url_can_hold_no_key(url):
    text = (
        f"teachers: [{{id: a, kind: endpoint, base_url: '{url}', model: m, key_variable: K, "
        "price: null}]"
    )
    with pytest.raises(BadInputError, match="base_url") as caught:
        parse_panel(text, "panels/x.yaml")
    assert "secret" not in str(caught.value)


_REASONER = "{id: a, kind: reasoner, method: m}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("teachers: [", "YAML"),
        ("teachers: []", "teachers: "),
        ("[]", "the file: "),
        ("teachers: [{id: a, kind: oracle}]", r"teachers\.0: .*'oracle'"),
        (f"teachers: [{_REASONER[:-1]}, x: 1}}]", r"teachers\.0\.reasoner\.x: "),
        ("teachers: [{id: 'A b', kind: reasoner, method: m}]", r"teachers\.0\.reasoner\.id"),
        (f"teachers: [{_REASONER}, {_REASONER}]", "the id a"),
        (
            "teachers: [{id: a, kind: recorded, corpus: craftmd, file: ../x.jsonl.gz}]",
            r"teachers\.0\.recorded\.file",
        ),
    ],
)
def test_a_bad_panel_is_refused_by_file_and_key(text, key):
    with pytest.raises(BadInputError, match=rf"panels/x\.yaml.*{key}"):
        parse_panel(text, "panels/x.yaml")


def test_an_unknown_method_is_refused_with_the_choices(tmp_path):
    panel = PanelSpec(teachers=(ReasonerSpec(id="a", kind="reasoner", method="crystal_ball"),))
    with pytest.raises(BadInputError, match=r"'crystal_ball'.*likelihood_ratio"):
        assemble(panel, tmp_path, frozenset())
