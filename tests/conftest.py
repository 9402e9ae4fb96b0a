"""Fixtures of several rooms."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from rarealert.student.uncertainty import Uncertainty

# a deadline per example would measure how busy the machine is
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

LIBRARY_WARNINGS = {
    # mlflow 3.17 still uses a loader strategy that SQLAlchemy 2.1 deprecates
    "_mlflow_template": "ignore:The ``noload`` loader strategy is deprecated",
    # peft asks transformers 5 for gradient checkpointing by its old name
    "tiny_student": "ignore:`is_gradient_checkpointing` is deprecated",
}
"""Fixture → warning from a library behind it, which we can't fix."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in LIBRARY_WARNINGS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.filterwarnings(LIBRARY_WARNINGS[fixture]))


@pytest.fixture(scope="session")
def _mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes 6 to 9 s, copying it 0.2 s."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_store(
    _mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Tracking URI of an empty MLflow store of this test, at ``<tmp_path>/mlruns/mlflow.db``."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlruns = tmp_path / "mlruns"
    mlruns.mkdir()
    shutil.copy(_mlflow_template, mlruns / "mlflow.db")
    uri = f"sqlite:///{mlruns / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id="0")  # not the one that an earlier test left active
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it, as if for a server
    yield uri
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def uncertainty_of(features: int) -> "Uncertainty":
    """The uncertainty fitted on random log odds and features, for a student of random weights."""
    import numpy as np

    from rarealert.calibration.conformal import Cuts
    from rarealert.calibration.familiarity import fit_familiarity
    from rarealert.calibration.venn_abers import fit_venn_abers
    from rarealert.student.uncertainty import Uncertainty

    random = np.random.default_rng(0)
    log_odds = np.sort(random.normal(size=40))
    return Uncertainty(
        coverage=0.8,
        cuts=Cuts(rare_from=-0.5, nonrare_to=0.5),
        venn_abers=fit_venn_abers(log_odds, random.random(40) < 1 / (1 + np.exp(-log_odds))),
        familiar_share=0.98,
        distance_threshold=10.0,
        neutral=0.0,
        familiarity=fit_familiarity(random.normal(size=(50, features))),
    )


TinyModel = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_llama() -> TinyModel:
    """Makes a Llama with random weights in ``folder``.

    ``tokens`` are its vocabulary beside ``<end>`` and ``<unk>``, ``splitter`` the pre-tokenizer of
    its WordLevel tokenizer; further keywords go to ``LlamaConfig``.
    """

    def make(folder: Path, tokens: Iterable[str], splitter: Any, seed: int, **shape: int) -> Path:
        import torch
        from tokenizers import Tokenizer, models
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        vocabulary = {token: place for place, token in enumerate(["<end>", "<unk>", *tokens])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = splitter
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>", pad_token="<end>"
        ).save_pretrained(folder)
        torch.manual_seed(seed)
        marks = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        config = LlamaConfig(
            vocab_size=len(vocabulary),
            intermediate_size=2 * shape["hidden_size"],
            num_key_value_heads=2,
            max_position_embeddings=512,
            **marks,
            **shape,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory, tiny_llama: TinyModel) -> Path:
    """A student's folder on a Llama of two small layers with random weights; loads in 0.1 s."""
    from peft import LoraConfig, get_peft_model
    from tokenizers import pre_tokenizers

    from rarealert.calibration.bands import Bands
    from rarealert.calibration.calibrators import Calibrator
    from rarealert.language.base import load_base
    from rarealert.student.network import Network, RiskHead, Trunk
    from rarealert.student.package import Card, save_package

    folder = tmp_path_factory.mktemp("student")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;?! \n"
    each = pre_tokenizers.Split("", "isolated")
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = tiny_llama(folder / "base", letters, each, 5, **shape)
    loaded = load_base(str(base))
    lora = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[0, 1])
    card = Card(
        base_model=str(base),
        base_digest=loaded.digest,
        risk_layer=1,
        lora_layers=1,
        rationale_layers=1,
        max_prompt_tokens=200,
        max_rationale_tokens=8,
        calibrator=Calibrator(method="platt", parameters=(0.0, 8.0)),
        bands=Bands(alert=0.6, watch=0.4),
        settings={},
        training_data={},
        libraries={},
    )
    adapted = get_peft_model(loaded.model, lora)
    network = Network(Trunk(loaded.model, 1, 1, 1), adapted, RiskHead(32))
    save_package(folder / "adapter", card, network, loaded.tokenizer)
    uncertainty_of(32).save(folder / "adapter")
    return folder / "adapter"
