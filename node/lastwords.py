"""What a node says in its last line, when its disk, its database or its state made it end.

Rules: values only. One line that says what happened, why it ends, and what a person should do. It
is in the log and has no secret: a database is named by its kind, never by its address.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from astra.errors import (
    DamagedLog,
    FsyncFailed,
    InvariantBroken,
    OldFormat,
    StorageFull,
    StoreError,
    UnknownFormat,
)
from node.metadata.rows import DamagedTables
from node.settings import NodeSettings

STOPS: Final = "FATAL: this node stops"


class LastWords(NamedTuple):
    what: str
    why: str
    todo: str


def last_words(error: BaseException, settings: NodeSettings) -> LastWords:
    """`error` is what ended the node."""
    what = f"{type(error).__name__}: {error}"
    rebuild = _rebuild(settings)
    match error:
        case StorageFull():
            why = "it cannot write, and acknowledges nothing that it has not written"
            return LastWords(what, why, "free space on its disk, then start it again")
        case FsyncFailed():
            why = "what it wrote may be lost, and a second try would only seem to succeed"
            return LastWords(what, why, _check_disk(rebuild))
        case DamagedLog() | DamagedTables():
            why = "what it has promised to keep is damaged; going on could lose data"
            return LastWords(what, why, f"check the disk, then {rebuild}")
        case UnknownFormat():
            why = "a newer version wrote what this one would have to guess"
            return LastWords(what, why, "start the newer version again")
        case OldFormat():
            why = "an older version wrote it, and guessing what it means could lose data"
            return LastWords(what, why, f"start the older version again; or, {_renew(settings)}")
        case InvariantBroken():
            why = "a bug in AstraStorage: its state cannot be, and going on could lose data"
            todo = f"keep {settings.data_dir} and this log for a report; then {rebuild}"
            return LastWords(what, why, todo)
        case StoreError():
            why = "its disk or its database does not work"
            return LastWords(what, why, _check_disk(rebuild))
        case _:
            why = "an error that nobody expected"
            return LastWords(what, why, "keep this log for a report, then start it again")


def _check_disk(rebuild: str) -> str:
    return (
        "check the disk and the kernel's log, then start it again; with a new disk, or when in"
        f" doubt, {rebuild}"
    )


def _rebuild(settings: NodeSettings) -> str:
    """Without its log and tables it is a voter that comes back empty (node/seat.py). The blobs
    have checksums of their own and may stay."""
    if settings.metadata == "sqlite":
        move = f"move {settings.data_dir / 'metadata.sqlite'}* away"
    else:
        move = "give it an empty PostgreSQL database (node.metadata)"
    return f"{move} and start it: it gets everything again from the other nodes, its blobs stay"


def _renew(settings: NodeSettings) -> str:
    """What is of an older form may be any of it, the blobs, too."""
    database = "" if settings.metadata == "sqlite" else ", give it an empty PostgreSQL database"
    return (
        f"one node after the other, move {settings.data_dir} away{database} and start it: it gets"
        " everything again from the other nodes. Wait until `astra status` tells no problem before"
        " the next one: until then some data is there only"
    )
