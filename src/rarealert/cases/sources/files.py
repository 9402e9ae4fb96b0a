"""Reading published files: whole, decoded, or one sentence that says what is wrong with them."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rarealert.errors import BadInputError

Tick = Callable[[int], object]
"""Told how many bytes of the source were read since it was last told."""

MAX_RECORD_BYTES = 64 * 1024**2
"""A longer line or document is no visit; reading it could take all memory."""

MAX_UNPACKED_BYTES = 1024**3
"""A published archive is smaller by far; a larger one would fill memory."""

TOO_LONG = f"longer than {MAX_RECORD_BYTES // 1024**2} MiB"


def no_tick(_: int) -> None:
    """For whoever reads without showing how far it got."""


def read_text(path: Path) -> str:
    """The UTF-8 text of ``path``; a name that ends in ``.gz`` is decompressed.

    Raises:
        BadInputError: the file is missing, empty, truncated, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error
    if path.suffix == ".gz":
        raw = _decompress(path, raw)
    if not raw.strip():
        raise BadInputError(f"{path} is empty; import the source again.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8 and import it again."
        ) from error


def _decompress(path: Path, raw: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(MAX_UNPACKED_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInputError(
            f"{path} is truncated or no gzip file; copy it again from its publisher."
        ) from error
    if len(content) > MAX_UNPACKED_BYTES:
        limit = MAX_UNPACKED_BYTES // 1024**2
        raise BadInputError(f"{path} unpacks to more than {limit} MiB; it is no published file.")
    return content


def read_until_cut(path: Path) -> bytes:
    """What a gzip file unpacks to, up to where it is cut short; nothing if it is damaged within.

    A cut leaves what stands before it whole. Other damage is noticed too late, by the checksum at
    the end, and then no word can be trusted.
    """
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        return inflate.decompress(path.read_bytes(), MAX_UNPACKED_BYTES)
    except (OSError, zlib.error):
        return b""


def parse_json(text: str | bytes) -> object:
    """The JSON value of ``text``.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or holds a number of absurd
            length.
    """
    try:
        value: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def json_lines(path: Path, tick: Tick = no_tick) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Number (from 1) of every line that is not blank, with its object or what is wrong with it.

    Raises:
        BadInputError: the file can't be read or holds no line at all.
    """
    found = False
    for number, line, whole in raw_lines(path, tick):
        found = True
        yield number, json_object(line) if whole else TOO_LONG
    if not found:
        raise BadInputError(f"{path} is empty; import the source again.")


def raw_lines(path: Path, tick: Tick = no_tick) -> Iterator[tuple[int, bytes, bool]]:
    """Number (from 1) of every line that is not blank, the line, and whether that is all of it.

    Raises:
        BadInputError: the file can't be read.
    """
    try:
        with path.open("rb") as stream:
            for number, (line, whole) in enumerate(_bounded_lines(stream, tick), 1):
                if not whole or line.strip():
                    yield number, line, whole
    except OSError as error:
        raise BadInputError(
            f"{path} can't be read ({error.strerror}); import the source again."
        ) from error


def _bounded_lines(stream: IO[bytes], tick: Tick) -> Iterator[tuple[bytes, bool]]:
    """Every line, of one that is too long the beginning, never holding more than the limit."""
    while line := stream.readline(MAX_RECORD_BYTES):
        tick(len(line))
        whole = len(line) < MAX_RECORD_BYTES or line.endswith(b"\n")
        yield line, whole
        while not whole and (rest := stream.readline(MAX_RECORD_BYTES)):
            tick(len(rest))
            whole = rest.endswith(b"\n")


def json_object(content: bytes) -> dict[str, object] | str:
    """The JSON object that ``content`` is, or what is wrong with it."""
    try:
        value = parse_json(content.removeprefix(b"\xef\xbb\xbf"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except ValueError:
        return "not valid JSON"
    return value if isinstance(value, dict) else "not a JSON object"
