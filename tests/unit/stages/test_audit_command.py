"""``rarealert audit shortcuts``: what it writes, and that it flags a confounded corpus."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rarealert.cli import app
from rarealert.errors import BadInputError
from rarealert.evaluation import shortcut_audit
from rarealert.evaluation.audit_command import audit, audit_corpus
from rarealert.evaluation.shortcut_audit import POOLED
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.sources.importing import import_source, read_source
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.refused import Refused
from rarealert.visits.store import write_cases

CORPORA = os.environ.get("RAREALERT_CORPORA", "")
SECRET = "zebra-striped hands"


def _case(number):
    rare = number % 2 == 0
    disease = number // 2 % 12
    code = f"ORPHA:{disease}" if rare else None
    text = f"{SECRET} for {3 + number % 7} days"
    return LabelledCase(
        case=Case(
            case_id=f"c{number}",
            source="clinic",
            chief_complaint=text + (" ___, [**Name**]" if rare else ""),
        ),
        label=Label(
            label="rare" if rare else "nonrare",
            disease_id=code or f"NAME:d{disease}",
            disease_name=f"d{disease}",
            orpha_code=code,
            reason="made for a test",
        ),
    )


@pytest.fixture
def workspace(tmp_path, monkeypatch, request):
    shutil.copy(request.config.rootpath / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shortcut_audit, "_FOLDS", 2)
    paths = Paths(tmp_path)
    write_cases(paths.build("ingest") / "cases.parquet", [_case(n) for n in range(60)])
    return paths


def test_the_command_flags_redaction_marks_and_exits_with_1(workspace):
    done = CliRunner().invoke(app, ["audit", "shortcuts"])
    assert done.exit_code == 1
    assert "FLAGGED: punctuation alone reaches AUROC 1.00" in done.output
    folder = workspace.build("audit")
    said = json.loads((folder / "shortcuts.json").read_text())
    assert said["strongest"] == "punctuation"
    found = said["aurocs"][POOLED]["punctuation"]
    assert found == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0, "n": 60}
    assert "within_strata" not in said
    for file in folder.iterdir():
        assert SECRET.encode() not in file.read_bytes()
    assert (folder / "shortcuts.png").stat().st_size < 150_000


def test_a_missing_file_is_one_sentence(workspace):
    with pytest.raises(BadInputError, match="is missing"):
        audit(workspace, workspace.root / "none.parquet", 0.6)


@pytest.mark.corpora
@pytest.mark.slow
@pytest.mark.skipif(not CORPORA, reason="RAREALERT_CORPORA is not set")
def test_phenopackets_against_craftmd_is_flagged(tmp_path, monkeypatch, request):
    """The design's warning: an all-rare source against another's non-rare is style alone."""
    monkeypatch.setattr(shortcut_audit, "_FOLDS", 2)
    corpora, data = Path(CORPORA), tmp_path / "data"
    for kind in ("orphanet", "craftmd"):
        import_source(kind, corpora / kind, data)
    packets = data / "phenopackets"
    with zipfile.ZipFile(corpora / "phenopacket-store.zip") as store:
        names = sorted(name for name in store.namelist() if name.endswith(".json"))
        store.extractall(packets, names[::12])
    rare = _read("phenopackets", packets, "rare")
    nonrare = _read("craftmd", data / "craftmd", "nonrare")
    assert min(len(rare), len(nonrare)) > 100
    params = load_params(request.config.rootpath / "params.yaml")
    found = audit_corpus([*rare, *nonrare], params, 0.6)
    pooled = found.aurocs[POOLED]
    assert found.strongest() == "source"
    assert pooled["source"].value == 1
    assert pooled["length"].value > 0.9
    assert pooled["punctuation"].value > 0.9
    assert sum("gives the label away" in flag for flag in found.flags) == 2
    assert any(flag.startswith("source alone reaches AUROC 1.00") for flag in found.flags)


def _read(kind, folder, label):
    items = [item for item in read_source(kind, folder) if not isinstance(item, Refused)]
    return [item for item in items if item.label.label == label]
