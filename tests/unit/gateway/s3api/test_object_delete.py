"""What a delete is asked and what it answers, without a cluster."""

import pytest

from astra.commands import NO_CONDITION, Condition, Deleted
from gateway.checksums import ChecksumAlgorithm, DeclaredChecksum
from gateway.s3api.errors import S3Error
from gateway.s3api.object_delete import (
    delete_condition,
    deleted_headers,
    require_integrity,
    split_deletable,
)
from gateway.s3api.xml import ObjectToDelete


@pytest.mark.parametrize(
    ("deleted", "headers"),
    [
        (Deleted(key=b"k"), []),
        (
            Deleted(key=b"k", marker_version_id="m"),
            [("x-amz-delete-marker", "true"), ("x-amz-version-id", "m")],
        ),
        (Deleted(key=b"k", version_id="v"), [("x-amz-version-id", "v")]),
        (
            Deleted(key=b"k", version_id="v", was_marker=True),
            [("x-amz-delete-marker", "true"), ("x-amz-version-id", "v")],
        ),
    ],
)
def test_deleted_headers_name_version_and_marker(
    deleted: Deleted, headers: list[tuple[str, str]]
) -> None:
    assert deleted_headers(deleted) == headers


def test_delete_condition_absent_is_none() -> None:
    assert delete_condition({}) is NO_CONDITION


def test_delete_condition_of_all_headers_is_whole() -> None:
    headers = {
        "if-match": '"abc"',
        "x-amz-if-match-size": "7",
        "x-amz-if-match-last-modified-time": "Thu, 01 Jan 1970 00:00:05 GMT",
    }
    expected = Condition(if_match=("abc",), if_match_size=7, if_match_modified_ms=5000)
    assert delete_condition(headers) == expected


@pytest.mark.parametrize("name", ["if-none-match", "if-modified-since", "if-unmodified-since"])
def test_delete_condition_unknown_to_s3_is_not_ignored(name: str) -> None:
    with pytest.raises(S3Error) as refused:
        delete_condition({name: "*"})
    assert refused.value.code == "NotImplemented"


@pytest.mark.parametrize(
    "declared",
    [
        DeclaredChecksum(md5=b"m" * 16),
        DeclaredChecksum(algorithm=ChecksumAlgorithm.CRC32, value=b"1234"),
        DeclaredChecksum(algorithm=ChecksumAlgorithm.CRC32, is_trailer=True),
    ],
)
def test_require_integrity_of_any_digest_passes(declared: DeclaredChecksum) -> None:
    require_integrity(declared)


@pytest.mark.parametrize(
    "declared", [DeclaredChecksum(), DeclaredChecksum(algorithm=ChecksumAlgorithm.CRC32)]
)
def test_require_integrity_without_a_digest_is_refused(declared: DeclaredChecksum) -> None:
    with pytest.raises(S3Error) as refused:
        require_integrity(declared)
    assert refused.value.code == "InvalidRequest"


def test_split_deletable_keeps_order_and_fails_bad_ones_alone() -> None:
    wanted = [
        ObjectToDelete(key="b", etag="e", modified_seconds=3, size=4),
        ObjectToDelete(key="x" * 1025),
        ObjectToDelete(key="a", version_id="null"),
        ObjectToDelete(key="a", version_id="no-id"),
        ObjectToDelete(key="é"),
    ]
    entries, failed = split_deletable(wanted)
    assert [(entry.key, entry.version_id) for entry in entries] == [
        (b"b", None),
        (b"a", "null"),
        ("é".encode(), None),
    ]
    assert entries[0].condition == Condition(
        if_match=("e",), if_match_size=4, if_match_modified_ms=3000
    )
    assert entries[1].condition is NO_CONDITION
    assert [(item.key[:1], item.version_id, item.code) for item in failed] == [
        ("x", None, "KeyTooLongError"),
        ("a", "no-id", "NoSuchVersion"),
    ]
