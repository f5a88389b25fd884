"""Buckets of a test's own on a cluster that it shares."""

import uuid

from mypy_boto3_s3 import S3Client


def new_name(what: str = "t") -> str:
    """A bucket name that no other test uses."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def new_bucket(s3: S3Client, what: str = "t") -> str:
    """A new, empty bucket."""
    name = new_name(what)
    s3.create_bucket(Bucket=name)
    return name


def put(s3: S3Client, bucket: str, key: str, body: bytes) -> str:
    """Stores small bytes; returns the ETag."""
    return s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]


def read(s3: S3Client, bucket: str, key: str) -> bytes:
    """The whole object."""
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def keys(s3: S3Client, bucket: str, prefix: str = "") -> list[str]:
    """Every key of the bucket, over all pages."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
