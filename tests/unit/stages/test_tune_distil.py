"""tune and distil from end to end on tiny base models."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.errors import BadInputError
from rarealert.files import write_json
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.distil import distil
from rarealert.stages.tune import tune
from rarealert.teachers.teacher_answer import AnswerRow, Insight, TeacherAnswer, write_answers
from rarealert.tracking.items import Child, Dataset, Figure, Item, Summary
from rarealert.visits.case import Case, Label, LabelledCase
from rarealert.visits.reading import read_visit
from rarealert.visits.store import write_cases

REPOSITORY = Path(__file__).parents[3]
FINDINGS = ("seizures", "ptosis", "headache", "fever")


def labelled(index: int) -> LabelledCase:
    rare = index % 2 == 0
    finding = FINDINGS[(index // 2) % 2 + (0 if rare else 2)]
    code = f"ORPHA:{index // 4}"
    return LabelledCase(
        case=Case(case_id=f"c{index}", source="simulated", chief_complaint=f"{finding} {index}."),
        label=Label(
            label="rare" if rare else "nonrare",
            disease_id=code if rare else f"NAME:{index // 4}",
            disease_name="x",
            orpha_code=code if rare else None,
            reason="test",
        ),
    )


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, tiny_llama) -> Path:
    from tokenizers import pre_tokenizers

    words = [*FINDINGS, "Chief", "complaint", ":", ".", "A", "rare", "because"]
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("llama")
    return tiny_llama(folder, words, pre_tokenizers.Whitespace(), 0, **shape)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of four layers with random weights and the packaged SmolLM2's tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rarealert.language.base import locate_base

    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("qwen3")
    packaged, _ = locate_base("smollm2-135m-instruct")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(packaged / name, folder)
    vocabulary = json.loads((packaged / "config.json").read_text())["vocab_size"]
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama) -> tuple[Params, Paths]:
    monkeypatch.setenv("RAREALERT_CACHE", str(tmp_path / "cache"))
    paths = Paths(tmp_path)
    cases = [labelled(index) for index in range(80)]
    write_cases(paths.build("split") / "train.parquet", cases[:48])
    write_cases(paths.build("split") / "valid.parquet", cases[48:])
    write_json(paths.build("split") / "held_out.json", {"valid": [], "test": []})
    rows = [
        {
            "case_id": item.case.case_id,
            "part": "train" if index < 48 else "valid",
            "fold": index % 5 if index < 48 else None,
            # every twelfth contradicts its label, so that the correction round has cases
            "risk": 0.05 if index % 12 == 0 else 0.8 if item.label.label == "rare" else 0.3,
        }
        for index, item in enumerate(cases)
    ]
    paths.build("align").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), paths.build("align") / "risk.parquet")
    answer = TeacherAnswer(
        insights=(Insight(name="Seizures", weight=1.0, explanation="e"),),
        differential=(),
        risk=90,
        explanation="e",
    )
    answers = [
        AnswerRow(case_id=item.case.case_id, teacher="t", status="ok", answer=answer)
        for item in cases
    ]
    write_answers(paths.build("rationales") / "answers.parquet", answers)
    few = {"rationale_cases": 12, "rationale_layers": 1, "knowledge_cases": 40}
    changes = {"base_model": str(llama), "risk_layer": 2, "lora_layers": 1} | few
    params = with_changes(load_params(REPOSITORY / "params.yaml"), "distil", **changes)
    return with_changes(params, "tune", trials=3, train_cases=32, valid_cases=24), paths


def with_changes(params: Params, section: str, **changes: object) -> Params:
    changed = getattr(params, section).model_copy(update=changes)
    return params.model_copy(update={section: changed})


def best(paths: Paths) -> dict[str, object]:
    return json.loads((paths.build("tune") / "best.json").read_text())


def children(items: list[Item]) -> list[str]:
    return [item.name for item in items if isinstance(item, Child)]


def report_of(paths: Paths) -> dict[str, dict]:
    return json.loads((paths.report("distil") / "metrics.json").read_text())


def test_tune_then_distil_leave_a_working_student(workspace) -> None:
    from rarealert.student.model import Student
    from rarealert.student.uncertainty import load_uncertainty

    params, paths = workspace
    items = list(tune(params, paths))
    assert children(items) == ["trial-0", "trial-1", "trial-2"]
    assert best(paths)["trials"] == 3
    assert {path.name for path in paths.build("tune").iterdir()} == {"best.json", "study.log"}

    items = list(distil(params, paths))
    assert children(items) == ["foundation", "correction"]
    assert any(isinstance(item, Figure) for item in items)
    assert isinstance(items[-1], Summary)
    adapter = paths.build("distil") / "adapter"
    assert [path.name for path in paths.build("distil").iterdir()] == ["adapter"]
    report = report_of(paths)
    assert report["valid"]["n"] == 32
    assert report["train"]["rationales"] == 12
    assert {"risk", "rationale"} <= set(report["history"])
    assert set(report["rounds"]) == {"foundation", "correction"}
    assert report["history"]["rationale"][-1]["loss"] < report["history"]["rationale"][1]["loss"]
    assert 0 <= report["valid"]["rationales_sound"] <= 1
    assert report["valid"]["auroc"] > 0.9  # each label has words of its own
    assert load_uncertainty(adapter).venn_abers.interval(np.array([9.0]))[1] > 0.9
    visits = [read_visit(labelled(index).case) for index in (64, 65)]
    rare, common = Student.load(adapter).predict(visits, 1)
    assert rare.risk > common.risk
    assert "seizures" not in (adapter / "student.json").read_text()


@pytest.mark.parametrize(("prompt", "readout"), [("plain", "mean"), ("chat", "last")])
def test_a_qwen3_in_bfloat16_becomes_a_student(workspace, qwen3, prompt: str, readout: str) -> None:
    from rarealert.student.model import Student

    params, paths = workspace
    large = {"dtype": "bfloat16", "gradient_checkpointing": True, "lora_layers": 2}
    base = {"base_model": str(qwen3), "prompt": prompt, "readout": readout, "risk_layer": 3}
    few = {"rationale_cases": 4, "rationale_epochs": 1, "knowledge_cases": 0, "epochs": 1}
    params = with_changes(params, "distil", **large | base | few)
    params = with_changes(params, "tune", trials=1, train_cases=24, valid_cases=16)
    list(tune(params, paths))
    list(distil(params, paths))
    assert report_of(paths)["valid"]["auroc"] > 0.9
    adapter = paths.build("distil") / "adapter"
    card = Student.load(adapter).card
    assert (card.dtype, card.prompt, card.readout) == ("bfloat16", prompt, readout)
    visits = [read_visit(labelled(index).case) for index in range(48, 80)]
    first, again = (
        [item.risk for item in Student.load(adapter).predict(visits, 8)] for _ in range(2)
    )
    assert first == again
    assert np.mean(first[::2]) > np.mean(first[1::2])


def test_a_finished_or_killed_study_is_continued(workspace) -> None:
    params, paths = workspace
    stage = tune(params, paths)
    while not isinstance(next(stage), Child):
        pass
    stage.close()  # killed after its first trial
    assert children(list(tune(params, paths))) == ["trial-1", "trial-2"]
    first = best(paths)
    assert children(list(tune(params, paths))) == []
    assert best(paths) == first


def test_a_study_of_other_data_starts_afresh(workspace) -> None:
    params, paths = workspace
    one = with_changes(params, "tune", trials=1)
    list(tune(one, paths))
    write_cases(paths.build("split") / "train.parquet", [labelled(n) for n in range(4, 48)])
    assert children(list(tune(one, paths))) == ["trial-0"]


def test_the_test_part_is_not_read(workspace) -> None:
    params, paths = workspace
    items = [*tune(with_changes(params, "tune", trials=1), paths), *distil(params, paths)]
    read = {item.path.name for item in items if isinstance(item, Dataset)}
    assert read == {"train.parquet", "valid.parquet"}
    assert not (paths.build("split") / "test.parquet").exists()


def test_missing_inputs_name_the_stage_that_makes_them(workspace) -> None:
    params, paths = workspace
    with pytest.raises(BadInputError, match="run dvc repro tune"):
        list(distil(params, paths))
    (paths.build("align") / "risk.parquet").unlink()
    with pytest.raises(BadInputError, match="run dvc repro align"):
        list(tune(params, paths))


def remove_targets(paths: Paths, cases: set[str]) -> None:
    """Leave ``cases`` without an aligned risk, as cases that no teacher answered are."""
    file = paths.build("align") / "risk.parquet"
    rows = pq.read_table(file)
    kept = [row["case_id"] not in cases for row in rows.to_pylist()]
    pq.write_table(rows.filter(pa.array(kept)), file)


def test_cases_that_no_teacher_answered_are_left_out_and_counted(workspace) -> None:
    params, paths = workspace
    params = with_changes(params, "tune", trials=1)
    remove_targets(paths, {"c3", "c20", "c50", "c77"})
    summaries = [list(stage(params, paths))[-1] for stage in (tune, distil)]
    assert all("2 training cases left out" in item.text for item in summaries)
    report = report_of(paths)
    assert (report["train"]["n"], report["valid"]["n"]) == (46, 32)


def test_without_any_aligned_risk_a_stage_is_refused(workspace) -> None:
    params, paths = workspace
    remove_targets(paths, {f"c{index}" for index in range(80)})
    with pytest.raises(BadInputError, match="run dvc repro align"):
        list(tune(params, paths))


def test_importing_a_stage_is_cheap() -> None:
    import subprocess

    code = (
        "import sys, rarealert.stages.tune, rarealert.stages.distil, rarealert.stages.score;"
        "assert not {'torch', 'transformers', 'optuna', 'sklearn'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
