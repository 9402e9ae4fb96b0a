"""Training on a tiny trunk: it learns, resumes exactly, and leaves the base as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rarealert.student.examples import LabelledReading, choose_rationales, make_lessons
from rarealert.student.network import (
    Network,
    RiskHead,
    Settings,
    Voice,
    add_adapter,
    remove_adapter,
)
from rarealert.student.rationale import opening
from rarealert.student.tasks import Classroom, logits_of, open_desk
from rarealert.student.training import DivergedError, Epoch, Schedule, best_epoch, train

SETTINGS = Settings(
    learning_rate=1e-3,
    rank=4,
    alpha_ratio=2.0,
    soft_weight=0.5,
    finding_share=0.5,
    adapted_layers=1,
    modules="all",
    tau=0.35,
    replay_share=0.5,
)
SCHEDULE = Schedule(epochs=3, batch_size=8, seed=5)


@pytest.fixture(scope="module")
def room(
    tiny_base: Path,
    distil_params,
    cases: list[LabelledReading],
    tmp_path_factory: pytest.TempPathFactory,
) -> Classroom:
    desk = open_desk(distil_params(str(tiny_base), (2, 1)))
    targets = {item.case.case_id: 0.9 if item.label.label == "rare" else 0.2 for item in cases}
    lessons = []
    for part, count in ((cases[:40], 10), (cases[40:], 6)):
        told = choose_rationales(part, targets, {}, count, 1)
        assert len(told) == count
        lessons.append(make_lessons(part, targets, desk.encoder, told, 24))
    return Classroom(desk, *lessons, tmp_path_factory.mktemp("room"), 8)


def learn(room: Classroom, network: Network, schedule: Schedule = SCHEDULE, *more) -> list[Epoch]:
    return train(room.risk_task(network, SETTINGS), SETTINGS.learning_rate, schedule, *more)


def weights(network: Network) -> dict[str, torch.Tensor]:
    parameters = network.risk_parameters() | network.rationale_parameters()
    return {name: value.detach().clone() for name, value in parameters.items()}


def test_training_lowers_both_losses(room: Classroom) -> None:
    with room.network(SETTINGS, 5) as network:
        risk = learn(room, network, replace(SCHEDULE, epochs=6))
        told = train(room.rationale_task(network), 1e-2, replace(SCHEDULE, epochs=6))
    for history in (risk, told):
        assert [epoch.epoch for epoch in history] == list(range(7))
        assert history[-1].loss < history[1].loss
    assert best_epoch(told).valid_loss < told[0].valid_loss


def test_learning_to_tell_leaves_the_risk_alone(room: Classroom) -> None:
    with room.network(SETTINGS, 5) as network:
        learn(room, network, replace(SCHEDULE, epochs=1))
        before = logits_of(network, room.valid)
        train(room.rationale_task(network), 1e-2, replace(SCHEDULE, epochs=2))
        assert np.array_equal(logits_of(network, room.valid), before)


@pytest.mark.parametrize("voice", [Voice("all", 2), Voice("attention", 8)])
def test_the_risk_s_settings_do_not_bind_the_rationale(
    tiny_base: Path, distil_params, voice
) -> None:
    desk = open_desk(distil_params(str(tiny_base), (2, 1)))
    names = {"all": {"self_attn", "mlp"}, "attention": {"self_attn"}}
    for modules, rank in (("attention", 4), ("all", 3)):
        settings = replace(SETTINGS, modules=modules, rank=rank, alpha_ratio=1.0)
        network = add_adapter(desk.base.model, desk.trunk, RiskHead(2), settings, voice, 1)
        for learnt, told in (
            (network.risk_parameters(), (1, modules, rank)),
            (network.rationale_parameters(), (2, voice.modules, voice.rank)),
        ):
            lora = {name: value for name, value in learnt.items() if "lora_A" in name}
            assert {name.split(".layers.")[1].split(".")[0] for name in lora} == {str(told[0])}
            assert {name.split(".")[-5] for name in lora} == names[told[1]]
            assert {value.shape[0] for value in lora.values()} == {told[2]}
        scales = {
            (name.split(".layers.")[1][0], part.scaling["default"])
            for name, part in network.peft_model.named_modules()
            if hasattr(part, "lora_A")
        }
        assert scales == {("1", 1.0), ("2", 2.0)}
        remove_adapter(network)


def test_the_opening_is_what_is_given_at_work_and_is_not_learnt(room: Classroom) -> None:
    told = [item for item in room.judged.examples if item.rationale]
    for item in told:
        start = room._desk.encoder.tokens(" " + opening("alert" if item.rare else "low"))
        assert list(item.rationale[: item.given]) == start
    with room.network(SETTINGS, 5) as network:
        loss = room.rationale_task(network).validate()[0]
        first = replace(told[0], rationale=(0, *told[0].rationale[1:]))
        states = room._freeze_told(told, "valid")  # the same, whatever is asked for behind them
        states.examples = (first, *told[1:])
        assert room.rationale_task(network, None, states).validate()[0] == loss
        states.examples = tuple(replace(item, given=0) for item in told)
        assert room.rationale_task(network, None, states).validate()[0] != pytest.approx(loss)


def test_the_rationale_is_learnt_on_the_trained_risk_block(room: Classroom) -> None:
    with room.network(SETTINGS, 5) as network:
        with torch.no_grad():
            for name, value in network.risk_parameters().items():
                if "lora_B" in name:
                    value.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
        task = room.rationale_task(network)
        item = task._learn.examples[0]
        states = network.trunk.run(network.trunk.embed(torch.tensor([item.ids])), 0, 2)
        cached = task._learn.batch([0])[:, : len(item.ids)]
        torch.testing.assert_close(cached, states.detach(), atol=5e-3, rtol=5e-3)


def test_killed_and_resumed_is_the_same(room: Classroom, tmp_path: Path) -> None:
    with room.network(SETTINGS, 5) as network:
        whole = learn(room, network)
        expected = weights(network)

    class KilledError(Exception):
        pass

    def kill(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KilledError

    checkpoint = tmp_path / "checkpoint.safetensors"
    with room.network(SETTINGS, 5) as network, pytest.raises(KilledError):
        learn(room, network, SCHEDULE, checkpoint, "d", kill)
    with room.network(SETTINGS, 5) as network:
        seen: list[int] = []
        resumed = learn(
            room, network, SCHEDULE, checkpoint, "d", lambda epoch: seen.append(epoch.epoch)
        )
        got = weights(network)
    assert seen == [3]
    assert [epoch.epoch for epoch in resumed] == [epoch.epoch for epoch in whole]
    assert resumed[-1].valid_loss == pytest.approx(whole[-1].valid_loss, abs=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-6, rtol=1e-5)


def test_checkpoint_of_other_data_is_not_resumed(room: Classroom, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    one = replace(SCHEDULE, epochs=1)
    for digest in ("first", "second"):
        seen: list[int] = []
        with room.network(SETTINGS, 5) as network:
            record = lambda epoch, seen=seen: seen.append(epoch.epoch)  # noqa: E731
            learn(room, network, one, checkpoint, digest, record)
        assert seen == [0, 1]


def test_nan_stops_with_a_sentence_and_keeps_the_checkpoint(
    room: Classroom, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def spoil(epoch: Epoch) -> None:
        if epoch.epoch == 1:
            with torch.no_grad():
                network.head.linear.weight.fill_(float("nan"))

    with (
        room.network(SETTINGS, 5) as network,
        pytest.raises(DivergedError, match="not a number in epoch 2"),
    ):
        learn(room, network, SCHEDULE, checkpoint, "d", spoil)
    assert checkpoint.is_file()
    with room.network(SETTINGS, 5) as network:
        history = learn(room, network, SCHEDULE, checkpoint, "d")
    assert len(history) == 4
    assert np.isfinite(history[-1].valid_loss)


def test_frozen_activations_give_the_logits_of_a_whole_pass(room: Classroom) -> None:
    from rarealert.student.network import pad_right, pool

    with room.network(SETTINGS, 5) as network, torch.no_grad():
        cached = logits_of(network, room.valid)
        ids, lengths = pad_right([item.prompt for item in room.valid.examples], 1)
        embedded = network.trunk.embed(ids)
        states = network.trunk.run(embedded, 0, network.trunk.risk_layer)
        direct = network.head(torch.cat([pool(embedded, lengths), pool(states, lengths)], dim=1))
    np.testing.assert_allclose(cached, direct.numpy(), atol=2e-2)  # the cache is fp16


def test_the_last_token_s_state_stands_for_the_mean(
    tiny_base: Path, distil_params, cases: list[LabelledReading], tmp_path: Path
) -> None:
    from rarealert.student.network import pad_right, pool

    chosen = distil_params(str(tiny_base), (2, 1)).model_copy(update={"readout": "last"})
    desk = open_desk(chosen)
    targets = {item.case.case_id: 0.9 if item.label.label == "rare" else 0.2 for item in cases}
    parts = [make_lessons(part, targets, desk.encoder) for part in (cases[:40], cases[40:])]
    room = Classroom(desk, *parts, tmp_path, 8)
    examples = room.valid.examples
    with room.network(SETTINGS, 5) as network:
        history = learn(room, network)
        assert history[-1].valid_loss < history[0].valid_loss
        cached = logits_of(network, room.valid)
        ids, lengths = pad_right([item.prompt for item in examples], 1)
        embedded = network.trunk.embed(ids)
        with torch.no_grad():
            states = network.trunk.run(embedded, 0, network.trunk.risk_layer)
        last = states[torch.arange(len(ids)), lengths - 1]
        direct = network.head(torch.cat([pool(embedded, lengths), last], dim=1)).detach()
    np.testing.assert_allclose(cached, direct.numpy(), atol=2e-2)  # the cache is fp16


def test_a_processor_runs_few_rows_at_a_time_to_the_same_end(
    room: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rarealert.student import network as module

    with room.network(SETTINGS, 5) as network:
        task = room.risk_task(network, SETTINGS)
        ends = []
        for positions in (10**6, 60):  # all of a batch, then one or two rows
            monkeypatch.setattr(module, "_CACHED_POSITIONS", positions)
            loss = task.loss(range(8))
            given = torch.autograd.grad(loss, network.risk_parameters().values())
            ends.append((loss.detach(), *given))
        parts = [len(part) for part in module._parts(room.train.batch(range(8)))]
    assert len(parts) > 2
    assert sum(parts) == 8
    for whole, split in zip(*ends, strict=True):
        torch.testing.assert_close(split, whole, atol=1e-6, rtol=1e-5)


def test_later_chains_are_judged_on_the_same_states(room: Classroom) -> None:
    with room.network(SETTINGS, 5) as network:
        task = room.rationale_task(network)
        told = [item for item in room._lessons.examples if item.rationale][:3]
        again = room.rationale_task(network, told, task.judge)
        assert again.judge is task.judge
        assert again.validate() == room.rationale_task(network, told).validate()


def test_a_network_leaves_the_base_as_it_was(room: Classroom) -> None:
    before = {name: value.clone() for name, value in room._desk.base.model.state_dict().items()}
    with room.network(SETTINGS, 5) as network:
        learn(room, network, replace(SCHEDULE, epochs=1))
        frozen = set(weights(network))
        assert all("lora_" in name or name.startswith("head.") for name in frozen)
    after = room._desk.base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
