"""Buckets for the tests of the S3 interface."""

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.s3 import enable_versioning, new_name


@pytest.fixture
def bucket(s3: S3Client) -> str:
    """An empty bucket of the test's own."""
    name = new_name()
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def versioned(s3: S3Client, bucket: str) -> str:
    """An empty bucket of the test's own that keeps versions."""
    enable_versioning(s3, bucket)
    return bucket
