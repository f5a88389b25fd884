"""Objects whose sizes lie at the borders of inline bytes, chunks and stripes (FAULTS row 69).

A gateway and its nodes in this process: whole, by ranges around each border, as a part, as a copy.
"""

import asyncio
import random
from pathlib import Path

import pytest
from mypy_boto3_s3 import S3Client

from astra.constants import CHUNK_SIZE, INLINE_BYTES_DEFAULT
from gateway.blob_read import STRIPE_BYTES
from tests.support.buckets import read
from tests.support.clients import boto3_client
from tests.support.gateway import LocalGateway
from tests.support.nodes import LocalNodes

BORDERS = (0, INLINE_BYTES_DEFAULT, CHUNK_SIZE, STRIPE_BYTES)
SIZES = sorted({max(0, border + step) for border in BORDERS for step in (-1, 0, 1)})
LARGEST = random.Random("border sizes").randbytes(max(SIZES))


async def test_sizes_at_every_border_are_exact(tmp_path: Path) -> None:
    async with LocalNodes(tmp_path) as nodes, LocalGateway(nodes) as gate:
        await nodes.all_know_each_other()
        await asyncio.to_thread(check, gate)


def check(gate: LocalGateway) -> None:
    s3 = boto3_client(gate.target)
    s3.create_bucket(Bucket="sizes")
    for size in SIZES:
        key, body = f"k{size}", LARGEST[:size]
        s3.put_object(Bucket="sizes", Key=key, Body=body)
        assert read(s3, "sizes", key) == body
        assert s3.head_object(Bucket="sizes", Key=key)["ContentLength"] == size
        check_ranges(s3, key, body)
        s3.copy_object(
            Bucket="sizes", Key="copy", CopySource={"Bucket": "sizes", "Key": key}
        )  # fmt: skip
        assert read(s3, "sizes", "copy") == body
    check_last_parts(s3)
    listed = s3.list_objects_v2(Bucket="sizes", Prefix="k")["Contents"]
    assert sorted(entry["Size"] for entry in listed) == SIZES
    s3.close()


def check_ranges(s3: S3Client, key: str, body: bytes) -> None:
    """Of two bytes on both sides of every border, and of the last byte."""
    size = len(body)
    firsts = {border - 1 for border in BORDERS if 0 < border < size} | {size - 1}
    for first in sorted(each for each in firsts if each >= 0):
        found = s3.get_object(Bucket="sizes", Key=key, Range=f"bytes={first}-{first + 1}")
        assert found["Body"].read() == body[first : first + 2]
        total = found["ContentRange"].rpartition("/")[2]
        assert total == str(size)
    if not size:
        with pytest.raises(s3.exceptions.ClientError, match="InvalidRange"):
            s3.get_object(Bucket="sizes", Key=key, Range="bytes=0-0")


def check_last_parts(s3: S3Client) -> None:
    """The last part of an upload may have any size."""
    for size in SIZES:
        upload = s3.create_multipart_upload(Bucket="sizes", Key="parts")["UploadId"]
        sent = s3.upload_part(
            Bucket="sizes", Key="parts", UploadId=upload, PartNumber=1, Body=LARGEST[:size]
        )
        s3.complete_multipart_upload(
            Bucket="sizes", Key="parts", UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]},
        )  # fmt: skip
        assert read(s3, "sizes", "parts") == LARGEST[:size]
