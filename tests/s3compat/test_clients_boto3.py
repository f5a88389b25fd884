"""boto3 as people use it: default checksums, managed transfers, paginators, presigned URLs."""

import hashlib
import urllib.request
from pathlib import Path

from botocore.config import Config
from mypy_boto3_s3 import S3Client

from tests.support.buckets import keys, new_bucket, put, read
from tests.support.clients import boto3_client
from tests.support.cluster import Cluster
from tests.support.files import MIB, make_file, same_file


def test_put_and_get_with_default_checksums_return_the_same_bytes(s3: S3Client) -> None:
    bucket = new_bucket(s3)
    for size in (0, 1, 4096, 65_536, 65_537, MIB, 3 * MIB + 1):
        body = bytes(index % 251 for index in range(size))
        done = s3.put_object(Bucket=bucket, Key=f"size-{size}", Body=body)
        assert done["ETag"].strip('"') == hashlib.md5(body).hexdigest()
        assert done["ChecksumCRC32"]
        found = s3.get_object(Bucket=bucket, Key=f"size-{size}", ChecksumMode="ENABLED")
        assert found["ChecksumCRC32"] == done["ChecksumCRC32"]
        assert found["ContentLength"] == size
        assert found["Body"].read() == body


def test_upload_file_and_download_file_of_200_mb_keep_every_byte(
    s3: S3Client, tmp_path: Path
) -> None:
    bucket = new_bucket(s3)
    source = make_file(tmp_path / "source", 200_000_000)
    s3.upload_file(str(source), bucket, "large", ExtraArgs={"Metadata": {"who": "test"}})
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ContentLength"] == 200_000_000
    assert head["Metadata"] == {"who": "test"}
    assert head["ETag"].endswith('-24"')  # 8 MiB parts
    s3.download_file(bucket, "large", str(tmp_path / "copy"))
    assert same_file(source, tmp_path / "copy")


def test_paginators_return_every_key_once_and_in_order(s3: S3Client) -> None:
    bucket = new_bucket(s3)
    names = sorted(f"{number % 3}/{number:03d}" for number in range(45))
    for name in names:
        put(s3, bucket, name, name.encode())
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 7}
    )
    listed = [[item["Key"] for item in page["Contents"]] for page in pages]
    assert [len(page) for page in listed] == [7, 7, 7, 7, 7, 7, 3]
    assert [name for page in listed for name in page] == names
    first = s3.get_paginator("list_objects").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}
    )
    prefixes = [item["Prefix"] for page in first for item in page.get("CommonPrefixes", [])]
    assert prefixes == ["0/", "1/", "2/"]


def test_presigned_put_and_get_work_by_plain_http(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3)
    # Without this, boto3 presigns by SigV2 in us-east-1, which is refused (SECURITY S16).
    v4 = boto3_client(cluster.target, Config(signature_version="s3v4"))
    put_url = v4.generate_presigned_url(
        "put_object", Params={"Bucket": bucket, "Key": "a b/ü+.txt"}, ExpiresIn=60
    )
    body = b"by plain http" * 10_000
    request = urllib.request.Request(put_url, data=body, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    assert read(s3, bucket, "a b/ü+.txt") == body
    get_url = v4.generate_presigned_url(
        "get_object",
        Params={
            "Bucket": bucket,
            "Key": "a b/ü+.txt",
            "ResponseContentType": "text/x-other",
            "ResponseContentDisposition": 'attachment; filename="x y.txt"',
        },
        ExpiresIn=60,
    )
    v4.close()
    with urllib.request.urlopen(get_url, timeout=30) as answer:
        assert answer.headers["content-type"] == "text/x-other"
        assert answer.headers["content-disposition"] == 'attachment; filename="x y.txt"'
        assert answer.read() == body


def test_delete_objects_in_one_request_removes_all_of_them(s3: S3Client) -> None:
    bucket = new_bucket(s3)
    names = [f"k{number}" for number in range(20)]
    for name in names:
        put(s3, bucket, name, b"x")
    done = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": name} for name in names[:19]]}
    )
    assert sorted(item["Key"] for item in done["Deleted"]) == sorted(names[:19])
    assert keys(s3, bucket) == ["k19"]
    s3.delete_object(Bucket=bucket, Key="k19")
    s3.delete_bucket(Bucket=bucket)
