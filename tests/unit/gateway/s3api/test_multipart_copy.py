"""UploadPartCopy: when the digests of a range are known without reading it."""

import pytest

from astra.model import Checksum, ObjectVersion, Part, Versioning
from astra.wire import Located
from gateway.s3api.multipart_copy import find_known

CRC = Checksum(algorithm="CRC32", value="AAAAAA==")
MD5 = "0123456789abcdef" * 2


def located(*parts: Part, etag: str = MD5, size: int = 30, checksum: Checksum = CRC) -> Located:
    version = ObjectVersion(
        version_id="null",
        order=1024,
        modified_ms=0,
        owner_id="ann",
        size=size,
        etag=etag,
        checksum=checksum,
        part_count=len(parts),
    )
    return Located(version=version, versioning=Versioning.OFF, parts=parts)


def part(number: int, size: int) -> Part:
    return Part(number=number, size=size, etag=f"{number:032x}", extents=(), checksum=CRC)


PARTS = (part(1, 10), part(2, 20))


@pytest.mark.parametrize("algorithm", ["", "CRC32"])
def test_the_whole_of_a_plain_object_is_known(algorithm: str) -> None:
    known = find_known(located(), 0, 30, algorithm)
    assert known is not None
    assert (known.etag, known.checksum) == (MD5, CRC)


@pytest.mark.parametrize(("offset", "length", "number"), [(0, 10, 1), (10, 20, 2)])
def test_exactly_one_part_is_known(offset: int, length: int, number: int) -> None:
    known = find_known(located(*PARTS, etag=f"{MD5}-2"), offset, length, "CRC32")
    assert known is not None
    assert known.etag == f"{number:032x}"
    assert (known.offset, known.length) == (offset, length)


@pytest.mark.parametrize(("offset", "length"), [(0, 29), (1, 29), (0, 0), (10, 20)])
def test_a_range_of_a_plain_object_is_not_known(offset: int, length: int) -> None:
    assert find_known(located(), offset, length, "") is None


@pytest.mark.parametrize(("offset", "length"), [(0, 30), (0, 11), (1, 10), (9, 20), (10, 19)])
def test_a_range_that_is_not_one_part_is_not_known(offset: int, length: int) -> None:
    assert find_known(located(*PARTS, etag=f"{MD5}-2"), offset, length, "") is None


def test_another_algorithm_is_not_known() -> None:
    assert find_known(located(), 0, 30, "SHA256") is None


def test_a_composite_checksum_is_no_checksum_of_the_bytes() -> None:
    composite = Checksum(algorithm="CRC32", value="AAAAAA==-2", composite=True)
    source = located(checksum=composite)
    assert find_known(source, 0, 30, "CRC32") is None
    known = find_known(source, 0, 30, "")
    assert known is not None
    assert known.checksum is None


def test_an_etag_that_is_no_md5_is_not_known() -> None:
    assert find_known(located(etag="not-an-md5"), 0, 30, "") is None
