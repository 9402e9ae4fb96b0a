import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# importlib mode keeps test folders off the path; the proxy is shared by the tests here
sys.path.append(str(Path(__file__).parent))

from endpoint_kit import KEY, case, teacher
from fault_proxy import Proxy, serve

from rarealert.teachers.endpoints.endpoint import EndpointTeacher
from rarealert.visits.reading import read_visit


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture(scope="session")
def llama() -> Iterator[str]:
    """Address of a real OpenAI-compatible server with the packaged model."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "llama_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


@pytest.fixture(scope="session")
def real(llama: str) -> tuple[bytes, EndpointTeacher]:
    """One response of the real server, and the teacher that it answered."""
    with serve(Proxy(upstream=llama)) as proxy:
        asked = teacher(proxy)
        os.environ["TEST_KEY"] = KEY
        kept: list[bytes] = []
        forward = proxy.forward

        def keep(path: str, body: bytes) -> bytes:
            kept.append(forward(path, body))
            return kept[-1]

        proxy.forward = keep  # type: ignore[method-assign]
        asked.ask(read_visit(case(0)))
        del os.environ["TEST_KEY"]
    return kept[-1], asked


@pytest.fixture
def replay(real: tuple[bytes, EndpointTeacher]) -> Iterator[Callable[..., Proxy]]:
    """Starts proxies that repeat the real server's response where they inject no fault."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(**settings: object) -> Proxy:
            return stack.enter_context(serve(Proxy(recorded=real[0], **settings)))  # type: ignore[arg-type]

        yield start
