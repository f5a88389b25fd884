"""How an error of ours crosses the wire as a Failure and comes out as the same class."""

from __future__ import annotations

from typing import Final

from astra import errors
from astra.errors import AstraError, NotLeader, RefusalCode, Refused, Unavailable
from astra.wire import Failure

_PLAIN: Final[dict[str, type[AstraError]]] = {
    cls.__name__: cls
    for cls in (
        errors.Unavailable,
        errors.Overloaded,
        errors.OutcomeUnknown,
        errors.DeadlineExceeded,
        errors.StorageFull,
        errors.BlobConflict,
        errors.StoreError,
    )
}
_SEPARATOR: Final = "|"


def failure_of(error: BaseException) -> Failure:
    """What a peer is told. Errors that are not ours are not described to it."""
    match error:
        case NotLeader():
            return Failure(kind="NotLeader", leader=error.leader)
        case Refused():
            return Failure(kind="Refused", detail=f"{error.code}{_SEPARATOR}{error.detail}")
        case errors.BlobNotFound():
            return Failure(kind="BlobNotFound", detail=error.blob_id)
        case errors.BadChunk():
            return Failure(kind="BadChunk", detail=f"{error.blob_id}{_SEPARATOR}{error.index}")
        case AstraError() if type(error).__name__ in _PLAIN:
            return Failure(kind=type(error).__name__, detail=str(error))
        case errors.StoreError():
            return Failure(kind="StoreError", detail="the node's store failed")
        case _:
            return Failure(kind="Unavailable", detail="internal error")


def error_of(failure: Failure) -> AstraError:
    """The error to raise for a peer's Failure; an unknown kind is an Unavailable."""
    detail, _, rest = failure.detail.partition(_SEPARATOR)
    match failure.kind:
        case "NotLeader":
            return NotLeader(failure.leader)
        case "Refused" if detail in RefusalCode.__members__.values():
            return Refused(RefusalCode(detail), rest)
        case "BlobNotFound":
            return errors.BlobNotFound(failure.detail)
        case "BadChunk" if rest.isascii() and rest.isdigit():
            return errors.BadChunk(detail, int(rest))
        case kind if kind in _PLAIN:
            return _PLAIN[kind](failure.detail)
        case _:
            return Unavailable(failure.detail or failure.kind)
