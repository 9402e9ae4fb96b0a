"""A tiny Llama with random weights and a word tokenizer, and cases of two labels."""

from pathlib import Path

import pytest

from rarealert.params import DistilParams, load_params
from rarealert.student.data import LabelledReading, read_labelled
from rarealert.student.encoding import INSTRUCTION, SUFFIX
from rarealert.student.network import Settings
from rarealert.student.rationale import LOWERED, RAISED
from rarealert.visits.case import Case, Label, LabelledCase

FINDINGS = (
    "seizures", "headache", "fever", "ptosis", "muscle weakness", "vomiting", "fatigue", "pruritus",
)  # fmt: skip


def labelled(index: int) -> LabelledCase:
    """Rare cases have two of the first four findings, the others two of the last four."""
    rare = index % 2 == 0
    mine = FINDINGS[:4] if rare else FINDINGS[4:]
    text = f"{mine[index % 4]} and {mine[(index // 2) % 4]} since {index} weeks."
    case = Case(
        case_id=f"case-{index}",
        source="simulated",
        age_years=float(20 + index % 40),
        sex="female" if index % 3 else "male",
        chief_complaint=text.capitalize(),
        social_history="Lives alone. " * (1 + index % 5),
    )
    label = Label(
        label="rare" if rare else "nonrare",
        disease_id=f"ORPHA:{index // 4}" if rare else f"NAME:{index // 4}",
        disease_name="x",
        orpha_code=f"ORPHA:{index // 4}" if rare else None,
        reason="test",
    )
    return LabelledCase(case=case, label=label)


_SETTINGS = Settings(
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


@pytest.fixture(scope="session")
def settings() -> Settings:
    return _SETTINGS


@pytest.fixture(scope="session")
def targets(cases: list[LabelledReading]) -> dict[str, float]:
    """Aligned risks on the side of each label."""
    return {item.case.case_id: 0.9 if item.is_rare else 0.2 for item in cases}


@pytest.fixture(scope="session")
def cases() -> list[LabelledReading]:
    return read_labelled([labelled(index) for index in range(64)])


@pytest.fixture(scope="session")
def tiny_base(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama, cases: list[LabelledReading]
) -> Path:
    """A Llama of three layers whose tokens are the words of ``cases`` and of the prompt."""
    from tokenizers import pre_tokenizers

    splitter = pre_tokenizers.Whitespace()
    texts = [item.reading.text for item in cases] + [INSTRUCTION, SUFFIX, RAISED, LOWERED]
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return tiny_llama(tmp_path_factory.mktemp("tiny"), words, splitter, 0, **shape)


@pytest.fixture(scope="session")
def chosen(tiny_base: Path) -> DistilParams:
    """The repository's settings for the tiny base: a risk after two layers, the top one's LoRA."""
    real = load_params(Path(__file__).parents[3] / "params.yaml").distil
    changed = {"base_model": str(tiny_base), "risk_layer": 2, "lora_layers": 1}
    return real.model_copy(update=changed | {"rationale_layers": 1, "max_prompt_tokens": 64})
