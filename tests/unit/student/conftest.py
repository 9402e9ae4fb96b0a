"""A tiny Llama with random weights and a word tokenizer, and cases to read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rarealert.params import DistilParams, load_params
from rarealert.student.examples import LabelledReading, read_labelled
from rarealert.visits.case import Case, Label, LabelledCase

FINDINGS = (
    "seizures", "headache", "fever", "ptosis", "muscle weakness", "vomiting", "fatigue", "pruritus",
)  # fmt: skip


def labelled(index: int) -> LabelledCase:
    """Rare cases speak of the first four findings, the others of the last four."""
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


@pytest.fixture(scope="session")
def distil_params() -> Callable[[str, tuple[int, int]], DistilParams]:
    """The repository's settings for another base, its risk layer and its LoRA layers."""
    real = load_params(Path(__file__).parents[3] / "params.yaml").distil

    def shrunk(base: str, layers: tuple[int, int]) -> DistilParams:
        changed = {
            "base_model": base,
            "risk_layer": layers[0],
            "lora_layers": layers[1],
            "rationale_layers": 1,
            "max_prompt_tokens": 64,
        }
        return real.model_copy(update=changed)

    return shrunk


@pytest.fixture(scope="session")
def cases() -> list[LabelledReading]:
    return read_labelled([labelled(index) for index in range(64)])


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, cases: list[LabelledReading]) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"), cases)


def build_tiny(folder: Path, cases: list[LabelledReading]) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from rarealert.student.encoding import INSTRUCTION, SUFFIX
    from rarealert.student.rationale import LOWERED, RAISED

    splitter = pre_tokenizers.Whitespace()
    texts = [item.reading.text for item in cases] + [INSTRUCTION, SUFFIX, RAISED, LOWERED]
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<end>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
