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
from rarealert.student.examples import LabelledReading
from rarealert.student.model import Student
from rarealert.student.network import RiskHead, Settings, add_adapter, pad_right, pool
from rarealert.student.package import Card, save_package
from rarealert.student.profile_match import ProfileMatch, packaged_library
from rarealert.student.rationale import LOWERED, RAISED, choices
from rarealert.student.tasks import open_desk
from rarealert.visits.case import Case
from rarealert.visits.reading import Reading, read_visit

SETTINGS = Settings(1e-3, 4, 2.0, 0.5, 0.5, 1, "all", 0.35, 0.5)


def package(folder: Path, chosen: DistilParams, hidden: int):
    """A student whose adapter is not zero, and the network it was saved from."""
    desk = open_desk(chosen)
    torch.manual_seed(3)
    head = RiskHead(2 * hidden)
    network = add_adapter(desk.base.model, desk.trunk, head, SETTINGS, desk.voice, 3)
    with torch.no_grad():
        for name, value in network.peft_model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.02)
    card = Card(
        base_model=chosen.base_model,
        base_digest=desk.base.digest,
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
    save_package(folder, card, network, desk.base.tokenizer)
    return desk, network


@pytest.fixture(scope="module")
def saved(tiny_base: Path, distil_params, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("student") / "adapter"
    return folder, *package(folder, distil_params(str(tiny_base), (2, 1)), 64)


def test_a_reloaded_student_says_what_the_trained_one_said(saved, cases) -> None:
    folder, desk, network = saved
    ids, lengths = pad_right([desk.encoder.prompt(item.reading).ids for item in cases], 1)
    with torch.no_grad():
        embedded = desk.trunk.embed(ids)
        states = desk.trunk.run(embedded, 0, 2)
        logits = network.head(torch.cat([pool(embedded, lengths), pool(states, lengths)], dim=1))
    said = Student.load(folder).predict([item.reading for item in cases], 16)
    np.testing.assert_allclose([item.logit for item in said], logits.numpy(), atol=1e-6)
    risk = 1 / (1 + np.exp(-(1.5 * logits.double().numpy() - 0.2)))
    np.testing.assert_allclose([item.risk for item in said], risk, atol=1e-6)
    assert [item.case_id for item in said] == [item.case.case_id for item in cases]


def risks_of(folder: Path, readings: list[Reading]) -> list[float]:
    return [item.risk for item in Student.load(folder).predict(readings, 4)]


def check_batches(student: Student, cases: list[LabelledReading]) -> None:
    read = [item.reading for item in cases]
    together = [item.risk for item in student.predict(read, len(read))]
    alone = [item.risk for item in student.predict(read, 1)]
    assert np.ptp(alone) > 1e-4  # or the comparison would prove nothing
    np.testing.assert_allclose(together, alone, atol=1e-5)
    turned = [item.risk for item in student.predict(read[::-1], 3)][::-1]
    np.testing.assert_allclose(turned, alone, atol=1e-5)


def test_the_batch_does_not_change_the_risk(saved, cases) -> None:
    check_batches(Student.load(saved[0]), cases)


def test_no_cases_give_no_risks(saved) -> None:
    assert Student.load(saved[0]).predict([], 8) == []


def test_a_rationale_never_contradicts_its_band_and_is_grounded(saved, cases) -> None:
    student = Student.load(saved[0])
    read = [item.reading for item in cases[:6]]
    bands = ["low", "watch", "alert"] * 2
    texts = student.rationales(read, bands)
    for band, text in zip(bands, texts, strict=True):
        assert text.text.startswith(LOWERED if band == "low" else RAISED)
        assert (text.origin == "listed") == ("no rationale passed its check" in text.text)
    # random weights write nonsense, so most are chosen from the visit's findings
    assert "guided" in {text.origin for text in texts}
    assert student.rationales(read, bands) == texts


def test_left_padding_does_not_change_a_rationale(saved, cases) -> None:
    student = Student.load(saved[0])
    read = [item.reading for item in cases[:5]]
    alone = [student.rationales([each], ["alert"]) for each in read]
    assert student.rationales(read, ["alert"] * 5) == [text for (text,) in alone]


def test_guided_words_are_one_of_those_allowed(saved, cases) -> None:
    student = Student.load(saved[0])
    read = [item.reading for item in cases[:4]]
    allowed = [choices(reading, "low") for reading in read]
    texts = student._generate(read, ["low"] * 4, allowed)
    spoken = [{" ".join(text.replace(".", " .").split()) for text in texts} for texts in allowed]
    for text, possible in zip(texts, spoken, strict=True):
        assert " ".join(text.replace(".", " .").split()) in possible


def test_a_visit_without_findings_gets_a_plain_sentence(saved) -> None:
    case = Case(case_id="bare", source="table", chief_complaint="Here for a form.")
    said = Student.load(saved[0]).rationales([read_visit(case)], ["low"])[0]
    assert said.origin == "listed"
    assert "because of its wording alone: no finding could be recognised" in said.text


def test_the_package_holds_no_pickle_and_no_path(saved) -> None:
    folder, desk, _ = saved
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors",
        "head.safetensors", "student.json",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    for name in names - {"adapter_config.json", "student.json"}:  # they name the base, a folder
        assert desk.base.name.encode() not in (folder / name).read_bytes()


def test_words_are_cut_by_the_packaged_tokenizer(saved, cases, tmp_path: Path) -> None:
    folder, desk, _ = saved
    read = [item.reading for item in cases[:4]]
    expected = risks_of(folder, read)
    beside = Path(desk.base.name) / "tokenizer.json"
    whole = beside.read_text()
    vocabulary = json.loads(whole)["model"]["vocab"]
    turned = dict(zip(vocabulary, reversed(vocabulary.values()), strict=True))
    try:
        said = json.loads(whole)
        said["model"]["vocab"] = turned
        beside.write_text(json.dumps(said))
        assert risks_of(folder, read) == expected
    finally:
        beside.write_text(whole)
    mine = tmp_path / "adapter"
    shutil.copytree(folder, mine)
    (mine / "tokenizer" / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(BadInputError, match="not the tokenizer that the student was trained with"):
        Student.load(mine)
    shutil.rmtree(mine / "tokenizer")
    with pytest.raises(BadInputError, match="not the tokenizer"):
        Student.load(mine)


def test_a_student_keeps_the_profiles_that_it_looks_findings_up_in(
    tiny_base: Path, distil_params, cases, tmp_path: Path
) -> None:
    desk, network = package(tmp_path / "bare", distil_params(str(tiny_base), (2, 1)), 64)
    match = ProfileMatch(packaged_library())
    network.trunk.profile_match, network.head = match, RiskHead(2 * 64 + 1)
    with torch.no_grad():
        network.head.linear.weight[0, -65] = 3.0  # the match stands between words and states
    folder = tmp_path / "adapter"
    save_package(folder, Student.load(tmp_path / "bare").card, network, desk.base.tokenizer)
    student = Student.load(folder)
    chosen = [item.reading for item in cases[:4]]
    said = student.predict(chosen, 2)
    again = Student(student.card, desk.base, network.head, match).predict(chosen, 3)
    assert np.allclose([one.logit for one in said], [one.logit for one in again], atol=1e-5)
    assert np.ptp([one.logit for one in said]) > 0.1
    packaged_library().save(folder / "profiles.safetensors")
    Student.load(folder)  # the same bytes
    changed = dataclasses.replace(packaged_library(), n_rare=np.array([7]))
    changed.save(folder / "profiles.safetensors")
    with pytest.raises(BadInputError, match="is not what the student was trained with"):
        Student.load(folder)


@pytest.mark.parametrize("name", ["student.json", "head.safetensors", "adapter_model.safetensors"])
def test_a_damaged_package_is_one_sentence(saved, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(saved[0], folder)
    (folder / name).write_bytes(b"{")
    with pytest.raises(BadInputError, match="run dvc repro distil"):
        Student.load(folder)
    (folder / name).unlink()
    with pytest.raises(BadInputError, match="run dvc repro distil"):
        Student.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base_digest", "0" * 64, "another copy"),
        ("renderer_version", "0", "was trained with renderer 0"),
        ("risk_layer", 9, "don't fit a base model of 3 layers"),
    ],
)
def test_a_student_of_another_world_is_refused(saved, tmp_path, key, value, said) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(saved[0], folder)
    card = json.loads((folder / "student.json").read_text())
    (folder / "student.json").write_text(json.dumps({**card, key: value}))
    with pytest.raises(BadInputError, match=said):
        Student.load(folder)


def test_a_student_of_another_encoding_is_told_so_whatever_its_card_holds(saved, tmp_path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(saved[0], folder)
    card = json.loads((folder / "student.json").read_text())
    old = {**card, "encoding_version": "4", "readout": "pooled_linear"}
    (folder / "student.json").write_text(json.dumps(old))
    with pytest.raises(BadInputError, match="and encoding 4, this version has"):
        Student.load(folder)


@pytest.mark.slow
def test_the_packaged_smollm2_reads_alike_in_any_batch(
    tmp_path: Path, distil_params, cases
) -> None:
    pytest.importorskip("gguf")
    folder = tmp_path / "adapter"
    package(folder, distil_params("smollm2-135m-instruct", (8, 2)), 576)
    check_batches(Student.load(folder), cases[:5])


def test_a_denied_word_says_nothing_by_itself(tiny_base, tmp_path, distil_params) -> None:
    chosen = distil_params(str(tiny_base), (2, 1))
    desk, _ = package(tmp_path / "s", chosen, int(open_desk(chosen).base.model.config.hidden_size))
    told = "Seizures and muscle weakness. There is no fever or rash."
    visit = read_visit(Case(case_id="a", source="s", chief_complaint=told))
    (one,) = Student.load(tmp_path / "s").predict([visit], 1)
    prompt, before = desk.encoder.prompt(visit), desk.encoder.frame[0]
    denied = [place - before for place in prompt.denied]
    told_words = np.delete(one.tokens.logits, denied)
    assert len(denied) >= 4
    assert np.ptp(one.tokens.logits[denied]) < 1e-6
    assert np.ptp(told_words) > 1e-3
