"""What the routes of one app share: settings, the model at work, the queue, the counters."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from rarealert.knowledge.recognise import load_recogniser
from rarealert.screening.service.batching import (
    Answered,
    Batcher,
    Question,
    QueueClosedError,
    QueueFullError,
)
from rarealert.screening.service.metrics import Metrics
from rarealert.screening.service.models import Keeper, ModelSource
from rarealert.screening.service.problems import RefusedError
from rarealert.screening.service.settings import ServiceSettings


class Service:
    """The model at work and the queue before it; ``start`` it, and ``close`` it at the end."""

    def __init__(self, settings: ServiceSettings, source: ModelSource) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.keeper = Keeper(source, self.metrics, settings.reload_s)
        self.batcher = Batcher(
            self.keeper.model,
            self.metrics,
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            max_waiting=settings.max_waiting,
        )
        self._started = False

    def start(self) -> None:
        """Load the model and start the threads; a second call does nothing.

        Raises:
            RareAlertError: there is no model to load.
        """
        if not self._started:
            load_recogniser()  # seconds that the first visit would wait
            self.keeper.start()
            self.batcher.start()
            self._started = True

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self.batcher.close(self.settings.shutdown_s)
        self.keeper.close()

    async def ask(
        self, questions: Sequence[Question], within_s: float | None = None
    ) -> list[Answered]:
        """One answer a question, in order; ``within_s`` is ``answer_timeout_s`` if none is given.

        Raises:
            RefusedError: the queue is full, the service ends, or the answer takes too long.
        """
        try:
            waiting = self.batcher.submit(questions)
        except QueueFullError:
            raise RefusedError(429, "Too many visits are waiting; try again.", retry_s=1) from None
        except QueueClosedError:
            raise RefusedError(503, "The service is shutting down.", retry_s=5) from None
        try:
            async with asyncio.timeout(
                self.settings.answer_timeout_s if within_s is None else within_s
            ):
                return list(await asyncio.gather(*(asyncio.wrap_future(each) for each in waiting)))
        except TimeoutError:
            raise RefusedError(503, "The answer took too long; try again.", retry_s=5) from None


def service_of(request: Request) -> Service:
    """The service behind ``request``, for ``fastapi.Depends``."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
