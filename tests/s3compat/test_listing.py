"""ListObjects, ListObjectsV2 and ListObjectVersions as boto3 sees them."""

from typing import Any

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.cluster import Cluster
from tests.support.s3 import answer, make_user, new_name, put_all


def keys_of(page: object) -> list[str]:
    assert isinstance(page, dict)
    return [item["Key"] for item in page.get("Contents", [])]


def prefixes_of(page: object) -> list[str]:
    assert isinstance(page, dict)
    return [item["Prefix"] for item in page.get("CommonPrefixes", [])]


TREE = ("a", "b/1", "b/2", "c/1/x", "d")


# --- both versions ----------------------------------------------------------------------------


def test_list_empty_bucket_has_nothing(s3: S3Client, bucket: str) -> None:
    first = s3.list_objects(Bucket=bucket)
    second = s3.list_objects_v2(Bucket=bucket)
    assert "Contents" not in first
    assert "Contents" not in second
    assert (first["IsTruncated"], first["MaxKeys"], first["Marker"]) == (False, 1000, "")
    assert (second["IsTruncated"], second["MaxKeys"], second["KeyCount"]) == (False, 1000, 0)


def test_list_missing_bucket_is_no_such_bucket(s3: S3Client) -> None:
    name = new_name()
    assert answer(lambda: s3.list_objects(Bucket=name)) == (404, "NoSuchBucket")
    assert answer(lambda: s3.list_objects_v2(Bucket=name)) == (404, "NoSuchBucket")
    assert answer(lambda: s3.list_object_versions(Bucket=name)) == (404, "NoSuchBucket")


def test_list_keys_come_in_byte_order_and_unchanged(s3: S3Client, bucket: str) -> None:
    keys = [
        "a b",
        "a+b",
        "a%2Fb",
        "//",
        "..",
        "é",
        "\U0001f600",
        "\ufffd",
        "x" * 1024,
        "B",
        "&<>\"'",
    ]
    put_all(s3, bucket, *keys)
    in_order = sorted(keys, key=str.encode)
    assert keys_of(s3.list_objects_v2(Bucket=bucket)) == in_order
    assert keys_of(s3.list_objects(Bucket=bucket)) == in_order


