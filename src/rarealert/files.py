"""Atomic writing of files, and digests of what is in them.

After a kill the previous complete file is in place, or none.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip entry


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; a block without an error renames it.

    Creates the folder. If the block raises, the temporary file is removed; after a kill the next
    write overwrites it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` unchanged."""
    with whole(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a report with sorted keys, so that the same content gives the same bytes.

    Raises:
        ValueError: a number is NaN or infinite, which JSON can't express.
    """
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def write_skops(path: Path, state: object) -> None:
    """Write a skops archive with the same bytes for the same ``state``.

    skops names objects by their memory address and dates the entries; neither matters on loading,
    so names are renumbered and dates fixed.
    """
    from skops.io import dumps

    with zipfile.ZipFile(io.BytesIO(dumps(state))) as source:
        schema = source.read("schema.json").decode()
        addresses = re.findall(r'"__id__": (\d+)', schema)
        order = {address: str(n) for n, address in enumerate(dict.fromkeys(addresses), start=1)}

        def renamed(match: re.Match[str]) -> str:
            return f"{match[1]}{order[match[2]]}{match[3]}"

        schema = re.sub(r'("__id__": )(\d+)()', renamed, schema)
        schema = re.sub(r'("file": ")(\d+)(\.)', renamed, schema)
        entries = {"schema.json": schema.encode()}
        for name in source.namelist():
            if name != "schema.json":
                entries[re.sub(r"^()(\d+)(\.)", renamed, name)] = source.read(name)
    with (
        whole(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in sorted(entries):
            target.writestr(zipfile.ZipInfo(name, _EARLIEST), entries[name], zipfile.ZIP_DEFLATED)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(data: bytes) -> str:
    """sha256 of ``data`` in hexadecimal, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """``value`` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    return _CANONICAL.encode(value).encode(errors="replace")


def source_digest(paths: Iterable[Path], suffixes: tuple[str, ...] = (".py", ".tsv")) -> str:
    """Digest of source files and of all below source folders, by relative name and content.

    What code makes is versioned by its code, so that an edit makes what is cached of it stale.
    """
    listing = [
        (path.name, str(file.relative_to(path)), digest(file.read_bytes()))
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.suffix in suffixes
    ]
    return digest(canonical_json(listing))
