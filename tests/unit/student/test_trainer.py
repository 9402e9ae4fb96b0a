"""Training on a tiny trunk: it learns, resumes exactly, and leaves the base as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rarealert.student.examples import choose_rationales, make_examples
from rarealert.student.network import Network, batch_prompts, pool
from rarealert.student.rationale import opening
from rarealert.student.tasks import logits_of
from rarealert.student.trainer import Trainer, TrainingBase, load_training_base
from rarealert.student.training import Epoch, Schedule, best_epoch, train

SCHEDULE = Schedule(epochs=3, batch_size=8, seed=5)


@pytest.fixture(scope="module")
def loaded(chosen) -> TrainingBase:
    return load_training_base(chosen)


@pytest.fixture(scope="module")
def trainer(loaded, cases, targets, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    parts = []
    for part, count in ((cases[:40], 10), (cases[40:], 6)):
        texts = choose_rationales(part, targets, {}, count, 1)
        assert len(texts) == count
        parts.append(make_examples(part, targets, loaded.encoder, texts, 24))
    return Trainer(loaded, *parts, tmp_path_factory.mktemp("activations"), 8)


@pytest.fixture
def learn(trainer, settings):
    def run(network: Network, schedule: Schedule = SCHEDULE, *more) -> list[Epoch]:
        return train(trainer.risk_task(network, settings), settings.learning_rate, schedule, *more)

    return run


def weights(network: Network) -> dict[str, torch.Tensor]:
    parameters = network.risk_parameters() | network.rationale_parameters()
    return {name: value.detach().clone() for name, value in parameters.items()}


def test_both_tasks_learn_and_the_rationale_does_not_change_the_risk(
    trainer, settings, learn
) -> None:
    longer = replace(SCHEDULE, epochs=6)
    with trainer.network(settings, 5) as network:
        risk = learn(network, longer)
        before = logits_of(network, trainer.valid)
        rationale = train(trainer.rationale_task(network), 1e-2, longer)
        assert np.array_equal(logits_of(network, trainer.valid), before)
    for history in (risk, rationale):
        assert [epoch.epoch for epoch in history] == list(range(7))
        assert history[-1].loss < history[1].loss
    assert best_epoch(rationale).valid_loss < rationale[0].valid_loss


def test_the_opening_of_a_rationale_is_given_and_not_learnt(loaded, trainer, settings) -> None:
    examples = trainer.valid_examples.with_rationale
    for item in examples:
        start = loaded.encoder.tokens(" " + opening("alert" if item.rare else "low"))
        assert list(item.rationale[: item.given]) == start
    with trainer.network(settings, 5) as network:
        task = trainer.rationale_task(network)
        loss = task.validate()[0]
        first = replace(examples[0], rationale=(0, *examples[0].rationale[1:]))
        task.valid.examples = (first, *examples[1:])  # on the same states
        assert task.validate()[0] == loss
        task.valid.examples = tuple(replace(item, given=0) for item in examples)
        assert task.validate()[0] != pytest.approx(loss)


def test_corrections_are_validated_on_the_same_states(trainer, settings) -> None:
    with trainer.network(settings, 5) as network:
        task = trainer.rationale_task(network)
        some = trainer.train_examples.with_rationale[:3]
        again = trainer.rationale_task(network, some, task.valid)
        assert again.valid is task.valid
        assert again.validate() == trainer.rationale_task(network, some).validate()


class KilledError(Exception):
    """Stands for a kill."""


def test_killed_and_resumed_is_the_same(trainer, settings, learn, tmp_path: Path) -> None:
    with trainer.network(settings, 5) as network:
        whole, expected = learn(network), weights(network)

    def kill(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KilledError

    checkpoint = tmp_path / "checkpoint.safetensors"
    with trainer.network(settings, 5) as network, pytest.raises(KilledError):
        learn(network, SCHEDULE, checkpoint, "d", kill)
    with trainer.network(settings, 5) as network:
        seen: list[int] = []
        resumed = learn(network, SCHEDULE, checkpoint, "d", lambda epoch: seen.append(epoch.epoch))
        found = weights(network)
    assert seen == [3]
    assert [epoch.epoch for epoch in resumed] == [epoch.epoch for epoch in whole]
    assert resumed[-1].valid_loss == pytest.approx(whole[-1].valid_loss, abs=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_stored_activations_give_the_logits_of_a_whole_pass(
    chosen, cases, targets, settings, tmp_path: Path, readout: str
) -> None:
    loaded = load_training_base(chosen.model_copy(update={"readout": readout}))
    parts = [make_examples(part, targets, loaded.encoder) for part in (cases[:40], cases[40:])]
    trainer = Trainer(loaded, *parts, tmp_path, 8)
    with trainer.network(settings, 5) as network:
        history = train(trainer.risk_task(network, settings), 1e-3, SCHEDULE)
        assert history[-1].valid_loss < history[0].valid_loss
        stored = logits_of(network, trainer.valid)
        batch = batch_prompts([item.prompt for item in trainer.valid.examples])
        embedded = network.trunk.embed(batch.ids)
        with torch.no_grad():
            states = network.trunk.run(embedded, 0, network.trunk.risk_layer)
        last = states[torch.arange(len(states)), batch.lengths - 1]
        read = pool(states, batch.lengths) if readout == "mean" else last
        whole = network.head(torch.cat([pool(embedded, batch.lengths), read], dim=1)).detach()
    np.testing.assert_allclose(stored, whole.numpy(), atol=2e-2)  # states are stored in fp16


def test_rationales_are_learnt_on_the_trained_risk_block(trainer, settings) -> None:
    with trainer.network(settings, 5) as network:
        fresh = trainer.rationale_task(network).validate()[0]
        with torch.no_grad():
            for name, value in network.risk_parameters().items():
                if "lora_B" in name:
                    value.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
        assert trainer.rationale_task(network).validate()[0] != pytest.approx(fresh)


def test_a_network_leaves_the_base_as_it_was(loaded, trainer, settings, learn) -> None:
    before = {name: value.clone() for name, value in loaded.base.model.state_dict().items()}
    with trainer.network(settings, 5) as network:
        learn(network, replace(SCHEDULE, epochs=1))
        assert all("lora_" in name or name.startswith("head.") for name in weights(network))
    after = loaded.base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
