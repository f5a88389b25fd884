"""CompleteMultipartUpload: which parts, and what the whole of them is."""

import base64
import zlib

import pytest

from astra.constants import OBJECT_SIZE_MAX, PART_SIZE_MIN
from astra.model import Checksum, Part, Upload
from gateway.checksums import ChecksumAlgorithm, ChecksumType
from gateway.s3api import documents as doc
from gateway.s3api.errors import S3Error
from gateway.s3api.multipart_complete import (
    Expected,
    check_expected,
    choose_parts,
    parse_expected,
    whole_checksum,
)
from gateway.s3api.xml import CompletedPart


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


CRC_A, CRC_B, CRC_AB = crc32(b"a"), crc32(b"b"), crc32(b"ab")


def stored(number: int, *, size: int = 1, value: str = CRC_A, algorithm: str = "CRC32") -> Part:
    checksum = Checksum(algorithm=algorithm, value=value) if value else None
    return Part(number=number, size=size, etag=f"{number:032x}", extents=(), checksum=checksum)


def named(number: int, *checksums: doc.Checksum, etag: str | None = None) -> CompletedPart:
    wanted = f"{number:032x}" if etag is None else etag
    return CompletedPart(part_number=number, etag=wanted, checksums=checksums)


def upload(algorithm: str = "", *, composite: bool = False) -> Upload:
    return Upload(
        upload_id="0" * 32,
        owner_id="ann",
        initiated_ms=0,
        checksum_algorithm=algorithm,
        checksum_composite=composite,
    )


def test_choose_parts_takes_the_named_ones_in_order() -> None:
    parts = [stored(n, size=PART_SIZE_MIN) for n in (1, 2, 3, 10_000)]
    chosen = choose_parts([named(2), named(10_000)], parts, "id")
    assert [part.number for part in chosen] == [2, 10_000]


@pytest.mark.parametrize(
    "wanted",
    [
        named(2),
        named(1, etag="f" * 32),
        named(1, doc.Checksum(algorithm="CRC32", value=CRC_B)),
        named(1, doc.Checksum(algorithm="SHA1", value=CRC_A)),
    ],
)
def test_choose_parts_that_are_not_as_named_is_invalid_part(wanted: CompletedPart) -> None:
    with pytest.raises(S3Error) as caught:
        choose_parts([wanted], [stored(1)], "id")
    assert caught.value.code == "InvalidPart"
    assert caught.value.extra["PartNumber"] == str(wanted.part_number)


def test_choose_parts_takes_an_etag_in_any_case_and_the_right_checksum() -> None:
    part = Part(
        number=1,
        size=1,
        etag="ab" * 16,
        extents=(),
        checksum=Checksum(algorithm="CRC32", value=CRC_A),
    )
    wanted = named(1, doc.Checksum(algorithm="CRC32", value=CRC_A), etag="AB" * 16)
    assert choose_parts([wanted], [part], "id") == [part]


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ((PART_SIZE_MIN, 1), None),
        ((1,), None),
        ((0,), None),
        ((PART_SIZE_MIN - 1, 1), "EntityTooSmall"),
        ((PART_SIZE_MIN, 0, 1), "EntityTooSmall"),
        ((OBJECT_SIZE_MAX, 0), None),
        ((OBJECT_SIZE_MAX, 1), "EntityTooLarge"),
    ],
)
def test_choose_parts_minds_their_sizes(sizes: tuple[int, ...], code: str | None) -> None:
    parts = [stored(n, size=size) for n, size in enumerate(sizes, 1)]
    wanted = [named(part.number) for part in parts]
    if code is None:
        assert choose_parts(wanted, parts, "id") == parts
        return
    with pytest.raises(S3Error) as caught:
        choose_parts(wanted, parts, "id")
    assert caught.value.code == code


# --- the checksum of the whole ---------------------------------------------------------------


def test_whole_checksum_of_a_full_object_upload_is_that_of_all_bytes() -> None:
    parts = [stored(1), stored(2, value=CRC_B)]
    found = whole_checksum(upload("CRC32"), parts)
    assert found == Checksum(algorithm="CRC32", value=CRC_AB)


