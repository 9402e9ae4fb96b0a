"""Prometheus metrics of the service: counts and durations, never a visit or its answer."""

from typing import Any

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_VISITS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one app, in a separate registry."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        held: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "rarealert_requests", "Requests answered", ("route", "method", "status"), **held
        )
        self._seconds = Histogram(
            "rarealert_request_seconds", "Time to answer", ("route",), buckets=_SECONDS, **held
        )
        self._answers = Counter("rarealert_answers", "Visits answered by band", ("band",), **held)
        self._batch = Histogram(
            "rarealert_batch_visits", "Visits scored together", buckets=_VISITS, **held
        )
        self._inference = Histogram(
            "rarealert_inference_seconds", "Time of one batch", buckets=_SECONDS, **held
        )
        self._reloads = Counter(
            "rarealert_model_loads", "Models loaded after the alias moved", ("outcome",), **held
        )
        self._model = Gauge(
            "rarealert_model", "1 for the loaded version", ("name", "version", "digest"), **held
        )
        self._waiting = Gauge("rarealert_waiting_visits", "Visits in the queue", **held)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; ``route`` is a template, never the requested path."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, band: str) -> None:
        """Count one answered visit."""
        self._answers.labels(band).inc()

    def batch(self, visits: int, seconds: float) -> None:
        """Record one batch."""
        self._batch.observe(visits)
        self._inference.observe(seconds)

    def loaded(self, name: str, version: str, digest: str) -> None:
        """Record the loaded model."""
        self._model.clear()
        self._model.labels(name, version, digest).set(1)
        self._reloads.labels("loaded").inc()

    def load_failed(self) -> None:
        """Count a model that could not be loaded."""
        self._reloads.labels("failed").inc()

    def page(self, waiting: int) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        self._waiting.set(waiting)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
