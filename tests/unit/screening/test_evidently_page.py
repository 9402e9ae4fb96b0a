"""evidently's page says what ours says, without case text and without a network."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarealert.screening import evidently_page
from rarealert.screening.drift import drift
from rarealert.screening.evidently_page import spread

needs_evidently = pytest.mark.skipif(not find_spec("evidently"), reason="needs the extra drift")
SECRET = "marblewort"


def visits(path, count, sex):
    rows = (
        {"sex": sex if number % 3 else "male", "chief_complaint": f"{SECRET} and cough for a day"}
        for number in range(count)
    )
    refused = ({"age_years": 400} for _ in range(count // 4))
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *refused)))
    return path


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8).filter(any), st.integers(0, 3000))
def test_rows_keep_the_proportions(counts, rows):
    shares = {str(place): count / sum(counts) for place, count in enumerate(counts)}
    drawn = spread(shares, rows)
    assert len(drawn) == rows
    off = [abs(drawn.count(name) - share * rows) for name, share in shares.items()]
    assert max(off) < 1 + 1e-9


def test_counts_of_a_small_file_are_drawn_as_they_are():
    shares = {"a": round(1 / 3, 6), "b": round(2 / 3, 6)}
    assert spread(shares, 3000) == ["a"] * 1000 + ["b"] * 2000


def test_without_evidently_the_command_writes_our_page_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(evidently_page, "find_spec", lambda name: None)
    then = visits(tmp_path / "then.jsonl", 40, "female")
    report = drift(then, then, tmp_path / "page.html")
    assert report.evidently is None
    assert report.sentence().endswith("page.html.")
    assert not list(tmp_path.glob("*evidently*"))


def test_an_evidently_that_fails_is_no_drift_to_a_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr(evidently_page, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "evidently", None)
    then = visits(tmp_path / "then.jsonl", 40, "female")
    with pytest.raises(evidently_page.EvidentlyError, match="pip uninstall evidently") as failed:
        drift(then, then, tmp_path / "page.html")
    assert failed.value.exit_code == 2
    assert (tmp_path / "page.json").is_file()


@needs_evidently
def test_both_pages_and_the_exit_code_agree_and_nothing_is_connected_to(tmp_path):
    then = visits(tmp_path / "then.jsonl", 400, "female")
    now = visits(tmp_path / "now.jsonl", 600, "male")
    code = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(f"network: {event}")
sys.addaudithook(refuse)
from rarealert.cli import main
main()
"""
    command = [sys.executable, "-c", code, "drift", str(then), str(now), "--out"]
    page = tmp_path / "page.html"
    ran = subprocess.run([*command, str(page)], check=False, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    assert not ran.stderr
    assert "page.evidently.html" in ran.stdout
    ours = json.loads((tmp_path / "page.json").read_text())
    theirs = json.loads((tmp_path / "page.evidently.json").read_text())
    failed = {
        test["metric_config"]["params"]["column"].partition(": ")[2]
        for test in theirs["tests"]
        if test["status"] == "FAIL" and "column" in test["metric_config"]["params"]
    }
    assert failed == set(ours["drifted"]) == {"sex"}
    scores = {
        each["config"]["column"]: each["value"]
        for each in theirs["metrics"]
        if "column" in each["config"]
    }
    assert scores == {f"{each['part']}: {each['name']}": each["psi"] for each in ours["quantities"]}
    html = (tmp_path / "page.evidently.html").read_text()
    assert "Decision support, not a diagnosis" in html
    assert "<script src" not in html
    assert "<link" not in html.split("</head>")[0]
    for file in tmp_path.glob("page*"):
        assert SECRET not in file.read_text()
    again = tmp_path / "again.html"
    assert subprocess.run([*command, str(again)], check=False, capture_output=True).returncode == 1
    first, second = (tmp_path / f"{name}.evidently.json" for name in ("page", "again"))
    assert first.read_bytes() == second.read_bytes()


@needs_evidently
def test_evidently_still_needs_the_helper_that_is_put_in_its_place():
    """Fails once evidently imports by itself: then take the helper out of ``_evidently``."""
    code = "import warnings; warnings.simplefilter('ignore'); import evidently"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "infer_dtype_from_object" in ran.stderr
