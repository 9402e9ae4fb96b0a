"""Screening on a Ray cluster: the same chunks, each answered by an actor that holds the model.

The answers come in the order of the visits, so the files written are those of the local engine. The
folder of ``--out`` and the registry must be reachable from every machine.
"""

from collections.abc import Iterable, Iterator, Sequence

from rarealert.errors import RareAlertError
from rarealert.scale.cluster import spread
from rarealert.screening.answer import Answer
from rarealert.screening.batch import Load, Question, answer_chunk, wait_asleep
from rarealert.screening.champion import ScreeningModel
from rarealert.screening.visit_files import Row


def answer_on_ray(
    chunks: Iterable[Sequence[Row]], load: Load, model: ScreeningModel, question: Question
) -> Iterator[tuple[Sequence[Row], list[Answer]]]:
    """Each chunk with its answers, in order.

    ``load`` gives each actor its own ``model``, with as many threads as this process uses: sums of
    floating-point numbers depend on how they are split.

    Raises:
        RareAlertError: there is no cluster to join, or the alias has moved to another version.
    """
    import torch

    arguments = (load, model.version, model.digest, question, torch.get_num_threads())
    return spread(_Screener, arguments, chunks, ordered=True)


class _Screener:
    """An actor: loads the model with its first chunk."""

    def __init__(
        self, load: Load, version: str, digest: str, question: Question, threads: int
    ) -> None:
        self._load = load
        self._registered = version, digest
        self._question = question
        self._threads = threads
        self._model: ScreeningModel | None = None

    def run(self, chunk: Sequence[Row]) -> list[Answer]:
        """The answers to the visits of ``chunk``."""
        if self._model is None:
            self._model = self._loaded()
        return answer_chunk(chunk, self._model, self._question)

    def _loaded(self) -> ScreeningModel:
        wait_asleep()
        import torch

        torch.set_num_threads(self._threads)
        model = self._load()
        if (model.version, model.digest) != self._registered:
            raise RareAlertError(
                f"The alias moved from version {self._registered[0]} to {model.version} while "
                "visits were screened. Run the command again."
            )
        return model
