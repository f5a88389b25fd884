"""DeleteObject and DeleteObjects as boto3 sees them, with and without versions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer, new_name, put_all, suspend_versioning

BAD_TIME = datetime(2015, 1, 1, tzinfo=UTC)


def delete_many(s3: S3Client, bucket: str, *objects: Any, quiet: bool = False) -> Any:
    """Plain dicts in, plain dicts out."""
    return s3.delete_objects(Bucket=bucket, Delete={"Objects": list(objects), "Quiet": quiet})


# --- one --------------------------------------------------------------------------------------


def test_delete_object_is_gone_and_again_is_fine(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    for _ in range(2):
        deleted = s3.delete_object(Bucket=bucket, Key="k")
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert "VersionId" not in deleted
        assert "DeleteMarker" not in deleted
        assert answer(lambda: s3.get_object(Bucket=bucket, Key="k")) == (404, "NoSuchKey")


def test_delete_object_in_a_missing_bucket_is_refused(s3: S3Client) -> None:
    name = new_name()
    assert answer(lambda: s3.delete_object(Bucket=name, Key="k")) == (404, "NoSuchBucket")


def test_delete_object_with_versions_makes_a_marker_and_removing_it_undeletes(
    s3: S3Client, versioned: str
) -> None:
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert deleted["DeleteMarker"] is True
    assert answer(lambda: s3.get_object(Bucket=versioned, Key="k")) == (404, "NoSuchKey")
    removed = s3.delete_object(Bucket=versioned, Key="k", VersionId=deleted["VersionId"])
    assert removed["DeleteMarker"] is True
    assert removed["VersionId"] == deleted["VersionId"]
    found = s3.get_object(Bucket=versioned, Key="k")
    assert (found["Body"].read(), found["VersionId"]) == (b"kept", version)


def test_delete_object_version_removes_only_that_one(s3: S3Client, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=versioned, Key="k", Body=b"new")["VersionId"]
    deleted = s3.delete_object(Bucket=versioned, Key="k", VersionId=new)
    assert deleted["VersionId"] == new
    assert "DeleteMarker" not in deleted
    assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == old
    gone = answer(lambda: s3.get_object(Bucket=versioned, Key="k", VersionId=new))
    assert gone == (404, "NoSuchVersion")


def test_delete_object_while_suspended_replaces_the_null_version(
    s3: S3Client, versioned: str
) -> None:
    kept = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    suspend_versioning(s3, versioned)
    s3.put_object(Bucket=versioned, Key="k", Body=b"null")
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert (deleted["DeleteMarker"], deleted["VersionId"]) == (True, "null")
    page = s3.list_object_versions(Bucket=versioned)
    assert [v["VersionId"] for v in page["Versions"]] == [kept]
    assert [m["VersionId"] for m in page["DeleteMarkers"]] == ["null"]


def test_delete_object_version_that_cannot_be_is_refused(s3: S3Client, versioned: str) -> None:
    refusal = answer(lambda: s3.delete_object(Bucket=versioned, Key="k", VersionId="no-id"))
    assert refusal == (400, "InvalidArgument")


def test_delete_object_version_that_is_not_there_is_fine(s3: S3Client, versioned: str) -> None:
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"")["VersionId"]
    for _ in range(2):
        deleted = s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204


@pytest.mark.parametrize("condition", ["IfMatch", "IfMatchSize", "IfMatchLastModifiedTime"])
def test_delete_object_condition_holds_or_refuses(
    s3: S3Client, bucket: str, condition: str
) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    good = {"IfMatch": etag, "IfMatchSize": 2, "IfMatchLastModifiedTime": modified}
    bad = {"IfMatch": "bad", "IfMatchSize": 9, "IfMatchLastModifiedTime": BAD_TIME}

    def delete(value: object) -> None:
        wanted: Any = {"Bucket": bucket, "Key": "k", condition: value}
        s3.delete_object(**wanted)

    assert answer(lambda: delete(bad[condition])) == (412, "PreconditionFailed")
    s3.head_object(Bucket=bucket, Key="k")
    delete(good[condition])
    assert answer(lambda: s3.head_object(Bucket=bucket, Key="k")) == (404, "404")
    delete(bad[condition])  # nothing there: fine


def test_delete_object_condition_that_s3_does_not_know_deletes_nothing(
    s3: S3Client, bucket: str
) -> None:
    put_all(s3, bucket, "k")

    def add_header(params: Any, **_: object) -> None:
        params["headers"]["If-None-Match"] = "*"

    s3.meta.events.register("before-call.s3.DeleteObject", add_header)
    refusal = answer(lambda: s3.delete_object(Bucket=bucket, Key="k"))
    assert refusal == (501, "NotImplemented")
    s3.head_object(Bucket=bucket, Key="k")


# --- many -------------------------------------------------------------------------------------


def test_delete_objects_reports_each_and_again_is_fine(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a", "b", "c")
    objects = [{"Key": key} for key in ("a", "b", "c", "never")]
    for _ in range(2):
        result = delete_many(s3, bucket, *objects)
        assert result["Deleted"] == objects
        assert "Errors" not in result
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_delete_objects_quiet_reports_failures_only(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a", "b")
    result = delete_many(s3, bucket, {"Key": "a"}, {"Key": "b", "ETag": "bad"}, quiet=True)
    assert "Deleted" not in result
    (error,) = result["Errors"]
    assert (error["Key"], error["Code"]) == ("b", "PreconditionFailed")
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["b"]


@pytest.mark.parametrize(
    ("bad", "good"),
    [({"ETag": "bad"}, "ETag"), ({"Size": 99}, "Size"), ({"LastModifiedTime": BAD_TIME}, "Last")],
)
def test_delete_objects_conditions_are_per_entry(
    s3: S3Client, bucket: str, bad: dict[str, Any], good: str
) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    (error,) = delete_many(s3, bucket, {"Key": "k", **bad})["Errors"]
    assert error["Code"] == "PreconditionFailed"
    fitting: Any = {
        "ETag": {"ETag": etag},
        "Size": {"Size": 2},
        "Last": {"LastModifiedTime": modified},
    }
    assert delete_many(s3, bucket, {"Key": "k", **fitting[good]})["Deleted"] == [{"Key": "k"}]
    assert "Errors" not in delete_many(s3, bucket, {"Key": "k", **bad})


def test_delete_objects_with_versions_makes_and_removes_markers(
    s3: S3Client, versioned: str
) -> None:
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"")["VersionId"]
    (made,) = delete_many(s3, versioned, {"Key": "k"})["Deleted"]
    marker = made["DeleteMarkerVersionId"]
    assert made == {"Key": "k", "DeleteMarker": True, "DeleteMarkerVersionId": marker}
    result = delete_many(
        s3, versioned, {"Key": "k", "VersionId": version}, {"Key": "k", "VersionId": marker}
    )
    assert result["Deleted"] == [
        {"Key": "k", "VersionId": version},
        {
            "Key": "k",
            "VersionId": marker,
            "DeleteMarker": True,
            "DeleteMarkerVersionId": marker,
        },
    ]
    page = s3.list_object_versions(Bucket=versioned)
    assert "Versions" not in page
    assert "DeleteMarkers" not in page


def test_delete_objects_a_bad_key_fails_alone(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a", "b")
    long = "x" * 1025
    result = delete_many(
        s3, bucket, {"Key": "a"}, {"Key": long}, {"Key": "b", "VersionId": "no-id"}
    )
    assert result["Deleted"] == [{"Key": "a"}]
    codes = {error["Key"]: error["Code"] for error in result["Errors"]}
    assert codes == {long: "KeyTooLongError", "b": "NoSuchVersion"}


def test_delete_objects_of_more_than_a_thousand_is_malformed(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k0")
    objects = [{"Key": f"k{number}"} for number in range(1001)]
    assert answer(lambda: delete_many(s3, bucket, *objects)) == (400, "MalformedXML")
    s3.head_object(Bucket=bucket, Key="k0")


def test_delete_objects_of_a_thousand_is_one_request(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k0", "k999")
    objects = [{"Key": f"k{number}"} for number in range(1000)]
    assert len(delete_many(s3, bucket, *objects)["Deleted"]) == 1000
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_delete_objects_without_a_digest_is_refused(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")

    def drop(request: Any, **_: object) -> None:
        for name in list(request.headers):
            if name.lower().startswith(("x-amz-checksum", "x-amz-sdk-checksum", "content-md5")):
                del request.headers[name]

    s3.meta.events.register_first("before-sign.s3.DeleteObjects", drop)
    refusal = answer(lambda: delete_many(s3, bucket, {"Key": "k"}))
    assert refusal == (400, "InvalidRequest")
    s3.head_object(Bucket=bucket, Key="k")


def test_delete_objects_with_a_wrong_digest_deletes_nothing(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")

    def spoil(params: Any, **_: object) -> None:
        params["headers"]["Content-MD5"] = "1B2M2Y8AsgTpgAmY7PhCfg=="

    s3.meta.events.register_last("before-call.s3.DeleteObjects", spoil)
    assert answer(lambda: delete_many(s3, bucket, {"Key": "k"})) == (400, "BadDigest")
    s3.head_object(Bucket=bucket, Key="k")
