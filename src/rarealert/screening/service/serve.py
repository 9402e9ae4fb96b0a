"""``rarealert serve``: bind, load, answer until told to stop."""

import gc
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rarealert.errors import BadInputError, RareAlertError
from rarealert.params import load_params
from rarealert.paths import Paths
from rarealert.screening.service.models import FolderSource, ModelSource, RegistrySource
from rarealert.screening.service.settings import ServiceSettings, check_exposure, read_token
from rarealert.screening.waiting import wait_asleep

if TYPE_CHECKING:
    import uvicorn

_LOOK_S = 0.1  # between two looks whether the service answers
_FORMAT = "%(asctime)s %(name)s %(message)s"


def serve(settings: ServiceSettings, source: ModelSource) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Raises:
        BadInputError: the address can be reached by others and no token is set, or the folder
            that was named is no model's.
        RareAlertError: there is no model to load, or the port is taken.
    """
    check_exposure(settings)
    wait_asleep()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=_FORMAT)
    for name in ("rarealert.access", "rarealert.service", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    with _uncollected():
        import uvicorn

        from rarealert.screening.service.app import make_app

        app = make_app(settings, source)
        app.state.service.start()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="asyncio",  # not whichever a package beside us (evidently) happened to bring
        http="h11",
        access_log=False,  # it would write paths and queries; Guard's own line has neither
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = uvicorn.Server(config)
    Thread(target=_read_knowledge, args=(server,), name="rarealert-knowledge", daemon=True).start()
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it could not bind
        raise RareAlertError(
            f"{settings.host}:{settings.port} can't be bound; is another service there? "
            "Choose another --port."
        ) from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Imports and model without the garbage collector, which would look at all of it for nothing.

    A fifth of the start; what was made stays out of its later rounds too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _read_knowledge(server: "uvicorn.Server") -> None:
    """Read what the page's questions need, so that the first visit does not wait six seconds.

    Not before the service answers: two threads of Python share one core.
    """
    while not server.started:
        time.sleep(_LOOK_S)
    from rarealert.screening.beliefs import load_knowledge
    from rarealert.screening.findings import load_search

    load_search()
    load_knowledge()


def chosen_settings(flags: Mapping[str, object]) -> ServiceSettings:
    """Settings from the command's flags (those that were given) and the token's variable.

    Raises:
        BadInputError: a flag is out of its range, or the token is too short.
    """
    try:
        return ServiceSettings.model_validate({**flags, "token": read_token()})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise BadInputError(f"{flag}: {first['msg']}. Mend the flag.") from None


def chosen_source(folder: Path | None, alias: str) -> ModelSource:
    """The model in ``folder`` where one is named, else the one ``alias`` points at.

    Raises:
        BadInputError: no folder is named, and there is no workspace here.
    """
    if folder is not None:
        return FolderSource(folder)
    paths = Paths.here()
    return RegistrySource(load_params(paths.params).register_.model_name, alias, paths.tracking_uri)