def test_whole_checksum_of_a_composite_upload_counts_its_parts() -> None:
    found = whole_checksum(upload("CRC32", composite=True), [stored(1), stored(2, value=CRC_B)])
    assert found is not None
    assert found.composite
    assert found.value.endswith("-2")
    assert found.value != f"{CRC_AB}-2"


def test_whole_checksum_without_a_declared_algorithm_is_of_equal_crcs() -> None:
    parts = [stored(1), stored(2, value=CRC_B)]
    assert whole_checksum(upload(), parts) == Checksum(algorithm="CRC32", value=CRC_AB)


@pytest.mark.parametrize(
    "second",
    [
        stored(2, value=""),
        stored(2, value=CRC_B, algorithm="CRC32C"),
    ],
)
def test_whole_checksum_of_unlike_parts_is_none(second: Part) -> None:
    assert whole_checksum(upload(), [stored(1), second]) is None


def test_whole_checksum_of_hashes_without_a_declared_algorithm_is_none() -> None:
    sha = "A" * 27 + "="
    assert whole_checksum(upload(), [stored(1, value=sha, algorithm="SHA1")]) is None


# --- what the client expects -----------------------------------------------------------------


def test_parse_expected_reads_every_header() -> None:
    headers = {
        "x-amz-checksum-crc32": "bad-2",
        "x-amz-checksum-type": "composite",
        "x-amz-mp-object-size": "12",
        "x-amz-checksum-algorithm": "CRC32",
    }
    assert parse_expected(headers) == Expected(
        algorithm=ChecksumAlgorithm.CRC32,
        checksum="bad-2",
        kind=ChecksumType.COMPOSITE,
        size=12,
    )
    assert parse_expected({}) == Expected()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-checksum-crc32": CRC_A, "x-amz-checksum-sha1": "x"}, "InvalidRequest"),
        ({"x-amz-checksum-type": "HALF"}, "InvalidRequest"),
        ({"x-amz-mp-object-size": "-1"}, "InvalidArgument"),
        ({"x-amz-mp-object-size": ""}, "InvalidArgument"),
        ({"x-amz-mp-object-size": "9" * 5000}, "InvalidArgument"),
        ({"x-amz-mp-object-size": "٣"}, "InvalidArgument"),
    ],
)
def test_parse_expected_of_garbled_headers_is_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_expected(headers)
    assert caught.value.code == code


COMPOSITE = Checksum(algorithm="CRC32", value="AAAAAA==-2", composite=True)


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        (Expected(), None),
        (Expected(size=2), None),
        (Expected(size=3), "InvalidRequest"),
        (Expected(kind=ChecksumType.COMPOSITE), None),
        (Expected(kind=ChecksumType.FULL_OBJECT), "InvalidRequest"),
        (Expected(algorithm=ChecksumAlgorithm.CRC32, checksum="AAAAAA==-2"), None),
        (Expected(algorithm=ChecksumAlgorithm.CRC32, checksum="AAAAAA=="), None),
        (Expected(algorithm=ChecksumAlgorithm.CRC32, checksum="AAAAAA==-1"), "BadDigest"),
        (Expected(algorithm=ChecksumAlgorithm.CRC32, checksum="bad"), "BadDigest"),
        (Expected(algorithm=ChecksumAlgorithm.CRC32, checksum=""), "BadDigest"),
        (Expected(algorithm=ChecksumAlgorithm.SHA1, checksum="AAAAAA=="), "InvalidRequest"),
    ],
)
def test_check_expected_refuses_what_differs(expected: Expected, code: str | None) -> None:
    parts = [stored(1), stored(2)]
    if code is None:
        check_expected(expected, upload("CRC32", composite=True), parts, COMPOSITE)
        return
    with pytest.raises(S3Error) as caught:
        check_expected(expected, upload("CRC32", composite=True), parts, COMPOSITE)
    assert caught.value.code == code


def test_check_expected_of_an_object_without_checksum_refuses_a_checksum() -> None:
    expected = Expected(algorithm=ChecksumAlgorithm.CRC32, checksum=CRC_A)
    with pytest.raises(S3Error, match="expected checksum Type: null, actual"):
        check_expected(expected, upload(), [stored(1, value="")], None)
