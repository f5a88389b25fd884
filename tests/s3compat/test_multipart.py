"""Multipart uploads over HTTP: parts, their order and replacement, their end, listings."""

import hashlib
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

import pytest
from botocore.config import Config
from mypy_boto3_s3 import S3Client
from mypy_boto3_s3.type_defs import CompletedPartTypeDef

from tests.support.census import blob_files
from tests.support.clients import boto3_client
from tests.support.cluster import Cluster
from tests.support.s3 import answer, enable_versioning, make_user, refused

MIB = 1 << 20
FULL_PART = os.urandom(5 * MIB)
TAIL = b"the last part may be small"


def begin(s3: S3Client, bucket: str, key: str = "key") -> str:
    return s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]


def send(
    s3: S3Client, bucket: str, upload_id: str, number: int, body: bytes, key: str = "key"
) -> CompletedPartTypeDef:
    sent = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body)
    assert sent["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    return {"PartNumber": number, "ETag": sent["ETag"]}


def end(
    s3: S3Client, bucket: str, upload_id: str, *parts: CompletedPartTypeDef, key: str = "key"
) -> str:
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": list(parts)}
    )
    return done["ETag"]


def etag_of(*bodies: bytes) -> str:
    joined = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
    return f'"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(bodies)}"'


def etag_of_bytes(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def test_parts_out_of_order_become_one_object_in_order(s3: S3Client, bucket: str) -> None:
    started = s3.create_multipart_upload(
        Bucket=bucket,
        Key="dir/a key+%41",
        ContentType="text/x-test",
        Metadata={"color": "blue"},
        Tagging="team=a",
        StorageClass="STANDARD_IA",
    )
    key, upload_id = started["Key"], started["UploadId"]
    assert key == "dir/a key+%41"
    last = send(s3, bucket, upload_id, 7, TAIL, key)
    first = send(s3, bucket, upload_id, 3, FULL_PART, key)
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": [first, last]}
    )
    assert done["ETag"] == etag_of(FULL_PART, TAIL)
    assert done["Bucket"] == bucket
    assert done["Key"] == key
    assert done["Location"].endswith(f"/{bucket}/dir/a%20key%2B%2541")
    found = s3.get_object(Bucket=bucket, Key=key)
    assert found["Body"].read() == FULL_PART + TAIL
    assert found["ETag"] == done["ETag"]
    assert found["ContentType"] == "text/x-test"
    assert found["Metadata"] == {"color": "blue"}
    assert found["StorageClass"] == "STANDARD_IA"
    assert found["TagCount"] == 1
    across = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={5 * MIB - 2}-{5 * MIB + 2}")
    assert across["Body"].read() == FULL_PART[-2:] + TAIL[:3]
    second = s3.get_object(Bucket=bucket, Key=key, PartNumber=2)
    assert second["Body"].read() == TAIL
    assert second["PartsCount"] == 2


