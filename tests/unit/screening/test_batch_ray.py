"""Screening on two Ray machines gives the bytes that this process gives; needs the extra `ray`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rarealert.errors import RareAlertError
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.champion import ScreeningModel

SCRIPT = """
import functools, json, sys, time
from pathlib import Path
from types import SimpleNamespace
import ray
from ray.cluster_utils import Cluster
from rarealert.screening.batch import Options, screen_file
from rarealert.screening.champion import ScreeningModel


def load(adapter):
    from rarealert.screening.pyfunc import ADAPTER, CALIBRATION_PREVALENCE, RiskModel
    model = RiskModel()
    model.load_context(SimpleNamespace(
        artifacts={ADAPTER: adapter}, model_config={CALIBRATION_PREVALENCE: 0.5}))
    return ScreeningModel("tiny", "1", "d" * 64, model.scorer)


adapter, source, folder = sys.argv[1:4]
node = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
ray.init(address=cluster.address, log_to_driver=False)
results = {"machines": len(ray.nodes())}
for name, loader in (("local", None), ("ray", functools.partial(load, adapter))):
    started = time.perf_counter()
    out = Path(folder) / f"{name}.jsonl"
    options = Options("alerts", 0.02)
    screen_file(Path(source), out, load(adapter), options, chunk_rows=8, load=loader)
    results[name] = time.perf_counter() - started
actors = ray._private.state.actors().values()
workers = [one for one in actors if one["ActorClassName"] == "_RayWorker"]
results["used"] = len({one["Address"]["NodeID"] for one in workers})
print(json.dumps(results))
ray.shutdown()
cluster.shutdown()
"""


def _visits(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            text = f"Fever and cough since {index % 30} days. " + "Tired. " * (index % 7)
            row = {"case_id": f"v{index}", "age_years": index % 90, "chief_complaint": text}
            stream.write(json.dumps(row) + "\n")
        stream.write("{broken\n")
    return path


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_two_ray_machines_answer_bit_for_bit_as_this_process(tiny_student, tmp_path):
    pytest.importorskip("ray")
    source = _visits(tmp_path / "in.jsonl", 128)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, (tiny_student, source, tmp_path))],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    print(results)
    assert results["machines"] == results["used"] == 2
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    refused = [tmp_path / f"{name}.jsonl.refused.jsonl" for name in ("local", "ray")]
    assert refused[0].read_bytes() == refused[1].read_bytes()


def test_without_ray_the_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    source = _visits(tmp_path / "in.jsonl", 1)
    model = ScreeningModel("toy", "1", "d" * 64, None)
    with pytest.raises(RareAlertError, match=r"pip install 'rarealert\[ray\]'"):
        screen_file(source, tmp_path / "out.jsonl", model, Options(), load=lambda: model)
