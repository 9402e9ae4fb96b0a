"""The app: routes, guards and the threads behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rarealert.screening.page import routes as page
from rarealert.screening.service import cds_hooks, health, routes
from rarealert.screening.service.guard import Guard, Observed
from rarealert.screening.service.models import ModelSource
from rarealert.screening.service.problems import add_handlers, describe
from rarealert.screening.service.settings import ServiceSettings
from rarealert.screening.service.state import Service

API_VERSION = "1.0"
"""Raised with any change of what the routes take or give."""

_ABOUT = "Risk of rare disease from a first visit. Decision support, not a diagnosis."


def make_app(settings: ServiceSettings, source: ModelSource) -> FastAPI:
    """The service as an ASGI app; its model is loaded when the app starts.

    ``app.state.service`` is the ``Service``: who starts it before the app does sees its errors.
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
            Middleware(Guard, settings=settings, open_paths=(*health.OPEN_PATHS, *page.OPEN_PATHS)),
        ],
    )
    app.state.service = service
    add_handlers(app)
    for router in (health.router, routes.router, cds_hooks.router, page.router):
        app.include_router(router)
    describe(app)
    return app
