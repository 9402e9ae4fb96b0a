"""What a supervisor asks: alive, ready, and how it goes."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.responses import Response

from rarealert.screening.service.problems import RefusedError
from rarealert.screening.service.schemas import ModelMark
from rarealert.screening.service.state import Service, service_of

OPEN_PATHS = ("/health", "/ready")
"""Paths that ask for no token: they tell nothing of a visit."""

router = APIRouter(tags=["operation"])
Serving = Annotated[Service, Depends(service_of)]


class Health(BaseModel):
    """The process is alive."""

    status: str = "alive"


class Ready(BaseModel):
    """A model is at work."""

    status: str = "ready"
    model: ModelMark


@router.get("/health")
async def health() -> Health:
    """Whether the process is alive."""
    return Health()


@router.get("/ready")
async def ready(service: Serving) -> Ready:
    """Whether visits can be screened now, and by which model."""
    if not (service.keeper.ready and service.batcher.alive):
        raise RefusedError(503, "No model is at work.", retry_s=5)
    model = service.keeper.model()
    return Ready(model=ModelMark(name=model.name, version=model.version, digest=model.digest))


@router.get("/metrics", response_class=Response)
async def metrics(service: Serving) -> Response:
    """Counts and times in Prometheus' text format."""
    content, media_type = service.metrics.page(service.batcher.waiting)
    return Response(content, headers={"Content-Type": media_type})
