"""What a user is told where there is no cluster to join; no Ray is needed for it."""

import os
import sys
from types import SimpleNamespace

import pytest

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import join, nodes


def test_without_ray_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RareAlertError, match=r"pip install 'rarealert\[ray\]'"):
        join()


def test_usage_statistics_are_off_before_ray_starts_and_a_client_address_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with pytest.raises(RareAlertError, match="run the command on a machine of the cluster"):
        join()
    assert os.environ.pop("RAY_USAGE_STATS_ENABLED") == "0"


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    def refuse(**_: object) -> None:
        raise ConnectionError("no GCS there")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    found = SimpleNamespace(is_initialized=lambda: False, init=refuse)
    monkeypatch.setitem(sys.modules, "ray", found)
    with pytest.raises(RareAlertError, match=r"RAY_ADDRESS=127\.0\.0\.1:1"):
        join()


def test_only_living_machines_with_processors_count_the_largest_first():
    listed = [
        {"NodeID": "head", "Alive": True, "Resources": {}},
        {"NodeID": "small", "Alive": True, "Resources": {"CPU": 2.0}},
        {"NodeID": "lost", "Alive": False, "Resources": {"CPU": 64.0}},
        {"NodeID": "large", "Alive": True, "Resources": {"CPU": 8.0}},
    ]
    found = nodes(SimpleNamespace(nodes=lambda: listed))
    assert [(one.id, one.cpus) for one in found] == [("large", 8), ("small", 2)]
