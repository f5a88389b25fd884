"""Locations of buckets: what is kept and what is told."""

import pytest

from astra.model import Bucket
from gateway.s3api.bucket import check_location, region_of
from gateway.s3api.errors import S3Error


def test_check_location_absent_is_empty() -> None:
    assert check_location(None) == ""


@pytest.mark.parametrize("location", ["us-east-1", "EU", "eu-west-1", "default", "x" * 63])
def test_check_location_of_a_region_is_kept(location: str) -> None:
    assert check_location(location) == location


@pytest.mark.parametrize("location", ["a b", "-a", "a-", "a/b", "é", "x" * 64, "a\n"])
def test_check_location_of_nonsense_is_refused(location: str) -> None:
    with pytest.raises(S3Error) as refused:
        check_location(location)
    assert refused.value.code == "InvalidLocationConstraint"


@pytest.mark.parametrize(("location", "region"), [("", "here-1"), ("there-1", "there-1")])
def test_region_of_bucket_is_its_own_or_the_gateways(location: str, region: str) -> None:
    bucket = Bucket(name="b", owner_id="o", created_ms=0, epoch=1, location=location)
    assert region_of(bucket, "here-1") == region
