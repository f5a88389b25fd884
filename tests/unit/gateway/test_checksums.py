"""Checksums: known answers, botocore's classes, what a head may declare, how parts combine."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Sequence

import pytest
from botocore.httpchecksum import (
    BaseChecksum,
    Crc32Checksum,
    CrtCrc32cChecksum,
    CrtCrc64NvmeChecksum,
    Sha1Checksum,
    Sha256Checksum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.checksums import (
    MULTIPART_TYPES,
    ChecksumAlgorithm,
    ChecksumType,
    DeclaredChecksum,
    Digests,
    combine_full_object,
    composite,
    declared_checksum,
    decode,
    encode,
    multipart_etag,
    parse_algorithm,
    parse_multipart_type,
)
from gateway.request_errors import ChecksumError
from tests.support.s3_signing import request_head

A = ChecksumAlgorithm
BOTOCORE: dict[ChecksumAlgorithm, type[BaseChecksum]] = {
    A.CRC32: Crc32Checksum,
    A.CRC32C: CrtCrc32cChecksum,
    A.CRC64NVME: CrtCrc64NvmeChecksum,
    A.SHA1: Sha1Checksum,
    A.SHA256: Sha256Checksum,
}
# The check values of the CRC catalogue for "123456789".
CHECK_VALUES = {A.CRC32: "cbf43926", A.CRC32C: "e3069283", A.CRC64NVME: "ae8b14860a799888"}
CRCS = [algorithm for algorithm in A if algorithm.is_crc]


def digests_of(data: bytes) -> Digests:
    digests = Digests(A, md5=True, sha256=True)
    digests.update(data)
    return digests


def declare(*headers: tuple[str, str]) -> DeclaredChecksum:
    return declared_checksum(request_head("PUT", "/b/k", headers))


def refuse(*headers: tuple[str, str]) -> ChecksumError:
    with pytest.raises(ChecksumError) as caught:
        declare(*headers)
    return caught.value


@pytest.mark.parametrize("algorithm", CRCS)
def test_digests_crc_check_value_matches(algorithm: ChecksumAlgorithm) -> None:
    digest = digests_of(b"123456789").checksum(algorithm)
    assert digest.hex() == CHECK_VALUES[algorithm]
    assert len(digest) == algorithm.size


@pytest.mark.parametrize("algorithm", A)
@pytest.mark.parametrize("size", [0, 1, 100, 70_000])
def test_digests_any_split_agrees_with_botocore(algorithm: ChecksumAlgorithm, size: int) -> None:
    rng = random.Random(size)
    data = rng.randbytes(size)
    oracle = BOTOCORE[algorithm]()
    oracle.update(data)
    digests = Digests([algorithm], md5=True, sha256=True)
    view = memoryview(data)
    while view:
        step = rng.randint(1, 9000)
        digests.update(view[:step])
        view = view[step:]
    assert digests.checksums() == {algorithm: oracle.b64digest()}
    assert digests.md5() == hashlib.md5(data).digest()
    assert digests.sha256() == hashlib.sha256(data).digest()
    assert digests.size == size


def test_digests_sha256_asked_twice_is_one_pass() -> None:
    digests = Digests([A.SHA256], md5=False, sha256=True)
    digests.update(b"abc")
    assert digests.sha256() == digests.checksum(A.SHA256) == hashlib.sha256(b"abc").digest()


def test_digests_not_asked_for_is_our_defect() -> None:
    digests = Digests(md5=False, sha256=False)
    digests.update(b"abc")
    with pytest.raises(ValueError):
        digests.md5()
    with pytest.raises(ValueError):
        digests.sha256()
    with pytest.raises(ValueError):
        digests.checksum(A.CRC32)
    assert digests.checksums() == {}


# --- declarations ------------------------------------------------------------------------------


def test_declared_nothing_checks_nothing() -> None:
    declared = declare(("x-amz-checksum-mode", "ENABLED"), ("x-amz-checksum-type", "COMPOSITE"))
    assert declared == DeclaredChecksum()
    declared.check(Digests(md5=False, sha256=False))


@pytest.mark.parametrize("algorithm", A)
def test_declared_value_matches_and_differs(algorithm: ChecksumAlgorithm) -> None:
    digests = digests_of(b"hello")
    right = digests.checksums()[algorithm]
    declared = declare((algorithm.header, right), ("x-amz-sdk-checksum-algorithm", algorithm.value))
    assert (declared.algorithm, declared.is_trailer) == (algorithm, False)
    declared.check(digests)
    with pytest.raises(ChecksumError) as caught:
        declared.check(digests_of(b"hellp"))
    assert caught.value.code == "BadDigest"


def test_declared_algorithm_only_has_no_value_to_hold() -> None:
    declared = declare(("x-amz-sdk-checksum-algorithm", "crc32c"))
    assert declared == DeclaredChecksum(algorithm=A.CRC32C)
    declared.check(digests_of(b"anything"))


def test_declared_md5_matches_and_differs() -> None:
    declared = declare(("content-md5", encode(hashlib.md5(b"hello").digest())))
    declared.check(digests_of(b"hello"))
    with pytest.raises(ChecksumError) as caught:
        declared.check(digests_of(b"hellp"))
    assert caught.value.code == "BadDigest"


def test_check_content_sha256_matches_and_differs() -> None:
    sha256 = hashlib.sha256(b"hello").hexdigest()
    DeclaredChecksum().check(digests_of(b"hello"), content_sha256=sha256)
    with pytest.raises(ChecksumError) as caught:
        DeclaredChecksum().check(digests_of(b"hellp"), content_sha256=sha256)
    assert caught.value.code == "XAmzContentSHA256Mismatch"
    assert caught.value.extra["ClientComputedContentSHA256"] == sha256


@pytest.mark.parametrize(
    "value", ["", "x", "AWS HAHAHA", "AAAA", "A" * 24, "rL0Y20zC+Fzt72VPzMSk2A", "é",
              "rL0Y20zC+Fzt72VPzMSk2A==\x00", "rL0Y20zC+Fzt72VPzMSk2A==x",
              "rL0Y20zC-Fzt72VPzMSk2A=="],
)  # fmt: skip
def test_declared_md5_garbled_refuses(value: str) -> None:
    """S41."""
    assert refuse(("content-md5", value)).code == "InvalidDigest"


def test_declared_md5_twice_refuses() -> None:
    md5 = encode(hashlib.md5(b"").digest())
    assert refuse(("content-md5", md5), ("content-md5", md5)).code == "InvalidDigest"


@pytest.mark.parametrize(
    "headers",
    [
        [("x-amz-checksum-crc32", "")],
        [("x-amz-checksum-crc32", "AAAA")],
        [("x-amz-checksum-crc32", "AAAAAA")],
        [("x-amz-checksum-crc32", "AAAAAA==-2")],
        [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32", "AAAAAA==")],
        [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")],
        [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-trailer", "x-amz-checksum-crc32")],
        [("x-amz-trailer", "x-amz-checksum-crc32,x-amz-checksum-sha1")],
        [("x-amz-trailer", "x-amz-checksum-crc31")],
        [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-sdk-checksum-algorithm", "SHA1")],
        [("x-amz-trailer", "x-amz-checksum-crc32"), ("x-amz-sdk-checksum-algorithm", "CRC32C")],
        [("x-amz-sdk-checksum-algorithm", "none")],
        [("x-amz-sdk-checksum-algorithm", "")],
        [("x-amz-checksum-xxhash64", "AAAAAAAAAAA=")],
        [("x-amz-checksum-", "AAAAAA==")],
    ],
)
def test_declared_garbled_or_contradictory_refuses(headers: Sequence[tuple[str, str]]) -> None:
    assert refuse(*headers).code == "InvalidRequest"


def test_declared_trailer_matches_differs_or_is_missing() -> None:
    """S8."""
    declared = declare(
        ("x-amz-trailer", "X-Amz-Checksum-CRC32"), ("x-amz-sdk-checksum-algorithm", "CRC32")
    )
    assert (declared.algorithm, declared.value, declared.is_trailer) == (A.CRC32, None, True)
    digests = digests_of(b"hello")
    declared.check(digests, trailer=digests.checksums()[A.CRC32])
    for trailer, code in (
        (None, "MalformedTrailerError"),
        ("AAAAAA==", "BadDigest"),
        ("AAAA", "InvalidRequest"),
    ):
        with pytest.raises(ChecksumError) as caught:
            declared.check(digests, trailer=trailer)
        assert caught.value.code == code


@settings(max_examples=300, deadline=None)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                ["content-md5", "x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-trailer",
                 "x-amz-sdk-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-zzz"]
            ),
            st.one_of(st.text(max_size=30), st.sampled_from(["CRC32", "AAAAAA==", A.CRC32.header])),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_declared_fuzzed_head_is_read_or_refused(headers: list[tuple[str, str]]) -> None:
    try:
        declared = declare(*headers)
    except ChecksumError as error:
        assert error.code in ("InvalidDigest", "InvalidRequest")
        return
    assert declared.value is None or len(declared.value) == 4


# --- parts -------------------------------------------------------------------------------------


def test_composite_of_sha1_is_the_hash_of_hashes() -> None:
    parts = [hashlib.sha1(data).digest() for data in (b"one", b"two", b"three")]
    expected = base64.b64encode(hashlib.sha1(b"".join(parts)).digest()).decode()
    assert composite(A.SHA1, parts) == f"{expected}-3"


@pytest.mark.parametrize("parts", [[], [b"short"], [bytes(4), bytes(5)]])
def test_composite_of_wrong_digests_is_our_defect(parts: list[bytes]) -> None:
    with pytest.raises(ValueError):
        composite(A.CRC32, parts)


@pytest.mark.parametrize("algorithm", CRCS)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(max_size=3000), max_size=6))
def test_combine_full_object_equals_one_pass(
    algorithm: ChecksumAlgorithm, parts: list[bytes]
) -> None:
    combined = combine_full_object(
        algorithm, [(digests_of(part).checksum(algorithm), len(part)) for part in parts]
    )
    assert combined == digests_of(b"".join(parts)).checksum(algorithm)


@pytest.mark.parametrize("algorithm", [A.SHA1, A.SHA256])
def test_combine_full_object_of_a_hash_is_our_defect(algorithm: ChecksumAlgorithm) -> None:
    with pytest.raises(ValueError):
        combine_full_object(algorithm, [])


def test_multipart_etag_is_the_md5_of_md5s() -> None:
    md5s = [hashlib.md5(b"a").digest(), hashlib.md5(b"b").digest()]
    assert multipart_etag(md5s) == hashlib.md5(md5s[0] + md5s[1]).hexdigest() + "-2"


@pytest.mark.parametrize("algorithm", A)
@pytest.mark.parametrize("kind", ChecksumType)
def test_parse_multipart_type_follows_the_matrix(
    algorithm: ChecksumAlgorithm, kind: ChecksumType
) -> None:
    if kind in MULTIPART_TYPES[algorithm]:
        assert parse_multipart_type(algorithm, kind.value) is kind
        return
    with pytest.raises(ChecksumError) as caught:
        parse_multipart_type(algorithm, kind.value)
    assert caught.value.code == "InvalidRequest"


def test_parse_multipart_type_default_and_garbled() -> None:
    assert parse_multipart_type(A.CRC32, None) is ChecksumType.COMPOSITE
    assert parse_multipart_type(A.CRC64NVME, None) is ChecksumType.FULL_OBJECT
    for value in ("", "FULL", "é"):
        with pytest.raises(ChecksumError):
            parse_multipart_type(A.CRC32, value)


def test_parse_algorithm_any_case_or_refuses() -> None:
    assert parse_algorithm("crc64nvme", "h") is A.CRC64NVME
    for name in ("", "MD5", "crc32 ", "\u017fha1"):
        with pytest.raises(ChecksumError):
            parse_algorithm(name, "h")


def test_decode_wrong_length_refuses() -> None:
    assert decode(A.CRC32, encode(bytes(4)), "h") == bytes(4)
    for text in (encode(bytes(3)), encode(bytes(5)), "", "===="):
        with pytest.raises(ChecksumError):
            decode(A.CRC32, text, "h")
