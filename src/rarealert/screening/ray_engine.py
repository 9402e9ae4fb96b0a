"""Screening on a Ray cluster: the same chunks, answered by actors that each hold the model.

Ray Data streams chunks from files to actors and back (``map_batches``,
https://docs.ray.io/en/latest/data/api/doc/ray.data.Dataset.map_batches.html) and keeps their order,
so what is written is what the local engine writes. The folder of ``--out`` and the registry have to
be ones that every machine reaches.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import join, nodes
from rarealert.screening.answer import Answer
from rarealert.screening.batch import Load, Question, answer_chunk, wait_asleep
from rarealert.screening.champion import ScreeningModel
from rarealert.screening.visit_files import Row

_CHUNKS_A_FILE = 4  # the unit that an actor is handed; smaller ones spread a short file better
_LEFT_CPUS = 1  # of each machine, for Ray Data's own reading; without one it waits for ever
_CHUNK, _ANSWERS = "chunk", "answers"
_ROWS, _LIST = TypeAdapter(list[Row]), TypeAdapter(list[Answer])


def answer_on_ray(
    chunks: Iterable[Sequence[Row]],
    load: Load,
    model: ScreeningModel,
    question: Question,
    spool: Path,
) -> Iterator[tuple[Sequence[Row], list[Answer]]]:
    """Each chunk with its answers, in order; ``spool`` holds the chunks while they wait.

    ``load`` gives each actor its own ``model``: one a machine, with as many threads as this process
    uses, because sums of floating-point numbers depend on how they are shared out.

    Raises:
        RareAlertError: there is no cluster to join, or the alias moved meanwhile.
    """
    import torch

    machines = nodes(join())
    from ray import data
    from ray.exceptions import RayTaskError

    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    shutil.rmtree(spool, ignore_errors=True)
    try:
        files = _spooled(chunks, spool)
        if not files:
            return
        answered = data.read_parquet(files, override_num_blocks=len(files)).map_batches(
            _Screener,
            fn_constructor_args=(load, model.version, model.digest, question),
            fn_constructor_kwargs={"threads": torch.get_num_threads()},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=max(0.5, machines[-1].cpus - _LEFT_CPUS),
            compute=data.ActorPoolStrategy(size=min(len(machines), len(files))),
        )
        for row in answered.iter_rows():
            yield _ROWS.validate_json(row[_CHUNK]), _LIST.validate_json(row[_ANSWERS])
    except RayTaskError as error:
        raise error.cause from None
    finally:
        shutil.rmtree(spool, ignore_errors=True)  # it holds what the visits say


class _Screener:
    """An actor: the model is loaded once, then asked chunk by chunk."""

    def __init__(
        self, load: Load, version: str, digest: str, question: Question, *, threads: int
    ) -> None:
        wait_asleep()
        import torch

        torch.set_num_threads(threads)
        self._model = load()
        if (self._model.version, self._model.digest) != (version, digest):
            raise RareAlertError(
                f"The alias moved from version {version} to {self._model.version} while visits "
                "were screened; run the command again."
            )
        self._question = question

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        told = [
            _LIST.dump_json(
                answer_chunk(_ROWS.validate_json(chunk), self._model, self._question)
            ).decode()
            for chunk in batch[_CHUNK].to_pylist()
        ]
        return batch.append_column(_ANSWERS, pa.array(told, pa.string()))


def _spooled(chunks: Iterable[Sequence[Row]], spool: Path) -> list[str]:
    """Files of a few chunks each, named in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spool.mkdir(parents=True)
    source = iter(chunks)
    files: list[str] = []
    while held := list(islice(source, _CHUNKS_A_FILE)):
        file = spool / f"{len(files):08d}.parquet"
        told = [_ROWS.dump_json(list(chunk)).decode() for chunk in held]
        pq.write_table(pa.table({_CHUNK: told}), file)
        files.append(str(file))
    return files
