"""A Qwen3 of a few layers with random weights through tune and distil, in bf16 and fp32.

The packaged SmolLM2's tokenizer cuts its visits and asks about them; packing and gradient
checkpointing are on, as in profiles/qwen3-4b.yaml, prompt and readout as in profiles/qwen1.5b.yaml.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rarealert.files import write_json
from rarealert.language.base import load_base, locate_base
from rarealert.params import Params, load_params
from rarealert.paths import Paths
from rarealert.stages.distil import distil
from rarealert.stages.tune import tune
from rarealert.student.examples import LabelledReading
from rarealert.student.model import Student
from rarealert.student.network import Trunk, pool
from rarealert.teachers.answer import write_answers
from rarealert.visits.case import LabelledCase
from rarealert.visits.store import write_cases

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

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


def params_for(base: Path, dtype: str, prompt: str, readout: str) -> Params:
    real = load_params(REPOSITORY / "params.yaml")
    distil_ = real.distil.model_copy(
        update={
            "base_model": str(base),
            "dtype": dtype,
            "prompt": prompt,
            "readout": readout,
            "gradient_checkpointing": True,
            "packed_tokens": 256,
            "risk_layer": 3,
            "lora_layers": 2,
            "rationale_layers": 1,
            "rationale_cases": 4,
            "rationale_epochs": 1,
            "knowledge_cases": 0,
            "epochs": 1,
        }
    )
    few = {"trials": 1, "train_cases": 24, "valid_cases": 16}
    return real.model_copy(update={"distil": distil_, "tune": real.tune.model_copy(update=few)})


def workspace(root: Path, cases: list[LabelledReading]) -> Paths:
    paths = Paths(root)
    recorded = [LabelledCase(case=item.case, label=item.label) for item in cases]
    write_cases(paths.build("split") / "train.parquet", recorded[:40])
    write_cases(paths.build("split") / "valid.parquet", recorded[40:])
    rows = [
        {
            "case_id": item.case.case_id,
            "part": "train" if index < 40 else "valid",
            "fold": index % 5 if index < 40 else None,
            "risk": 0.8 if item.label.label == "rare" else 0.3,
        }
        for index, item in enumerate(cases)
    ]
    paths.build("align").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), paths.build("align") / "risk.parquet")
    write_json(paths.build("split") / "held_out.json", {"valid": [], "test": []})
    write_answers(paths.build("rationales") / "answers.parquet", [])
    return paths


@pytest.mark.parametrize(
    ("dtype", "prompt", "readout"),
    [("float32", "plain", "mean"), ("bfloat16", "plain", "mean"), ("bfloat16", "chat", "last")],
)
def test_tune_and_distil_make_a_student_of_it(
    qwen3, cases, tmp_path, dtype: str, prompt: str, readout: str
) -> None:
    paths, params = workspace(tmp_path, cases), params_for(qwen3, dtype, prompt, readout)
    list(tune(params, paths))
    list(distil(params, paths))
    report = json.loads((paths.report("distil") / "metrics.json").read_text())
    assert report["valid"]["auroc"] > 0.9  # each label has words of its own
    student = Student.load(paths.build("distil") / "adapter")
    assert (student.card.dtype, student.card.prompt) == (dtype, prompt)
    assert student.card.readout == readout
    read = [item.reading for item in cases[40:]]
    first = [item.risk for item in student.predict(read, 8)]
    again = Student.load(paths.build("distil") / "adapter").predict(read, 8)
    assert [item.risk for item in again] == first
    rare = [
        risk for risk, item in zip(first, cases[40:], strict=True) if item.label.label == "rare"
    ]
    assert np.mean(rare) > np.mean(first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_rows_say_what_padded_ones_say(qwen3, dtype: str) -> None:
    base = load_base(str(qwen3), dtype=dtype)
    assert base.model.dtype == getattr(torch, dtype)
    lengths = torch.tensor([5, 40, 17, 23, 31, 9])
    ids = torch.randint(3, 40_000, (6, 40), generator=torch.Generator().manual_seed(2))
    padded, packed = (Trunk(base.model, 3, 2, 1, packed_tokens=width) for width in (None, 64))
    with torch.no_grad():
        states = padded.embed(ids)
        expected, found = (trunk.run(states, 0, 3, lengths) for trunk in (padded, packed))
    for row, length in enumerate(lengths.tolist()):
        assert not found[row, length:].any()
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == "float32" else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(pool(found, lengths), pool(expected, lengths), **close)


def test_checkpointing_gives_the_gradients_of_a_plain_pass(qwen3) -> None:
    base = load_base(str(qwen3))
    weight = base.model.model.layers[1].mlp.up_proj.weight
    ids = torch.arange(3, 33).reshape(2, 15)
    gradients = []
    for checkpointing in (False, True):
        trunk = Trunk(base.model, 3, 2, 1, checkpointing=checkpointing)
        base.model.zero_grad()
        trunk.run(trunk.embed(ids), 0, 3).square().mean().backward()
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_layers_laid_out_by_accelerate_run_in_parts(qwen3, tmp_path) -> None:
    """Two devices of which every machine has: memory, and disk for what is left out of it."""
    from transformers import AutoModelForCausalLM

    plain = load_base(str(qwen3)).model
    layout = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    layout |= {f"model.layers.{n}": "cpu" if n < 2 else "disk" for n in range(4)}
    layout["model.norm"] = "disk"
    spread = AutoModelForCausalLM.from_pretrained(
        qwen3, device_map=layout, offload_folder=tmp_path, dtype=torch.float32
    )
    ids = torch.arange(3, 33).reshape(2, 15)
    with torch.no_grad():
        outcomes = [
            trunk.run(trunk.run(trunk.embed(ids), 0, 2), 2, 4)
            for trunk in (Trunk(plain, 3, 2, 1), Trunk(spread, 3, 2, 1))
        ]
    torch.testing.assert_close(outcomes[0], outcomes[1])
