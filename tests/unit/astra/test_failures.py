"""Errors that cross the wire come out as what they were; what is not ours tells nothing."""

from __future__ import annotations

import pytest

from astra import errors
from astra.errors import AstraError, RefusalCode
from astra.failures import error_of, failure_of

SAMPLES: list[AstraError] = [
    errors.NotLeader("h:1"),
    errors.NotLeader(None),
    errors.Unavailable("no quorum"),
    errors.Overloaded("full"),
    errors.OutcomeUnknown("maybe"),
    errors.DeadlineExceeded("late"),
    errors.StorageFull("no space"),
    errors.BlobConflict("other"),
    errors.BlobNotFound("a" * 32),
    errors.BadChunk("a" * 32, 7),
    *(errors.Refused(code, "d|e") for code in RefusalCode),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: str(error)[:40])
def test_failure_of_our_error_comes_back_equal(error: AstraError) -> None:
    back = error_of(failure_of(error))
    assert type(back) is type(error)
    for name in ("leader", "code", "detail", "blob_id", "index"):
        assert getattr(back, name, None) == getattr(error, name, None)


@pytest.mark.parametrize(
    "error",
    [ValueError("s3cret"), errors.FsyncFailed("/data s3cret"), errors.ConfigError("s3cret")],
)
def test_failure_of_internal_error_tells_nothing(error: BaseException) -> None:
    assert "s3cret" not in str(failure_of(error))


def test_error_of_unknown_kind_is_unavailable() -> None:
    from astra.wire import Failure

    assert isinstance(error_of(Failure(kind="New", detail="x")), errors.Unavailable)
    assert isinstance(error_of(Failure(kind="Refused", detail="new|x")), errors.Unavailable)
    assert isinstance(error_of(Failure(kind="BadChunk", detail="x|y")), errors.Unavailable)
