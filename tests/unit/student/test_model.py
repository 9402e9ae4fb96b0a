"""The packaged student: reload parity, independence of the batch, and what must not be loaded."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rarealert.calibration.bands import Bands
from rarealert.calibration.calibrators import Calibrator
from rarealert.errors import BadInputError
from rarealert.params import DistilParams
from rarealert.student.data import LabelledReading
from rarealert.student.model import Student
from rarealert.student.network import RiskHead, Settings, add_adapter, pad_right, pool
from rarealert.student.package import Card, save_package
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.rationale import LOWERED, RAISED, choices
from rarealert.student.trainer import load_training_base
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit


def package(folder: Path, chosen: DistilParams, settings: Settings, hidden: int):
    """A student whose adapter is not zero, and the network it was saved from."""
    loaded = load_training_base(chosen)
    torch.manual_seed(3)
    network = add_adapter(loaded.trunk, RiskHead(2 * hidden), settings, loaded.rationale, 3)
    with torch.no_grad():
        for name, value in network.peft_model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.02)
    card = Card(
        base_model=chosen.base_model,
        base_digest=loaded.base.digest,
        risk_layer=chosen.risk_layer,
        lora_layers=chosen.lora_layers,
        rationale_layers=1,
        max_prompt_tokens=chosen.max_prompt_tokens,
        max_rationale_tokens=24,
        calibrator=Calibrator(method="platt", parameters=(-0.2, 1.5)),
        bands=Bands(alert=0.6, watch=0.4),
        settings={"rank": 4},
        training_data={"train": "0"},
        libraries={"torch": torch.__version__},
    )
    save_package(folder, card, network, loaded.base.tokenizer)
    return loaded, network


@pytest.fixture(scope="module")
def saved(chosen, settings, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("student") / "adapter"
    return folder, *package(folder, chosen, settings, 64)


@pytest.fixture(scope="module")
def student(saved) -> Student:
    return Student.load(saved[0])


@pytest.fixture
def copied(saved, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    shutil.copytree(saved[0], folder)
    return folder


def readings(cases: list[LabelledReading]) -> list[Reading]:
    return [item.reading for item in cases]


def risks(student: Student, visits: list[Reading], batch_size: int = 4) -> list[float]:
    return [item.risk for item in student.predict(visits, batch_size)]


def test_a_reloaded_student_has_the_trained_one_s_risks(saved, student, cases) -> None:
    _, loaded, network = saved
    prompts = [loaded.encoder.prompt(item.reading).tokens for item in cases]
    ids, lengths = pad_right([prompt.ids for prompt in prompts])
    with torch.no_grad():
        embedded = loaded.trunk.embed(ids)
        states = loaded.trunk.run(embedded, 0, 2)
        logits = network.head(torch.cat([pool(embedded, lengths), pool(states, lengths)], dim=1))
    found = student.predict(readings(cases), 16)
    np.testing.assert_allclose([item.logit for item in found], logits.numpy(), atol=1e-6)
    risk = 1 / (1 + np.exp(-(1.5 * logits.double().numpy() - 0.2)))
    np.testing.assert_allclose([item.risk for item in found], risk, atol=1e-6)
    assert [item.case_id for item in found] == [item.case.case_id for item in cases]
    assert student.predict([], 8) == []


def check_batches(student: Student, cases: list[LabelledReading]) -> None:
    visits = readings(cases)
    alone = risks(student, visits, 1)
    assert np.ptp(alone) > 1e-4  # or the comparison would prove nothing
    np.testing.assert_allclose(risks(student, visits, len(visits)), alone, atol=1e-5)
    np.testing.assert_allclose(risks(student, visits[::-1], 3)[::-1], alone, atol=1e-5)


def test_the_batch_does_not_change_the_risk(student, cases) -> None:
    check_batches(student, cases)


@pytest.mark.slow
def test_the_batch_does_not_change_the_packaged_base_s_risk(
    chosen, settings, cases, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    base = {"base_model": "smollm2-135m-instruct", "risk_layer": 8, "lora_layers": 2}
    package(tmp_path / "adapter", chosen.model_copy(update=base), settings, 576)
    check_batches(Student.load(tmp_path / "adapter"), cases[:5])


def test_a_rationale_agrees_with_its_band_and_its_batch(student, cases) -> None:
    visits, bands = readings(cases[:6]), ["low", "watch", "alert"] * 2
    texts = student.rationales(visits, bands)
    for band, text in zip(bands, texts, strict=True):
        assert text.text.startswith(LOWERED if band == "low" else RAISED)
        assert (text.origin == "listed") == ("no rationale passed its check" in text.text)
    # random weights write nonsense, so most are chosen from the visit's findings
    assert "guided" in {text.origin for text in texts}
    alone = [student.rationales([visit], [band]) for visit, band in zip(visits, bands, strict=True)]
    assert [text for (text,) in alone] == texts


def test_guided_words_are_one_of_the_visit_s_choices(student, cases) -> None:
    for visit, text in zip(
        readings(cases[:4]), student.rationales(readings(cases[:4]), ["low"] * 4), strict=True
    ):
        if text.origin == "guided":
            body = text.text.removeprefix(LOWERED).replace(".", " .").split()
            assert body in [choice.replace(".", " .").split() for choice in choices(visit, "low")]


def test_a_visit_without_findings_gets_a_plain_sentence(student) -> None:
    visit = read_visit(Case(case_id="bare", source="table", chief_complaint="Here for a form."))
    (text,) = student.rationales([visit], ["low"])
    assert text.origin == "listed"
    assert "o finding was recognised" in text.text
    assert LOWERED not in text.text


def test_denied_words_have_the_log_odds_of_no_word(saved, student) -> None:
    text = "Seizures and muscle weakness. There is no fever or rash."
    visit = read_visit(Case(case_id="a", source="s", chief_complaint=text))
    encoder = saved[1].encoder
    denied = [place - encoder.frame[0] for place in encoder.prompt(visit).tokens.denied]
    (found,) = student.predict([visit], 1)
    assert len(denied) >= 4
    assert np.ptp(found.tokens.logits[denied]) < 1e-6
    assert np.ptp(np.delete(found.tokens.logits, denied)) > 1e-3


def test_the_package_holds_no_pickle_and_no_path(saved) -> None:
    folder, loaded, _ = saved
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "student.json",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    for name in names - {"adapter_config.json", "student.json"}:  # they name the base, a folder
        assert loaded.base.name.encode() not in (folder / name).read_bytes()


def test_the_packaged_tokenizer_is_used_and_checked(saved, cases, copied) -> None:
    visits = readings(cases[:4])
    expected = risks(Student.load(copied), visits)
    beside = Path(saved[1].base.name) / "tokenizer.json"
    original = beside.read_text()
    changed = json.loads(original)
    vocabulary = changed["model"]["vocab"]
    reversed_ids = reversed(vocabulary.values())
    changed["model"]["vocab"] = dict(zip(vocabulary, reversed_ids, strict=True))
    try:
        beside.write_text(json.dumps(changed))
        assert risks(Student.load(copied), visits) == expected
    finally:
        beside.write_text(original)
    (copied / "tokenizer" / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(BadInputError, match="tokenizer"):
        Student.load(copied)
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(BadInputError, match="tokenizer"):
        Student.load(copied)


def test_the_profiles_of_a_student_are_packaged_and_checked(
    chosen, settings, cases, tmp_path: Path
) -> None:
    loaded, network = package(tmp_path / "bare", chosen, settings, 64)
    match = ProfileMatch(packaged_library())
    network.trunk.profile_match, network.head = match, RiskHead(2 * 64 + 1)
    with torch.no_grad():
        network.head.linear.weight[0, -65] = 3.0  # the match is between words and states
    folder = tmp_path / "adapter"
    save_package(folder, Student.load(tmp_path / "bare").card, network, loaded.base.tokenizer)
    student, visits = Student.load(folder), readings(cases[:4])
    trained = Student(student.card, loaded.base, network.head, match)
    logits = [[one.logit for one in each.predict(visits, 3)] for each in (student, trained)]
    assert np.allclose(*logits, atol=1e-5)
    assert np.ptp(logits[0]) > 0.1
    changed = dataclasses.replace(packaged_library(), n_rare=np.array([7]))
    changed.save(folder / "profiles.safetensors")
    with pytest.raises(BadInputError, match=r"profiles\.safetensors"):
        Student.load(folder)


@pytest.mark.parametrize("name", ["student.json", "head.safetensors", "adapter_model.safetensors"])
def test_a_damaged_or_missing_file_names_the_command(copied, name: str) -> None:
    (copied / name).write_bytes(b"{")
    with pytest.raises(BadInputError, match="run dvc repro distil"):
        Student.load(copied)
    (copied / name).unlink()
    with pytest.raises(BadInputError, match="run dvc repro distil"):
        Student.load(copied)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_digest": "0" * 64}, "another copy"),
        ({"renderer_version": "0"}, "renderer 0"),
        ({"risk_layer": 9}, "3 layers"),
        # another version's card may have other fields; its version is named all the same
        ({"encoding_version": "4", "readout": "pooled_linear"}, "encoding 4"),
    ],
)
def test_a_student_of_another_base_or_version_is_refused(copied, changes, message) -> None:
    card = json.loads((copied / "student.json").read_text())
    (copied / "student.json").write_text(json.dumps(card | changes))
    with pytest.raises(BadInputError, match=message):
        Student.load(copied)
