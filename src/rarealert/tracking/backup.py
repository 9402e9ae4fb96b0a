"""A copy of the SQLite tracking database, from which a lost one is brought back.

MLflow 3.17 keeps versions, aliases and the log of promotions in that one file. A server's database
is backed up by its owner.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from rarealert.errors import RareAlertError

SQLITE = "sqlite:///"


def back_up(uri: str) -> None:
    """Copy the database of the store ``uri`` to a file beside it; nothing for a server.

    A database without versions is not copied: it may have replaced a lost one, and must not
    replace that one's copy too.
    """
    database = _database(uri)
    if database is None or not database.is_file():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as source:
        # a copy that another process writes at this moment is as good
        if source.execute("SELECT 1 FROM model_versions LIMIT 1").fetchone():
            with closing(sqlite3.connect(_copy_of(database))) as target:
                source.backup(target)


def bring_back(uri: str) -> bool:
    """Replace the content of the store ``uri`` by its copy; return whether there is one.

    Raises:
        RareAlertError: the copy is damaged.
    """
    database = _database(uri)
    if database is None or not _copy_of(database).is_file():
        return False
    copy = _copy_of(database)
    try:
        with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(database)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise RareAlertError(
            f"{copy} can't be read ({error}); remove it and run dvc repro -f register."
        ) from error
    return True


def _database(uri: str) -> Path | None:
    file = uri.removeprefix(SQLITE)
    return None if file == uri else Path(file)


def _copy_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.copy")