def test_list_entries_say_what_head_says(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345", StorageClass="STANDARD_IA")
    head = s3.head_object(Bucket=bucket, Key="k")
    (found,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["ETag"] == head["ETag"]
    assert found["Size"] == 5
    assert found["LastModified"].replace(microsecond=0) == head["LastModified"]
    assert found["StorageClass"] == "STANDARD_IA"
    assert found["ChecksumAlgorithm"] == ["CRC32"]
    assert found["ChecksumType"] == "FULL_OBJECT"


def test_list_with_delimiter_collapses_once(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, *TREE)
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert (keys_of(page), prefixes_of(page)) == (["a", "d"], ["b/", "c/"])
    assert (page["KeyCount"], page["Delimiter"]) == (4, "/")
    below = s3.list_objects_v2(Bucket=bucket, Delimiter="/", Prefix="c/")
    assert (keys_of(below), prefixes_of(below), below["Prefix"]) == ([], ["c/1/"], "c/")


@pytest.mark.parametrize("delimiter", ["a", " ", "%", ".", "é", "ab", "\n"])
def test_list_with_any_delimiter_collapses(s3: S3Client, bucket: str, delimiter: str) -> None:
    put_all(s3, bucket, f"1{delimiter}x", f"1{delimiter}y", "2")
    for page in (
        s3.list_objects(Bucket=bucket, Delimiter=delimiter),
        s3.list_objects_v2(Bucket=bucket, Delimiter=delimiter),
    ):
        assert (keys_of(page), prefixes_of(page)) == (["2"], [f"1{delimiter}"])
        assert page["Delimiter"] == delimiter


def test_list_with_prefix_shows_only_keys_below(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, *TREE)
    assert keys_of(s3.list_objects(Bucket=bucket, Prefix="b/")) == ["b/1", "b/2"]
    assert keys_of(s3.list_objects_v2(Bucket=bucket, Prefix="none")) == []


def test_list_with_max_keys_zero_is_empty_and_not_truncated(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a")
    first = s3.list_objects(Bucket=bucket, MaxKeys=0)
    second = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (keys_of(first), first["IsTruncated"], first["MaxKeys"]) == ([], False, 0)
    assert (keys_of(second), second["IsTruncated"], second["KeyCount"]) == ([], False, 0)


def test_list_with_exactly_max_keys_is_not_truncated(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a", "b")
    assert s3.list_objects(Bucket=bucket, MaxKeys=2)["IsTruncated"] is False
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=2)["IsTruncated"] is False
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["IsTruncated"] is True


def test_list_with_more_than_a_thousand_is_capped(s3: S3Client, bucket: str) -> None:
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)["MaxKeys"] == 1000


def test_list_with_negative_max_keys_is_refused(s3: S3Client, bucket: str) -> None:
    invalid = (400, "InvalidArgument")
    assert answer(lambda: s3.list_objects(Bucket=bucket, MaxKeys=-1)) == invalid
    assert answer(lambda: s3.list_objects_v2(Bucket=bucket, MaxKeys=-1)) == invalid
    assert answer(lambda: s3.list_object_versions(Bucket=bucket, MaxKeys=-1)) == invalid


def test_list_with_unknown_encoding_type_is_refused(s3: S3Client, bucket: str) -> None:
    wanted: Any = {"Bucket": bucket, "EncodingType": "gzip"}
    refusal = answer(lambda: s3.list_objects_v2(**wanted))
    assert refusal == (400, "InvalidArgument")


def test_list_with_encoding_type_url_encodes_names(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "foo+1/bar", "foo/bar/xyzzy", "quux ab/thud", "asdf+b")
    page = s3.list_objects(Bucket=bucket, Delimiter="/", EncodingType="url")
    assert page["EncodingType"] == "url"
    assert keys_of(page) == ["asdf%2Bb"]
    assert prefixes_of(page) == ["foo%2B1/", "foo/", "quux%20ab/"]


def test_list_after_each_write_is_never_stale(s3: S3Client, bucket: str) -> None:
    for number in range(6):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"")
        assert len(keys_of(s3.list_objects_v2(Bucket=bucket))) == number + 1
    for number in range(6):
        s3.delete_object(Bucket=bucket, Key=f"k{number}")
        assert len(keys_of(s3.list_objects_v2(Bucket=bucket))) == 5 - number


# --- version 1 --------------------------------------------------------------------------------


def test_list_v1_pages_by_marker_without_next_marker(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, *TREE)
    page = s3.list_objects(Bucket=bucket, MaxKeys=2)
    assert (keys_of(page), page["IsTruncated"]) == (["a", "b/1"], True)
    assert "NextMarker" not in page
    rest = s3.list_objects(Bucket=bucket, Marker="b/1")
    assert (keys_of(rest), rest["Marker"]) == (["b/2", "c/1/x", "d"], "b/1")


def test_list_v1_pages_by_next_marker_with_delimiter(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, *TREE)
    seen: list[str] = []
    marker = ""
    for _ in range(4):
        page = s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=1, Marker=marker)
        seen += keys_of(page) + prefixes_of(page)
        marker = page.get("NextMarker", "")
    assert seen == ["a", "b/", "c/", "d"]
    assert marker == ""


@pytest.mark.parametrize(
    ("marker", "expected"),
    [("blah", ["foo"]), ("zzz", []), ("bar", ["foo"]), ("\n", ["bar", "foo"])],
)
def test_list_v1_marker_need_not_exist(
    s3: S3Client, bucket: str, marker: str, expected: list[str]
) -> None:
    put_all(s3, bucket, "bar", "foo")
    page = s3.list_objects(Bucket=bucket, Marker=marker)
    assert (keys_of(page), page["Marker"]) == (expected, marker)


