"""Switching versions on and off, and what that does to puts, as boto3 sees it."""

from typing import Any

from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer, enable_versioning, new_name, suspend_versioning


def configure(s3: S3Client, bucket: str, **configuration: str) -> Any:
    wanted: Any = configuration
    return s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=wanted)


def test_versioning_states_are_told_by_every_worker(s3: S3Client, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for status in ("Suspended", "Enabled", "Enabled", "Suspended"):
        configure(s3, bucket, Status=status)
        for _ in range(4):
            assert s3.get_bucket_versioning(Bucket=bucket).get("Status") == status


def test_versioning_mfa_delete_is_not_implemented(s3: S3Client, bucket: str) -> None:
    refusal = answer(lambda: configure(s3, bucket, Status="Enabled", MFADelete="Enabled"))
    assert refusal == (501, "NotImplemented")
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_versioning_without_status_is_refused(s3: S3Client, bucket: str) -> None:
    refusal = answer(lambda: configure(s3, bucket))
    assert refusal == (400, "IllegalVersioningConfigurationException")


def test_versioning_of_unknown_status_is_malformed(s3: S3Client, bucket: str) -> None:
    assert answer(lambda: configure(s3, bucket, Status="Off")) == (400, "MalformedXML")


def test_versioning_of_a_missing_bucket_is_refused(s3: S3Client) -> None:
    name = new_name()
    assert answer(lambda: s3.get_bucket_versioning(Bucket=name)) == (404, "NoSuchBucket")
    refusal = answer(lambda: configure(s3, name, Status="Enabled"))
    assert refusal == (404, "NoSuchBucket")


def test_versioning_on_keeps_what_was_there_as_null(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    enable_versioning(s3, bucket)
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"after")["VersionId"]
    old = s3.get_object(Bucket=bucket, Key="k", VersionId="null")
    assert (old["Body"].read(), old["VersionId"]) == (b"before", "null")
    new = s3.get_object(Bucket=bucket, Key="k")
    assert (new["Body"].read(), new["VersionId"]) == (b"after", version)


def test_versioning_suspended_overwrites_the_null_version_only(
    s3: S3Client, versioned: str
) -> None:
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    suspend_versioning(s3, versioned)
    for body in (b"one", b"two"):
        assert "VersionId" not in s3.put_object(Bucket=versioned, Key="k", Body=body)
    listed = s3.list_object_versions(Bucket=versioned)["Versions"]
    assert [(item["VersionId"], item["IsLatest"]) for item in listed] == [
        ("null", True),
        (version, False),
    ]
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"two"
    kept = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
    assert kept["Body"].read() == b"kept"


def test_versioning_takes_effect_with_the_next_put_of_any_worker(s3: S3Client, bucket: str) -> None:
    for _ in range(4):  # every worker remembers the bucket as unversioned
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
    enable_versioning(s3, bucket)
    versions = {s3.put_object(Bucket=bucket, Key="k", Body=b"")["VersionId"] for _ in range(4)}
    assert len(versions) == 4
    assert "null" not in versions