def test_complete_with_a_part_that_was_not_sent_is_invalid_part(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    sent = send(s3, bucket, upload_id, 1, TAIL)
    missing: CompletedPartTypeDef = {"PartNumber": 2, "ETag": sent["ETag"]}
    assert answer(lambda: end(s3, bucket, upload_id, sent, missing)) == (400, "InvalidPart")
    assert end(s3, bucket, upload_id, sent) == etag_of(TAIL)


def test_complete_with_a_wrong_etag_is_invalid_part(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    send(s3, bucket, upload_id, 1, TAIL)
    wrong: CompletedPartTypeDef = {"PartNumber": 1, "ETag": '"' + "f" * 32 + '"'}
    assert answer(lambda: end(s3, bucket, upload_id, wrong)) == (400, "InvalidPart")
    assert answer(lambda: s3.head_object(Bucket=bucket, Key="key"))[0] == 404


def test_complete_with_parts_in_wrong_order_is_invalid_part_order(
    s3: S3Client, bucket: str
) -> None:
    upload_id = begin(s3, bucket)
    one = send(s3, bucket, upload_id, 1, TAIL)
    two = send(s3, bucket, upload_id, 2, TAIL)
    for parts in ((two, one), (one, one)):
        found = answer(partial(end, s3, bucket, upload_id, *parts))
        assert found == (400, "InvalidPartOrder")


def test_complete_with_a_small_part_in_the_middle_is_entity_too_small(
    s3: S3Client, bucket: str
) -> None:
    upload_id = begin(s3, bucket)
    small = send(s3, bucket, upload_id, 1, FULL_PART[:-1])
    last = send(s3, bucket, upload_id, 2, TAIL)
    assert answer(lambda: end(s3, bucket, upload_id, small, last)) == (400, "EntityTooSmall")


def test_complete_without_parts_is_malformed_xml(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    assert answer(lambda: end(s3, bucket, upload_id)) == (400, "MalformedXML")
    found = answer(
        lambda: s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload_id)
    )
    assert found == (400, "MalformedXML")


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_part_number_out_of_bounds_is_invalid_argument(
    s3: S3Client, bucket: str, number: int
) -> None:
    upload_id = begin(s3, bucket)
    found = answer(
        lambda: s3.upload_part(
            Bucket=bucket, Key="key", UploadId=upload_id, PartNumber=number, Body=b"x"
        )
    )
    assert found == (400, "InvalidArgument")


def test_part_number_10000_is_a_part(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 10_000, TAIL)
    assert end(s3, bucket, upload_id, part) == etag_of(TAIL)


def test_part_sent_again_replaces_the_first(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    old = send(s3, bucket, upload_id, 1, FULL_PART)
    new = send(s3, bucket, upload_id, 1, FULL_PART[::-1])
    listed = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload_id)["Parts"]
    assert [part["ETag"] for part in listed] == [new["ETag"]]
    assert answer(lambda: end(s3, bucket, upload_id, old)) == (400, "InvalidPart")
    end(s3, bucket, upload_id, new)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == FULL_PART[::-1]


def test_parts_that_are_not_named_are_not_in_the_object(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    send(s3, bucket, upload_id, 1, FULL_PART)
    two = send(s3, bucket, upload_id, 2, TAIL)
    end(s3, bucket, upload_id, two)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == TAIL


def test_empty_part_makes_an_empty_object(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, b"")
    end(s3, bucket, upload_id, part)
    found = s3.get_object(Bucket=bucket, Key="key")
    assert found["ContentLength"] == 0
    assert found["ETag"] == etag_of(b"")


def test_aborted_upload_is_gone_with_its_parts(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)
    s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload_id)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    gone = (404, "NoSuchUpload")
    for call in (
        lambda: s3.list_parts(Bucket=bucket, Key="key", UploadId=upload_id),
        lambda: s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload_id),
        lambda: send(s3, bucket, upload_id, 1, TAIL),
        lambda: send(s3, bucket, upload_id, 1, FULL_PART),
        lambda: end(s3, bucket, upload_id, part),
    ):
        assert answer(call) == gone
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize("upload_id", ["56788", "0" * 32, "é\x01", "a" * 600])
def test_upload_id_that_never_was_is_no_such_upload(
    s3: S3Client, bucket: str, upload_id: str
) -> None:
    found = answer(lambda: s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload_id))
    assert found == (404, "NoSuchUpload")


def test_upload_of_another_key_is_no_such_upload(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    found = answer(lambda: send(s3, bucket, upload_id, 1, TAIL, key="other"))
    assert found == (404, "NoSuchUpload")


def test_completed_upload_answers_the_same_again(s3: S3Client, bucket: str) -> None:
    enable_versioning(s3, bucket)
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)
    answers = [
        s3.complete_multipart_upload(
            Bucket=bucket, Key="key", UploadId=upload_id, MultipartUpload={"Parts": [part]}
        )
        for _ in range(2)
    ]
    assert answers[0]["ETag"] == answers[1]["ETag"] == etag_of(TAIL)
    assert answers[0]["VersionId"] == answers[1]["VersionId"]
    assert answers[0]["ChecksumCRC32"] == answers[1]["ChecksumCRC32"]
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 1


def test_concurrent_completes_make_one_version(s3: S3Client, bucket: str) -> None:
    enable_versioning(s3, bucket)
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)
    with ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(end, s3, bucket, upload_id, part) for _ in range(6)]
        etags = {run.result() for run in runs}
    assert etags == {etag_of(TAIL)}
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 1


def test_complete_overwrites_the_object_of_that_key(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"old")
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"old"
    end(s3, bucket, upload_id, part)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == TAIL


def test_complete_with_the_wrong_size_is_invalid_request(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)

    def complete(size: int) -> str:
        return s3.complete_multipart_upload(
            Bucket=bucket,
            Key="key",
            UploadId=upload_id,
            MultipartUpload={"Parts": [part]},
            MpuObjectSize=size,
        )["ETag"]

    found = refused(lambda: complete(len(TAIL) + 1))
    assert (found.status, found.code) == (400, "InvalidRequest")
    assert "x-amz-mp-object-size" in found.message
    assert complete(len(TAIL)) == etag_of(TAIL)


def test_bucket_deleted_with_a_running_upload_takes_it_along(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    part = send(s3, bucket, upload_id, 1, TAIL)
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert answer(lambda: end(s3, bucket, upload_id, part)) == (404, "NoSuchUpload")


# --- listings --------------------------------------------------------------------------------


def test_list_parts_pages_by_number(s3: S3Client, bucket: str) -> None:
    upload_id = begin(s3, bucket)
    for number in (2, 4, 6, 10_000):
        send(s3, bucket, upload_id, number, TAIL[:number])
    first = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload_id, MaxParts=3)
    assert [part["PartNumber"] for part in first["Parts"]] == [2, 4, 6]
    assert [part["Size"] for part in first["Parts"]] == [2, 4, 6]
    assert first["IsTruncated"]
    assert first["MaxParts"] == 3
    assert first["NextPartNumberMarker"] == 6
    second = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload_id, PartNumberMarker=6)
    assert [part["PartNumber"] for part in second["Parts"]] == [10_000]
    assert not second["IsTruncated"]
    assert second["PartNumberMarker"] == 6
    assert second["StorageClass"] == "STANDARD"
    assert second["Owner"]["ID"] == second["Initiator"]["ID"] == s3.list_buckets()["Owner"]["ID"]
    empty = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload_id, MaxParts=0)
    assert "Parts" not in empty
    assert not empty["IsTruncated"]


