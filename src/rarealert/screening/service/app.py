"""The service as an app (routes, middleware, threads), and the command ``rarealert serve``."""

import gc
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from rarealert.errors import BadInputError, RareAlertError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.screening.page import clinic_page as page
from rarealert.screening.service import cds_hooks, routes
from rarealert.screening.service.batching import FolderSource, ModelSource, RegistrySource
from rarealert.screening.service.guard import Guard, Observed
from rarealert.screening.service.problems import RequestError, add_handlers, describe
from rarealert.screening.service.schemas import ModelMark
from rarealert.screening.service.state import (
    Service,
    ServiceSettings,
    check_exposure,
    read_token,
    service_of,
)

if TYPE_CHECKING:
    import uvicorn

OPEN_PATHS = ("/health", "/ready")
"""Paths that need no token: they contain nothing of a visit."""

router = APIRouter(tags=["operation"])
Serving = Annotated[Service, Depends(service_of)]


class Health(BaseModel):
    """The process is alive."""

    status: str = "alive"


class Ready(BaseModel):
    """A model is loaded."""

    status: str = "ready"
    model: ModelMark


@router.get("/health")
async def health() -> Health:
    """Whether the process is alive."""
    return Health()


@router.get("/ready")
async def ready(service: Serving) -> Ready:
    """Whether visits can be screened now, and by which model."""
    if not (service.holder.ready and service.batcher.alive):
        raise RequestError(503, "No model is loaded.", retry_s=5)
    model = service.holder.model()
    return Ready(model=ModelMark(name=model.name, version=model.version, digest=model.digest))


@router.get("/metrics", response_class=Response)
async def metrics(service: Serving) -> Response:
    """Counts and times in Prometheus' text format."""
    content, media_type = service.metrics.page(service.batcher.waiting)
    return Response(content, headers={"Content-Type": media_type})


API_VERSION = "1.0"
"""Raised with any change of request or response formats."""

_ABOUT = "Risk of rare disease from a first visit. Decision support, not a diagnosis."


def make_app(settings: ServiceSettings, source: ModelSource) -> FastAPI:
    """The service as an ASGI app; its model is loaded when the app starts.

    ``app.state.service`` is the ``Service``; starting it before the app reports errors at once.
    """
    service = Service(settings, source)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="RareAlert",
        description=_ABOUT,
        version=API_VERSION,
        lifespan=life,
        docs_url=None,  # FastAPI's pages load scripts from the network
        redoc_url=None,
        middleware=[
            Middleware(Observed, metrics=service.metrics),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.allowed_hosts)),
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.allow_origin),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
            ),
            Middleware(Guard, settings=settings, open_paths=(*OPEN_PATHS, *page.OPEN_PATHS)),
        ],
    )
    app.state.service = service
    add_handlers(app)
    for each in (router, routes.router, cds_hooks.router, page.router):
        app.include_router(each)
    describe(app)
    return app


_POLL_S = 0.1  # between two checks of whether the server has started
_FORMAT = "%(asctime)s %(name)s %(message)s"


def serve(settings: ServiceSettings, source: ModelSource) -> None:
    """Serve until SIGTERM or SIGINT; running requests are answered first.

    Raises:
        BadInputError: the address is reachable from other machines and no token is set, or the
            folder holds no model.
        RareAlertError: there is no model to load, or the port is taken.
    """
    check_exposure(settings)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=_FORMAT)
    for name in ("rarealert.access", "rarealert.service", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    with _uncollected():
        import uvicorn

        app = make_app(settings, source)
        app.state.service.start()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="asyncio",  # the standard library's, whatever else is installed
        http="h11",
        access_log=False,  # it would log paths and queries; Observed logs neither
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = uvicorn.Server(config)
    Thread(target=_read_knowledge, args=(server,), name="rarealert-knowledge", daemon=True).start()
    try:
        server.run()
    except SystemExit as error:  # uvicorn exits so when it cannot bind
        raise RareAlertError(
            f"{settings.host}:{settings.port} is in use or not available on this machine. "
            "Choose another --port or --host."
        ) from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import and load without the garbage collector: this saves a fifth of the start.

    The objects are also frozen, so that later collections skip them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _read_knowledge(server: "uvicorn.Server") -> None:
    """Load the knowledge for next questions, which takes six seconds, once the server answers."""
    while not server.started:
        time.sleep(_POLL_S)
    from rarealert.screening.finding_search import load_search
    from rarealert.screening.next_questions import load_knowledge

    load_search()
    load_knowledge()


def chosen_settings(flags: Mapping[str, object]) -> ServiceSettings:
    """Settings from the given flags and the token's environment variable.

    Raises:
        BadInputError: a flag is out of its range, or the token is too short.
    """
    try:
        return ServiceSettings.model_validate({**flags, "token": read_token()})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise BadInputError(f"{flag}: {first['msg']}. Correct the flag.") from None


def chosen_source(folder: Path | None, alias: str) -> ModelSource:
    """The model in ``folder`` if given, else the version that ``alias`` points at.

    Raises:
        BadInputError: no folder is named, and there is no workspace here.
    """
    if folder is not None:
        return FolderSource(folder)
    paths = Paths.here()
    return RegistrySource(load_params(paths.params).register_.model_name, alias, paths.tracking_uri)