def test_list_v1_shows_owners(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    (found,) = s3.list_objects(Bucket=bucket)["Contents"]
    assert found["Owner"] == s3.list_buckets()["Owner"]


def test_list_of_root_in_a_users_bucket_shows_both_owners_by_name(
    cluster: Cluster, s3: S3Client
) -> None:
    user_id, other = make_user(cluster, "Ann Example")
    name = new_name()
    other.create_bucket(Bucket=name)
    put_all(other, name, "hers")
    for _ in range(4):
        (found,) = s3.list_objects(Bucket=name)["Contents"]
        assert found["Owner"] == {"ID": user_id, "DisplayName": "Ann Example"}


# --- version 2 --------------------------------------------------------------------------------


def test_list_v2_paginator_sees_each_name_once(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, *TREE)
    for size in (1, 2, 3):
        pages = list(
            s3.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size}
            )
        )
        names = [name for page in pages for name in keys_of(page) + prefixes_of(page)]
        assert sorted(names) == ["a", "b/", "c/", "d"]
        assert all(page["KeyCount"] <= size for page in pages)
        assert "NextContinuationToken" not in pages[-1]


def test_list_v2_token_beats_start_after_and_both_are_echoed(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "bar", "baz", "foo", "quxx")
    first = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", MaxKeys=1)
    assert keys_of(first) == ["baz"]
    token = first["NextContinuationToken"]
    second = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", ContinuationToken=token)
    assert keys_of(second) == ["foo", "quxx"]
    assert (second["StartAfter"], second["ContinuationToken"]) == ("bar", token)


def test_list_v2_empty_token_begins_at_the_start(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a")
    page = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert (keys_of(page), page["ContinuationToken"]) == (["a"], "")


def test_list_v2_forged_token_is_refused(s3: S3Client, bucket: str) -> None:
    refusal = answer(lambda: s3.list_objects_v2(Bucket=bucket, ContinuationToken="YWJj"))
    assert refusal == (400, "InvalidArgument")


def test_list_v2_owner_only_on_request(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    shown = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
    assert shown["Owner"]["ID"] == "root"
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket, FetchOwner=False)["Contents"][0]


# --- versions ---------------------------------------------------------------------------------


def _entries(s3: S3Client, bucket: str, **wanted: Any) -> list[tuple[str, str, bool]]:
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, **wanted)
    return [
        (item["Key"], item["VersionId"], item["IsLatest"])
        for page in pages
        for item in page.get("Versions", [])
    ]


def test_list_versions_of_an_unversioned_bucket_are_null(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "a", "b")
    assert _entries(s3, bucket) == [("a", "null", True), ("b", "null", True)]


def test_list_versions_newest_first_within_a_key(s3: S3Client, versioned: str) -> None:
    ids = [s3.put_object(Bucket=versioned, Key="a", Body=b"x")["VersionId"] for _ in range(3)]
    other = s3.put_object(Bucket=versioned, Key="b", Body=b"x")["VersionId"]
    marker = s3.delete_object(Bucket=versioned, Key="b")["VersionId"]
    page = s3.list_object_versions(Bucket=versioned)
    expected = [
        ("a", ids[2], True),
        ("a", ids[1], False),
        ("a", ids[0], False),
        ("b", other, False),
    ]
    found = [(v["Key"], v["VersionId"], v["IsLatest"]) for v in page["Versions"]]
    assert found == expected
    (deleted,) = page["DeleteMarkers"]
    assert (deleted["Key"], deleted["VersionId"], deleted["IsLatest"]) == ("b", marker, True)
    assert deleted["Owner"]["ID"] == "root"
    assert _entries(s3, versioned, PaginationConfig={"PageSize": 1}) == expected
    assert _entries(s3, versioned, PaginationConfig={"PageSize": 2}) == expected


def test_list_versions_with_delimiter_collapses(s3: S3Client, versioned: str) -> None:
    put_all(s3, versioned, *TREE)
    put_all(s3, versioned, *TREE)
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [v["Key"] for v in page["Versions"]] == ["a", "a", "d", "d"]
    assert prefixes_of(page) == ["b/", "c/"]


def test_list_versions_marker_without_key_is_refused(s3: S3Client, bucket: str) -> None:
    refusal = answer(lambda: s3.list_object_versions(Bucket=bucket, VersionIdMarker="null"))
    assert refusal == (400, "InvalidArgument")


def test_list_versions_marker_that_is_no_id_is_refused(s3: S3Client, bucket: str) -> None:
    refusal = answer(
        lambda: s3.list_object_versions(Bucket=bucket, KeyMarker="k", VersionIdMarker="no-id")
    )
    assert refusal == (400, "InvalidArgument")
