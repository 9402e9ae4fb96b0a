"""tune and distil from end to end on a tiny base model."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarealert.errors import BadInputError
from rarealert.files import write_json
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.teachers.answer import AnswerRow, Insight, TeacherAnswer, write_answers
from rarealert.tracking.items import Child, Figure, Summary
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


def tiny(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *FINDINGS, "Chief", "complaint", ":", ".", "A", "rare", "because"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=96, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Paths]:
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
            "risk": 0.8 if item.label.label == "rare" else 0.3,
        }
        for index, item in enumerate(cases)
    ]
    paths.build("align").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), paths.build("align") / "risk.parquet")
    said = TeacherAnswer(
        insights=(Insight(name="Seizures", weight=1.0, explanation="e"),),
        differential=(),
        risk=90,
        explanation="e",
    )
    write_answers(
        paths.build("rationales") / "answers.parquet",
        [
            AnswerRow(case_id=item.case.case_id, teacher="t", status="ok", answer=said)
            for item in cases
        ],
    )
    params = load_params(REPOSITORY / "params.yaml")
    distil = params.distil.model_copy(
        update={
            "base_model": str(tiny(tmp_path / "base")),
            "risk_layer": 2,
            "lora_layers": 1,
            "rationale_cases": 12,
            "rationale_layers": 1,
            "knowledge_cases": 40,
        }
    )
    tune = params.tune.model_copy(update={"trials": 3, "train_cases": 32, "valid_cases": 24})
    return params.model_copy(update={"distil": distil, "tune": tune}), paths


def best(paths: Paths) -> dict[str, object]:
    return json.loads((paths.build("tune") / "best.json").read_text())


def test_tune_then_distil_leave_a_working_student(workspace) -> None:
    from rarealert.stages.distil import distil
    from rarealert.stages.tune import tune
    from rarealert.student.model import Student
    from rarealert.student.uncertainty import load_uncertainty

    params, paths = workspace
    items = list(tune(params, paths))
    assert [item.name for item in items if isinstance(item, Child)] == [
        "trial-0", "trial-1", "trial-2",
    ]  # fmt: skip
    assert best(paths)["trials"] == 3
    assert {path.name for path in paths.build("tune").iterdir()} == {"best.json", "study.log"}

    items = list(distil(params, paths))
    assert any(isinstance(item, Figure) for item in items)
    assert isinstance(items[-1], Summary)
    assert {path.name for path in paths.build("distil").iterdir()} == {"adapter"}
    report = json.loads((paths.report("distil") / "metrics.json").read_text())
    assert report["valid"]["n"] == 32
    assert report["train"]["rationales"] == 12
    assert {"risk", "rationale"} <= set(report["history"])
    assert [item.name for item in items if isinstance(item, Child)] == [
        "foundation", "correction",
    ]  # fmt: skip
    assert set(report["rounds"]) == {"foundation", "correction"}
    assert report["history"]["rationale"][-1]["loss"] < report["history"]["rationale"][1]["loss"]
    assert 0 <= report["valid"]["rationales_sound"] <= 1
    assert report["valid"]["auroc"] > 0.9  # each label has words of its own
    student = Student.load(paths.build("distil") / "adapter")
    uncertainty = load_uncertainty(paths.build("distil") / "adapter")
    assert uncertainty.venn_abers.interval(np.array([9.0]))[1] > 0.9
    rare, common = (student.predict([read_visit(labelled(index).case)], 1)[0] for index in (64, 65))
    assert rare.risk > common.risk
    text = (paths.build("distil") / "adapter" / "student.json").read_text()
    assert "seizures" not in text


def test_a_finished_or_killed_study_goes_on_counting(workspace) -> None:
    from rarealert.stages.tune import tune

    params, paths = workspace
    stage = tune(params, paths)
    while not isinstance(next(stage), Child):
        pass
    stage.close()  # killed after its first trial
    items = list(tune(params, paths))
    assert [item.name for item in items if isinstance(item, Child)] == ["trial-1", "trial-2"]
    first = best(paths)
    items = list(tune(params, paths))
    assert not any(isinstance(item, Child) for item in items)
    assert best(paths) == first


@pytest.mark.parametrize("kills", [1, 2])
def test_a_kill_in_the_first_trial_does_not_lose_the_defaults(tmp_path: Path, kills: int) -> None:
    from optuna.trial import TrialState

    from rarealert.stages.tune import DEFAULTS, _open_study, _suggest

    for _ in range(kills):
        study = _open_study(tmp_path / "study.log", "one", 13)
        _open_study(tmp_path / "study.log", "one", 13)  # nothing asked in between: one will do
        _suggest(study.ask(), 1)
    study = _open_study(tmp_path / "study.log", "one", 13)
    for place in range(2):
        trial = study.ask()
        _suggest(trial, 1)
        assert (trial.params == DEFAULTS) == (place == 0)
        study.tell(trial, 0.5)
    assert not _open_study(tmp_path / "study.log", "one", 13).get_trials(
        states=(TrialState.WAITING,)
    )


class Classes:
    """Stands for the classroom: nothing is learnt, and nothing is judged wrongly."""

    @contextlib.contextmanager
    def network(self, *_: object) -> Iterator[None]:
        yield None

    def risk_task(self, *_: object) -> None:
        return None

    def errors(self, *_: object) -> object:
        return SimpleNamespace(wrong=(), learnt=())


@pytest.mark.parametrize(
    ("epochs", "learnt", "pruned"),
    [(1, [1, 1, 1, 1], [False] * 4), (2, [2, 2, 1, 2], [False, False, True, False])],
)
def test_a_trial_is_pruned_between_epochs_and_never_before_it_learnt(
    workspace, monkeypatch: pytest.MonkeyPatch, epochs: int, learnt: list[int], pruned: list[bool]
) -> None:
    from rarealert.stages import tune as stage
    from rarealert.student import training
    from rarealert.student.training import Epoch

    params, paths = workspace
    params = params.model_copy(
        update={"tune": params.tune.model_copy(update={"epochs": epochs, "trials": 4})}
    )
    paths.build("tune").mkdir(parents=True)
    study = stage._open_study(paths.build("tune") / "study.log", "one", 13)
    # by trial: the loss at its start, which gets worse and worse, and after each epoch
    losses = iter([(0.40, 0.38, 0.37), (0.42, 0.39, 0.38), (0.45, 0.44, 0.1), (0.46, 0.30, 0.2)])
    passes = []

    def train(_task, _rate, schedule, *_, on_epoch=None, **__) -> list[Epoch]:
        course = next(losses)
        history = [Epoch(0, None, course[0], {"valid_auroc": 0.8})]
        on_epoch(history[0])
        passes.append(0)
        for number in range(1, schedule.epochs + 1):
            passes[-1] = number
            history.append(Epoch(number, 0.3, course[number], {"valid_auroc": 0.9}))
            on_epoch(history[-1])
        return history

    monkeypatch.setattr(training, "train", train)
    for _ in range(4):
        stage._one_trial(study, Classes(), params)
    assert passes == learnt
    assert [trial.state.name == "PRUNED" for trial in study.trials] == pruned


def test_a_study_of_other_data_starts_afresh(workspace) -> None:
    from rarealert.stages.tune import tune

    params, paths = workspace
    one = params.model_copy(update={"tune": params.tune.model_copy(update={"trials": 1})})
    list(tune(one, paths))
    file = paths.build("split") / "train.parquet"
    write_cases(file, [labelled(index) for index in range(4, 48)])
    items = list(tune(one, paths))
    assert [item.name for item in items if isinstance(item, Child)] == ["trial-0"]


def test_the_test_part_is_not_read(workspace) -> None:
    from rarealert.stages.tune import input_files

    _, paths = workspace
    assert not any("test" in file.name for file in input_files(paths).values())


def test_missing_inputs_are_one_sentence(workspace) -> None:
    from rarealert.stages.distil import distil
    from rarealert.stages.tune import tune

    params, paths = workspace
    with pytest.raises(BadInputError, match="run dvc repro tune"):
        list(distil(params, paths))
    (paths.build("align") / "risk.parquet").unlink()
    with pytest.raises(BadInputError, match="run dvc repro align"):
        list(tune(params, paths))


def keep_targets(paths: Paths, silent: set[str]) -> None:
    """Take the rows of ``silent`` out of what align left, as it does with what nobody answered."""
    file = paths.build("align") / "risk.parquet"
    rows = pq.read_table(file)
    kept = [row["case_id"] not in silent for row in rows.to_pylist()]
    pq.write_table(rows.filter(pa.array(kept)), file)


def test_cases_that_no_teacher_answered_stop_neither_stage(workspace) -> None:
    from rarealert.stages.distil import distil
    from rarealert.stages.tune import tune

    params, paths = workspace
    params = params.model_copy(update={"tune": params.tune.model_copy(update={"trials": 1})})
    keep_targets(paths, {"c3", "c20", "c50", "c77"})
    said = [list(stage(params, paths))[-1] for stage in (tune, distil)]
    assert all("2 training cases left out that no teacher answered" in item.text for item in said)
    report = json.loads((paths.report("distil") / "metrics.json").read_text())
    assert (report["train"]["n"], report["valid"]["n"]) == (46, 32)


def test_without_any_aligned_risk_a_stage_is_refused(workspace) -> None:
    from rarealert.stages.tune import tune

    params, paths = workspace
    keep_targets(paths, {f"c{index}" for index in range(80)})
    with pytest.raises(BadInputError, match="gave no training case a risk; run dvc repro align"):
        list(tune(params, paths))


def test_importing_a_stage_is_cheap() -> None:
    import subprocess

    code = (
        "import sys, rarealert.stages.tune, rarealert.stages.distil;"
        "assert not {'torch', 'transformers', 'optuna', 'sklearn'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
