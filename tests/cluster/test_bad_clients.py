"""Clients that leave, lie or stall leave nothing behind (FAULTS rows 10, 11; SECURITY S7-S11).

No object becomes visible, an object that was there stays as it was, no blob file stays on any
node, and nothing is answered by 500.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import keys, new_bucket, put, read
from tests.support.census import blob_files, wait_for_no_new_files
from tests.support.clients import Target, boto3_client
from tests.support.cluster import Cluster
from tests.support.rawhttp import (
    SIGNED_CHUNKS,
    UNSIGNED_TRAILER,
    Answer,
    Signed,
    chunk_signer,
    connection,
    exchange,
    sign,
)
from tests.support.s3_signing import sign_chunks

KIB = 1024
SMALL = bytes(range(256)) * 8  # travels inside the command
LARGE = bytes(range(256)) * (3 * 4 * KIB)  # 3 MiB: chunks on the nodes
PIECE = 64 * KIB
STALL_SECONDS_MAX = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One key to spoil, and what was there before."""

    target: Target
    path: str


Spoil = Callable[[Place], Answer | None]


def _leave_with_content_length(place: Place) -> None:
    head = sign(place.target, "PUT", place.path, {"Content-Length": str(len(LARGE))})
    with connection(place.target) as made:
        made.send(head.encode() + LARGE[: 2 * len(LARGE) // 3])


def _leave_by_reset(place: Place) -> None:
    head = sign(place.target, "PUT", place.path, {"Content-Length": str(len(LARGE))})
    with connection(place.target) as made:
        made.send(head.encode() + LARGE[:-1])
        made.reset()


def _leave_in_signed_chunks(place: Place) -> None:
    head, body = _chunked(place, LARGE)
    with connection(place.target) as made:
        made.send(head.encode() + body[: len(body) // 2])


def _leave_in_unsigned_chunks(place: Place) -> None:
    head, body = _with_trailer(place, LARGE, "AAAAAA==")
    with connection(place.target) as made:
        made.send(head.encode() + body[: len(body) // 2])


def _half_close_before_the_last_chunk(place: Place) -> Answer:
    head, body = _chunked(place, LARGE)
    with connection(place.target) as made:
        made.send(head.encode() + body[:-90])
        made.socket.shutdown(1)
        return made.answer()


def _wrong_md5(place: Place) -> Answer:
    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    return _put(place, LARGE, {"Content-MD5": md5})


def _garbled_md5(place: Place) -> Answer:
    return _put(place, LARGE, {"Content-MD5": "no digest at all"})


def _wrong_crc32(place: Place) -> Answer:
    return _put(place, LARGE, {"x-amz-checksum-crc32": "AAAAAA=="})


def _wrong_crc32_small(place: Place) -> Answer:
    return _put(place, SMALL, {"x-amz-checksum-crc32": "AAAAAA=="})


def _wrong_sha256(place: Place) -> Answer:
    headers = {"Content-Length": str(len(LARGE))}
    sha256 = hashlib.sha256(b"other").hexdigest()
    head = sign(place.target, "PUT", place.path, headers, content_sha256=sha256)
    return exchange(place.target, head.encode() + LARGE)


def _wrong_trailer(place: Place) -> Answer:
    head, body = _with_trailer(place, LARGE, "AAAAAA==")
    return exchange(place.target, head.encode() + body)


def _missing_trailer(place: Place) -> Answer:
    head, body = _with_trailer(place, LARGE, "AAAAAA==")
    return exchange(place.target, head.encode() + body.partition(b"x-amz-checksum")[0] + b"\r\n")


def _bad_chunk_signature(place: Place) -> Answer:
    head, body = _chunked(place, LARGE)
    middle = body.index(b"chunk-signature=", len(body) // 2) + 20
    flipped = b"1" if body[middle : middle + 1] == b"0" else b"0"  # still a hex digit
    return exchange(place.target, head.encode() + body[:middle] + flipped + body[middle + 1 :])


def _swapped_chunks(place: Place) -> Answer:
    head, body = _chunked(place, LARGE)
    size = len(body[: body.index(b"\r\n")]) + 2 + PIECE + 2
    return exchange(
        place.target, head.encode() + body[size : 2 * size] + body[:size] + body[2 * size :]
    )


def _altered_last_byte(place: Place) -> Answer:
    head, body = _chunked(place, LARGE)
    end = body.rindex(b"0;chunk-signature") - 3
    changed = body[:end] + bytes([body[end] ^ 1]) + body[end + 1 :]
    return exchange(place.target, head.encode() + changed)


def _decoded_length_too_large(place: Place) -> Answer:
    head, body = _chunked(place, LARGE, declared=len(LARGE) + 1)
    return exchange(place.target, head.encode() + body)


def _decoded_length_too_small(place: Place) -> Answer:
    head, body = _chunked(place, LARGE, declared=len(LARGE) - 1)
    return exchange(place.target, head.encode() + body)


def _put(place: Place, body: bytes, headers: dict[str, str]) -> Answer:
    head = sign(place.target, "PUT", place.path, {"Content-Length": str(len(body)), **headers})
    return exchange(place.target, head.encode() + body)


def _chunked(place: Place, body: bytes, declared: int | None = None) -> tuple[Signed, bytes]:
    """A head for signed chunks and the body that belongs to it."""
    pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]
    size = sum(len(f"{len(piece):x};chunk-signature=") + 64 + 4 + len(piece) for piece in pieces)
    headers = {
        "Content-Encoding": "aws-chunked",
        "Content-Length": str(size + len("0;chunk-signature=") + 64 + 4),
        "x-amz-decoded-content-length": str(len(body) if declared is None else declared),
    }
    head = sign(place.target, "PUT", place.path, headers, content_sha256=SIGNED_CHUNKS)
    return head, sign_chunks(pieces, chunk_signer(place.target, head))


def _with_trailer(place: Place, body: bytes, crc32: str) -> tuple[Signed, bytes]:
    encoded = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n"
    encoded += f"x-amz-checksum-crc32:{crc32}\r\n\r\n".encode()
    headers = {
        "Content-Encoding": "aws-chunked",
        "Content-Length": str(len(encoded)),
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    head = sign(place.target, "PUT", place.path, headers, content_sha256=UNSIGNED_TRAILER)
    return head, encoded


LEAVERS: dict[str, Spoil] = {
    "leaves in the body": _leave_with_content_length,
    "resets before the last byte": _leave_by_reset,
    "leaves in signed chunks": _leave_in_signed_chunks,
    "leaves in unsigned chunks": _leave_in_unsigned_chunks,
}
LIARS: dict[str, tuple[Spoil, str]] = {
    "half-closes before the last chunk": (_half_close_before_the_last_chunk, ""),
    "wrong Content-MD5": (_wrong_md5, "BadDigest"),
    "garbled Content-MD5": (_garbled_md5, "InvalidDigest"),
    "wrong CRC32": (_wrong_crc32, "BadDigest"),
    "wrong CRC32, small": (_wrong_crc32_small, "BadDigest"),
    "wrong SHA256": (_wrong_sha256, "XAmzContentSHA256Mismatch"),
    "wrong trailer": (_wrong_trailer, "BadDigest"),
    "no trailer": (_missing_trailer, ""),
    "bad chunk signature": (_bad_chunk_signature, "SignatureDoesNotMatch"),
    "swapped chunks": (_swapped_chunks, "SignatureDoesNotMatch"),
    "altered last byte": (_altered_last_byte, "SignatureDoesNotMatch"),
    "decoded length too large": (_decoded_length_too_large, "IncompleteBody"),
    "decoded length too small": (_decoded_length_too_small, "IncompleteBody"),
}


def test_bodies_built_here_are_right_when_nothing_is_spoiled(
    cluster: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "bad")
    place = Place(target=cluster.target, path=f"/{bucket}/good")
    head, body = _chunked(place, LARGE)
    assert exchange(place.target, head.encode() + body).status == 200
    assert read(s3, bucket, "good") == LARGE
    crc32 = base64.b64encode(zlib.crc32(LARGE).to_bytes(4, "big")).decode()
    head, body = _with_trailer(place, LARGE, crc32)
    assert exchange(place.target, head.encode() + body).status == 200


@pytest.mark.parametrize("what", LIARS)
def test_a_liar_is_refused_and_leaves_nothing(cluster: Cluster, s3: S3Client, what: str) -> None:
    spoil, code = LIARS[what]
    bucket = new_bucket(s3, "bad")
    put(s3, bucket, "old", b"as it was")
    before = blob_files(cluster)
    for key in ("new", "old"):
        answer = spoil(Place(target=cluster.target, path=f"/{bucket}/{key}"))
        assert answer is not None
        assert answer.status == 0 or 400 <= answer.status < 500, answer
        assert answer.code == code or not code, answer
    _assert_nothing_happened(cluster, s3, bucket, before)


@pytest.mark.parametrize("what", LEAVERS)
def test_who_leaves_in_the_middle_leaves_nothing(cluster: Cluster, s3: S3Client, what: str) -> None:
    bucket = new_bucket(s3, "bad")
    put(s3, bucket, "old", b"as it was")
    before = blob_files(cluster)
    for key in ("new", "old"):
        LEAVERS[what](Place(target=cluster.target, path=f"/{bucket}/{key}"))
    _assert_nothing_happened(cluster, s3, bucket, before)


def test_a_bad_part_leaves_nothing_and_the_upload_goes_on(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3, "bad")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="mp")["UploadId"]
    before = blob_files(cluster)
    path = f"/{bucket}/mp?partNumber=1&uploadId={upload}"
    answer = _bad_chunk_signature(Place(target=cluster.target, path=path))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    _leave_with_content_length(Place(target=cluster.target, path=path))
    wait_for_no_new_files(cluster, before)
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="mp", UploadId=upload)
    s3.upload_part(Bucket=bucket, Key="mp", UploadId=upload, PartNumber=1, Body=LARGE)
    s3.abort_multipart_upload(Bucket=bucket, Key="mp", UploadId=upload)


def test_a_client_that_stalls_is_cut_off_and_others_are_served(embedded_cluster: Cluster) -> None:
    target = embedded_cluster.target
    s3 = boto3_client(target)
    bucket = new_bucket(s3, "bad")
    before = blob_files(embedded_cluster)
    head = sign(target, "PUT", f"/{bucket}/new", {"Content-Length": str(len(LARGE))})
    with connection(target) as in_head, connection(target) as in_body:
        in_head.send(b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\n")
        in_body.send(head.encode() + LARGE[: len(LARGE) // 2])
        put(s3, bucket, "old", b"as it was")
        assert read(s3, bucket, "old") == b"as it was"
        assert in_head.answer(timeout=STALL_SECONDS_MAX).status in (0, 400, 408)
        answer = in_body.answer(timeout=STALL_SECONDS_MAX)
        assert (answer.status, answer.code) in ((0, ""), (400, "RequestTimeout"))
    _assert_nothing_happened(embedded_cluster, s3, bucket, before)
    s3.close()


def _assert_nothing_happened(cluster: Cluster, s3: S3Client, bucket: str, before: set[str]) -> None:
    wait_for_no_new_files(cluster, before)
    assert keys(s3, bucket) == ["old"]
    assert read(s3, bucket, "old") == b"as it was"
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="new")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
