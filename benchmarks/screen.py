"""Screening: the packaged student against a plain loop, llama.cpp and the machine's own limit.

    python benchmarks/screen.py           # after `make repro`; for two minutes on two quiet cores

The plain loop runs the whole base model on one visit after the other, as its model card shows.
llama.cpp processes the same prompts with the packaged 4-bit weights.
"""

import argparse
import copy
import http.client
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from machine import gemm_peak, in_turn, linear_weights, spent, table, visits

from rarealert.language.base import load_base
from rarealert.language.packaged import PACKAGED, packaged_file
from rarealert.params import load_params
from rarealert.student.encoding import Encoder
from rarealert.student.model import Student
from rarealert.student.network import Trunk, pool
from rarealert.visits.reading import Reading, read_visit

NONE = "-"
SMALL_BATCH = 4  # visits whose states fit the cache


def llama_cpp_rate(prompts: list[list[int]], model: str) -> tuple[float, str]:
    """Tokens a second of llama.cpp's prompt processing, by its own clock, and what it ran."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(packaged_file(model))
    params.n_ctx, params.n_parallel = 2048, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(params)
    host = urlsplit(server.listening_address).netloc
    tokens = seconds = 0.0
    for number, prompt in enumerate([prompts[0], *prompts]):
        connection = http.client.HTTPConnection(host, timeout=120)
        body = {"prompt": prompt, "n_predict": 1, "cache_prompt": False}
        connection.request(
            "POST", "/completion", json.dumps(body), {"Content-Type": "application/json"}
        )
        timings = json.loads(connection.getresponse().read())["timings"]
        connection.close()
        if number:  # the first warms up
            tokens += timings["prompt_n"]
            seconds += timings["prompt_ms"] / 1000
    return tokens / seconds, "4-bit, one prompt at a time"


def int8_row(
    student: Student, cases: list[Reading], batch: int, expected: list[float]
) -> list[object]:
    """Torch's dynamic int8 in the student's place: its rate and how far its risks stray."""
    quantised = copy.copy(student)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trunk = copy.copy(student._trunk)
            trunk.decoder = torch.ao.quantization.quantize_dynamic(
                copy.deepcopy(student._trunk.decoder), {torch.nn.Linear}, dtype=torch.qint8
            )
            quantised._trunk = trunk
            said: list[float] = []
            cost = spent(lambda: said.extend(r.risk for r in quantised.predict(cases, batch)))
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return ["dynamic int8", NONE, NONE, NONE, type(error).__name__]
    apart = float(np.abs(np.array(said) - np.array(expected)).max())
    rate = f"{len(cases) / cost.wall:.1f}", f"{len(cases) / cost.cpu:.1f}"
    return ["dynamic int8", *rate, NONE, f"risks up to {apart:.3f} away"]


def main() -> None:
    """Measure all and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workspace", type=Path, default=Path())
    options.add_argument("--cases", type=int, default=96)
    options.add_argument("--plain", type=int, default=12, help="cases for the slow ones")
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    batch = load_params(chosen.workspace / "params.yaml").score.batch_size
    student = Student.load(chosen.workspace / "build" / "distil" / "adapter")
    base = load_base(student.card.base_model)
    encoder = Encoder(base.tokenizer, student.card.max_prompt_tokens, student.card.prompt)
    cases = [read_visit(item.case) for item in visits(chosen.workspace, "test", chosen.cases)]
    few = cases[:: max(1, len(cases) // chosen.plain)][: chosen.plain]
    prompts = {each.case.case_id: list(encoder.prompt(each).ids) for each in cases}
    depth = student.card.risk_layer
    cut = Trunk(
        base.model, student.card.risk_layer, student.card.lora_layers, student.card.rationale_layers
    )

    def plain() -> None:
        with torch.no_grad():
            for case in few:
                base.model(input_ids=torch.tensor([prompts[case.case.case_id]])).logits[:, -1]

    def plain_cut() -> None:
        with torch.no_grad():
            for case in few:
                ids = torch.tensor([prompts[case.case.case_id]])
                pool(cut.run(cut.embed(ids), 0, depth), torch.tensor([ids.shape[1]]))

    student.predict(few, batch)
    works = {
        "the student": lambda: student.predict(cases, batch),
        f"the student, batches of {SMALL_BATCH}": lambda: student.predict(cases, SMALL_BATCH),
        "plain loop, whole model": plain,
        f"plain loop, {depth} layers": plain_cut,
    }
    taken = in_turn(works, chosen.repeats)
    counts = {name: len(few if name.startswith("plain") else cases) for name in works}
    ours = taken["the student"]
    rows: list[list[object]] = []
    for name, cost in taken.items():
        read = few if name.startswith("plain") else cases
        tokens = sum(len(prompts[case.case.case_id]) for case in read)
        ratio = (ours.wall / len(cases)) / (cost.wall / counts[name])
        processor = (ours.cpu / len(cases)) / (cost.cpu / counts[name])
        rows.append(
            [
                name,
                f"{len(read) / cost.wall:.1f}",
                f"{len(read) / cost.cpu:.1f}",
                f"{tokens / cost.wall:.0f}",
                f"ours {1 / ratio:.2f} times (CPU {1 / processor:.2f})",
            ]
        )
    expected = [item.risk for item in student.predict(few, batch)]
    rows.append(int8_row(student, few, batch, expected))
    mean = sum(map(len, prompts.values())) / len(prompts)
    if student.card.base_model in PACKAGED and find_spec("xllamacpp") is None:
        rows.append(["llama.cpp, whole model", NONE, NONE, NONE, "pip install xllamacpp first"])
    elif student.card.base_model in PACKAGED:
        rate, how = llama_cpp_rate([prompts[c.case_id] for c in few], student.card.base_model)
        rows.append(["llama.cpp, whole model", f"{rate / mean:.1f}", NONE, f"{rate:.0f}", how])
    peak = gemm_peak()
    limit = peak / (2 * linear_weights(base.model.model.layers[0]) * depth * mean)
    share = len(cases) / ours.wall / limit
    rows.append([f"GEMM limit, {depth} layers", f"{limit:.1f}", NONE, f"{limit * mean:.0f}", ""])
    print(f"{len(cases)} visits of {mean:.0f} tokens, {torch.get_num_threads()} threads.")
    print(table(["", "cases/s", "cases/CPU s", "tokens/s", "remark"], rows))
    print(
        f"GEMM peak {peak / 1e9:.0f} GFLOP/s; the student reaches {share:.0%} of that limit "
        "(aim 60 %)."
    )


if __name__ == "__main__":
    main()