def test_list_multipart_uploads_pages_through_all(s3: S3Client, bucket: str) -> None:
    keys = ["a", "a", "b/1", "b/2", "c d", "é"]
    started = sorted((key, begin(s3, bucket, key)) for key in keys)
    for size in (1, 2, 1000):
        pages = s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size}
        )
        found = [
            (upload["Key"], upload["UploadId"])
            for page in pages
            for upload in page.get("Uploads", [])
        ]
        assert found == started, size


def test_list_multipart_uploads_folds_prefixes(s3: S3Client, bucket: str) -> None:
    for key in ("a", "b/1", "b/2", "c/1"):
        begin(s3, bucket, key)
    found = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", EncodingType="url")
    assert [upload["Key"] for upload in found["Uploads"]] == ["a"]
    assert [item["Prefix"] for item in found["CommonPrefixes"]] == ["b/", "c/"]
    below = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
    assert [upload["Key"] for upload in below["Uploads"]] == ["b/1", "b/2"]
    first = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", MaxUploads=2)
    assert first["IsTruncated"]
    assert first["NextKeyMarker"] == "b/"
    rest = s3.list_multipart_uploads(
        Bucket=bucket,
        Delimiter="/",
        KeyMarker=first["NextKeyMarker"],
        UploadIdMarker=first["NextUploadIdMarker"],
    )
    assert [item["Prefix"] for item in rest["CommonPrefixes"]] == ["c/"]
    assert not rest["IsTruncated"]


def test_uploads_of_others_are_denied(cluster: Cluster, s3: S3Client, bucket: str) -> None:
    _, stranger = make_user(cluster)
    upload_id = begin(s3, bucket)
    for call in (
        lambda: begin(stranger, bucket),
        lambda: send(stranger, bucket, upload_id, 1, TAIL),
        lambda: stranger.list_parts(Bucket=bucket, Key="key", UploadId=upload_id),
        lambda: stranger.list_multipart_uploads(Bucket=bucket),
        lambda: stranger.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload_id),
    ):
        assert answer(call) == (403, "AccessDenied")


# --- as clients do it ------------------------------------------------------------------------


def test_upload_file_of_30_mb_with_default_checksums_comes_back(s3: S3Client, bucket: str) -> None:
    data = os.urandom(30 * 1000 * 1000)
    s3.upload_fileobj(BytesIO(data), bucket, "file")
    head = s3.head_object(Bucket=bucket, Key="file", ChecksumMode="ENABLED")
    assert head["ContentLength"] == len(data)
    assert head["ETag"].endswith('-4"')
    assert "ChecksumCRC32" in head
    received = BytesIO()
    s3.download_fileobj(bucket, "file", received)
    assert received.getvalue() == data


def test_presigned_upload_part_takes_a_plain_put(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    upload_id = begin(s3, bucket)
    signer = boto3_client(cluster.target, Config(signature_version="s3v4"))
    url = signer.generate_presigned_url(
        "upload_part",
        Params={"Bucket": bucket, "Key": "key", "UploadId": upload_id, "PartNumber": 1},
    )
    put = urllib.request.Request(url, data=FULL_PART, method="PUT")
    with urllib.request.urlopen(put, timeout=60) as done:
        etag = done.headers["ETag"]
    end(s3, bucket, upload_id, {"PartNumber": 1, "ETag": etag})
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == FULL_PART


def test_no_part_is_kept_inline_however_small(cluster: Cluster, s3: S3Client, bucket: str) -> None:
    """Inline bytes travel with the answer where an object is: once seventy appended pieces made
    an object that could not be read any more."""
    s3.put_object(Bucket=bucket, Key="small", Body=TAIL)
    before = blob_files(cluster)
    upload_id = begin(s3, bucket)
    send(s3, bucket, upload_id, 1, TAIL)
    sent = blob_files(cluster) - before
    copied = s3.upload_part_copy(
        Bucket=bucket, Key="key", UploadId=upload_id, PartNumber=2,
        CopySource=f"{bucket}/small", CopySourceRange="bytes=4-7",
    )["CopyPartResult"]  # fmt: skip
    assert copied["ETag"] == etag_of_bytes(TAIL[4:8])
    assert sent
    assert blob_files(cluster) - before - sent
    end(s3, bucket, upload_id, {"PartNumber": 2, "ETag": copied["ETag"]})
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == TAIL[4:8]
