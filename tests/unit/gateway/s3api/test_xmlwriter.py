"""Every document, parsed by the SDK's own parser."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import botocore.session
import pytest
from botocore.handlers import decode_list_object, decode_list_object_v2, decode_list_object_versions
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api import documents as doc
from gateway.s3api import xmlwriter

MODEL = botocore.session.Session().get_service_model("s3")
PARSER = create_parser("rest-xml")
MOMENT_MS = 1_700_000_000_123
MOMENT = datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123_000)
OWNER = doc.Owner(owner_id="0123", display_name="Ann & Bob")
SDK_OWNER = {"ID": "0123", "DisplayName": "Ann & Bob"}
URL_ENCODED = {"encoding_type_auto_set": True}
AWKWARD = "dir/a b+c%20<&>\"'\r\n\t😀"
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
XML_KEYS = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"
    ),
    max_size=60,
)
CHECKSUMS = [
    doc.Checksum(algorithm="CRC32", value="AAAAAA=="),
    doc.Checksum(algorithm="CRC64NVME", value="AAAAAAAAAAA="),
]
SDK_CHECKSUMS = {"ChecksumCRC32": "AAAAAA==", "ChecksumCRC64NVME": "AAAAAAAAAAA="}


def _parse(operation: str, body: bytes) -> dict[str, Any]:  # Any: the SDK's answers are untyped
    """What boto3 makes of a body, without its ResponseMetadata."""
    response = {"status_code": 200, "headers": {}, "body": body}
    shape = MODEL.operation_model(operation).output_shape
    assert shape is not None
    parsed: dict[str, Any] = PARSER.parse(response, shape)
    parsed.pop("ResponseMetadata")
    return parsed


def _entry(key: str, **more: Any) -> doc.ObjectEntry:
    return doc.ObjectEntry(key=key, etag="abc-2", size=7, modified_ms=MOMENT_MS, **more)


def _sdk_entry(key: str, **more: object) -> dict[str, object]:
    entry = {"Key": key, "ETag": '"abc-2"', "Size": 7, "LastModified": MOMENT}
    return entry | {"StorageClass": "STANDARD"} | more


def test_render_buckets_parses_with_the_sdk() -> None:
    buckets = [
        doc.BucketEntry(name="abc", created_ms=MOMENT_MS, region="eu-west-1"),
        doc.BucketEntry(name="def", created_ms=MOMENT_MS),
    ]
    page = doc.BucketsPage(owner=OWNER, buckets=buckets, prefix="a&", continuation_token="t")
    assert _parse("ListBuckets", xmlwriter.render_buckets(page)) == {
        "Owner": SDK_OWNER,
        "Buckets": [
            {"Name": "abc", "CreationDate": MOMENT, "BucketRegion": "eu-west-1"},
            {"Name": "def", "CreationDate": MOMENT},
        ],
        "Prefix": "a&",
        "ContinuationToken": "t",
    }
    empty = doc.BucketsPage(owner=OWNER, buckets=[])
    assert _parse("ListBuckets", xmlwriter.render_buckets(empty))["Buckets"] == []


def test_render_objects_parses_with_the_sdk() -> None:
    page = doc.ObjectsPage(
        bucket="abc",
        prefix="p",
        delimiter="/",
        marker="m",
        next_marker="n",
        max_keys=2,
        is_truncated=True,
        entries=[
            _entry("k1", owner=OWNER),
            _entry("k2", checksum_algorithm="CRC32", checksum_type="FULL_OBJECT"),
        ],
        common_prefixes=["p/", "q/"],
    )
    assert _parse("ListObjects", xmlwriter.render_objects(page)) == {
        "Name": "abc",
        "Prefix": "p",
        "Delimiter": "/",
        "Marker": "m",
        "NextMarker": "n",
        "MaxKeys": 2,
        "IsTruncated": True,
        "Contents": [
            _sdk_entry("k1", Owner=SDK_OWNER),
            _sdk_entry("k2", ChecksumAlgorithm=["CRC32"], ChecksumType="FULL_OBJECT"),
        ],
        "CommonPrefixes": [{"Prefix": "p/"}, {"Prefix": "q/"}],
    }


def test_render_objects_url_encoded_is_decoded_by_the_sdk() -> None:
    page = doc.ObjectsPage(
        bucket="abc",
        prefix=AWKWARD,
        delimiter=" +",
        marker=AWKWARD + "\0",
        next_marker=AWKWARD + "\x01",
        max_keys=1000,
        is_truncated=False,
        url_encoded=True,
        entries=[_entry("\0\x01\x1f" + AWKWARD)],
        common_prefixes=["\x02 +/"],
    )
    parsed = _parse("ListObjects", xmlwriter.render_objects(page))
    assert parsed["EncodingType"] == "url"
    decode_list_object(parsed, URL_ENCODED)
    assert unquote_plus(parsed["Prefix"]) == AWKWARD
    assert parsed["Delimiter"] == " +"
    assert parsed["Marker"] == AWKWARD + "\0"
    assert parsed["NextMarker"] == AWKWARD + "\x01"
    assert parsed["Contents"][0]["Key"] == "\0\x01\x1f" + AWKWARD
    assert parsed["CommonPrefixes"] == [{"Prefix": "\x02 +/"}]


@given(prefix=KEYS)
def test_render_objects_prefix_of_version_1_reads_right_with_and_without_decoding(
    prefix: str,
) -> None:
    page = doc.ObjectsPage(
        bucket="abc", prefix=prefix, max_keys=1, is_truncated=False, url_encoded=True
    )
    shown = _parse("ListObjects", xmlwriter.render_objects(page))["Prefix"]
    assert unquote_plus(shown) == prefix
    if prefix.isprintable() and not set(prefix) & set("%+"):
        assert shown == prefix


def test_render_objects_prefix_of_a_line_feed_is_plain_for_the_sdk() -> None:
    page = doc.ObjectsPage(
        bucket="abc", prefix="\n", max_keys=1, is_truncated=False, url_encoded=True
    )
    assert _parse("ListObjects", xmlwriter.render_objects(page))["Prefix"] == "\n"


def test_render_objects_v2_parses_with_the_sdk() -> None:
    page = doc.ObjectsPageV2(
        bucket="abc",
        prefix="p p",
        delimiter="/",
        start_after="s s",
        continuation_token="t1",
        next_continuation_token="t2",
        max_keys=2,
        is_truncated=True,
        url_encoded=True,
        entries=[_entry("k 1", owner=OWNER)],
        common_prefixes=["p p/"],
    )
    parsed = _parse("ListObjectsV2", xmlwriter.render_objects_v2(page))
    decode_list_object_v2(parsed, URL_ENCODED)
    assert parsed == {
        "Name": "abc",
        "Prefix": "p p",
        "Delimiter": "/",
        "StartAfter": "s s",
        "ContinuationToken": "t1",
        "NextContinuationToken": "t2",
        "KeyCount": 2,
        "MaxKeys": 2,
        "EncodingType": "url",
        "IsTruncated": True,
        "Contents": [_sdk_entry("k 1", Owner=SDK_OWNER)],
        "CommonPrefixes": [{"Prefix": "p p/"}],
    }


@given(key=KEYS)
def test_render_objects_v2_any_key_url_encoded_comes_back(key: str) -> None:
    page = doc.ObjectsPageV2(
        bucket="abc", max_keys=1, is_truncated=False, url_encoded=True, entries=[_entry(key)]
    )
    parsed = _parse("ListObjectsV2", xmlwriter.render_objects_v2(page))
    decode_list_object_v2(parsed, URL_ENCODED)
    assert parsed["Contents"][0]["Key"] == key


@given(key=KEYS)
def test_render_objects_any_key_plain_is_well_formed(key: str) -> None:
    page = doc.ObjectsPage(bucket="abc", max_keys=1, is_truncated=False, entries=[_entry(key)])
    parsed = _parse("ListObjects", xmlwriter.render_objects(page))
    shown = parsed["Contents"][0]["Key"]
    assert len(shown) == len(key)
    assert all(a in (b, "\ufffd") for a, b in zip(shown, key, strict=True))


@given(key=XML_KEYS.filter(bool), white=st.text("\t\n\r", max_size=3))
def test_render_objects_key_that_xml_can_hold_comes_back_plain(key: str, white: str) -> None:
    page = doc.ObjectsPage(
        bucket="abc", max_keys=1, is_truncated=False, entries=[_entry(white + key + white)]
    )
    parsed = _parse("ListObjects", xmlwriter.render_objects(page))
    assert parsed["Contents"][0]["Key"] == white + key + white


def test_render_versions_parses_with_the_sdk() -> None:
    page = doc.VersionsPage(
        bucket="abc",
        prefix="p p",
        delimiter="/",
        key_marker="k m",
        version_id_marker="v m",
        next_key_marker="n k",
        next_version_id_marker="n-v",
        max_keys=3,
        is_truncated=True,
        url_encoded=True,
        entries=[
            doc.DeleteMarkerEntry(
                key="a b", version_id="v2", is_latest=True, modified_ms=MOMENT_MS, owner=OWNER
            ),
            doc.VersionEntry(
                key="a b",
                version_id="null",
                is_latest=False,
                etag='"abc-2"',
                size=7,
                modified_ms=MOMENT_MS,
                owner=OWNER,
                checksum_algorithm="SHA256",
                checksum_type="COMPOSITE",
            ),
        ],
        common_prefixes=["x y/"],
    )
    parsed = _parse("ListObjectVersions", xmlwriter.render_versions(page))
    decode_list_object_versions(parsed, URL_ENCODED)
    version = _sdk_entry("a b", VersionId="null", IsLatest=False, Owner=SDK_OWNER)
    assert parsed == {
        "Name": "abc",
        "Prefix": "p p",
        "Delimiter": "/",
        "KeyMarker": "k m",
        "VersionIdMarker": "v m",
        "NextKeyMarker": "n k",
        "NextVersionIdMarker": "n-v",
        "MaxKeys": 3,
        "EncodingType": "url",
        "IsTruncated": True,
        "Versions": [version | {"ChecksumAlgorithm": ["SHA256"], "ChecksumType": "COMPOSITE"}],
        "DeleteMarkers": [
            {
                "Key": "a b",
                "VersionId": "v2",
                "IsLatest": True,
                "LastModified": MOMENT,
                "Owner": SDK_OWNER,
            }
        ],
        "CommonPrefixes": [{"Prefix": "x y/"}],
    }


def test_render_upload_started_and_completed_parse_with_the_sdk() -> None:
    started = doc.UploadStarted(bucket="abc", key=AWKWARD, upload_id="u")
    body = xmlwriter.render_upload_started(started)
    expected = {"Bucket": "abc", "Key": AWKWARD, "UploadId": "u"}
    assert _parse("CreateMultipartUpload", body) == expected
    completed = doc.UploadCompleted(
        location="http://h/abc/k",
        bucket="abc",
        key=AWKWARD,
        etag="abc-2",
        checksums=CHECKSUMS,
        checksum_type="FULL_OBJECT",
    )
    body = xmlwriter.render_upload_completed(completed)
    assert _parse("CompleteMultipartUpload", body) == {
        "Location": "http://h/abc/k",
        "Bucket": "abc",
        "Key": AWKWARD,
        "ETag": '"abc-2"',
        "ChecksumType": "FULL_OBJECT",
        **SDK_CHECKSUMS,
    }


def test_render_parts_parses_with_the_sdk() -> None:
    page = doc.PartsPage(
        bucket="abc",
        key="k",
        upload_id="u",
        initiator=OWNER,
        owner=OWNER,
        part_number_marker=1,
        next_part_number_marker=2,
        max_parts=1,
        is_truncated=True,
        checksum_algorithm="CRC32",
        checksum_type="COMPOSITE",
        parts=[
            doc.PartEntry(
                part_number=2, etag="e", size=9, modified_ms=MOMENT_MS, checksums=CHECKSUMS
            )
        ],
    )
    assert _parse("ListParts", xmlwriter.render_parts(page)) == {
        "Bucket": "abc",
        "Key": "k",
        "UploadId": "u",
        "Initiator": SDK_OWNER,
        "Owner": SDK_OWNER,
        "StorageClass": "STANDARD",
        "PartNumberMarker": 1,
        "NextPartNumberMarker": 2,
        "MaxParts": 1,
        "IsTruncated": True,
        "ChecksumAlgorithm": "CRC32",
        "ChecksumType": "COMPOSITE",
        "Parts": [
            {"PartNumber": 2, "ETag": '"e"', "Size": 9, "LastModified": MOMENT, **SDK_CHECKSUMS}
        ],
    }


def test_render_uploads_parses_with_the_sdk() -> None:
    upload = doc.UploadEntry(
        key="k",
        upload_id="u",
        initiator=OWNER,
        owner=OWNER,
        initiated_ms=MOMENT_MS,
        checksum_algorithm="CRC32",
        checksum_type="COMPOSITE",
    )
    page = doc.UploadsPage(
        bucket="abc",
        prefix="p",
        delimiter="/",
        key_marker="m",
        upload_id_marker="um",
        next_key_marker="n",
        next_upload_id_marker="nu",
        max_uploads=5,
        is_truncated=True,
        uploads=[upload],
        common_prefixes=["p/"],
    )
    assert _parse("ListMultipartUploads", xmlwriter.render_uploads(page)) == {
        "Bucket": "abc",
        "Prefix": "p",
        "Delimiter": "/",
        "KeyMarker": "m",
        "UploadIdMarker": "um",
        "NextKeyMarker": "n",
        "NextUploadIdMarker": "nu",
        "MaxUploads": 5,
        "IsTruncated": True,
        "Uploads": [
            {
                "Key": "k",
                "UploadId": "u",
                "Initiator": SDK_OWNER,
                "Owner": SDK_OWNER,
                "StorageClass": "STANDARD",
                "Initiated": MOMENT,
                "ChecksumAlgorithm": "CRC32",
                "ChecksumType": "COMPOSITE",
            }
        ],
        "CommonPrefixes": [{"Prefix": "p/"}],
    }


def test_render_copied_parses_with_the_sdk() -> None:
    copied = doc.Copied(
        etag="abc-2", modified_ms=MOMENT_MS, checksums=CHECKSUMS, checksum_type="FULL_OBJECT"
    )
    result = {"ETag": '"abc-2"', "LastModified": MOMENT, **SDK_CHECKSUMS}
    body = xmlwriter.render_copied_object(copied)
    expected = {"CopyObjectResult": result | {"ChecksumType": "FULL_OBJECT"}}
    assert b"<CopyObjectResult " in body
    assert _parse("CopyObject", body) == expected
    body = xmlwriter.render_copied_part(doc.Copied(etag="abc-2", modified_ms=MOMENT_MS))
    assert b"<CopyPartResult " in body
    expected_part = {"ETag": '"abc-2"', "LastModified": MOMENT}
    assert _parse("UploadPartCopy", body) == {"CopyPartResult": expected_part}


def test_render_deleted_parses_with_the_sdk() -> None:
    result = doc.DeleteResult(
        deleted=[
            doc.Deleted(key=AWKWARD),
            doc.Deleted(key="m", delete_marker=True, delete_marker_version_id="d"),
            doc.Deleted(key="v", version_id="1"),
        ],
        failed=[doc.DeleteFailed(key="f&", version_id="2", code="AccessDenied", message="<no>")],
    )
    assert _parse("DeleteObjects", xmlwriter.render_deleted(result)) == {
        "Deleted": [
            {"Key": AWKWARD},
            {"Key": "m", "DeleteMarker": True, "DeleteMarkerVersionId": "d"},
            {"Key": "v", "VersionId": "1"},
        ],
        "Errors": [{"Key": "f&", "VersionId": "2", "Code": "AccessDenied", "Message": "<no>"}],
    }
    assert _parse("DeleteObjects", xmlwriter.render_deleted(doc.DeleteResult())) == {}


def test_render_attributes_parses_with_the_sdk() -> None:
    attributes = doc.ObjectAttributes(
        etag='"abc-2"',
        checksums=CHECKSUMS,
        checksum_type="COMPOSITE",
        parts=doc.AttributesParts(
            total_parts_count=2,
            next_part_number_marker=1,
            max_parts=1,
            is_truncated=True,
            parts=[doc.AttributesPart(part_number=1, size=5, checksums=CHECKSUMS[:1])],
        ),
        storage_class="STANDARD",
        size=7,
    )
    assert _parse("GetObjectAttributes", xmlwriter.render_attributes(attributes)) == {
        "ETag": "abc-2",
        "Checksum": SDK_CHECKSUMS | {"ChecksumType": "COMPOSITE"},
        "ObjectParts": {
            "TotalPartsCount": 2,
            "PartNumberMarker": 0,
            "NextPartNumberMarker": 1,
            "MaxParts": 1,
            "IsTruncated": True,
            "Parts": [{"PartNumber": 1, "Size": 5, "ChecksumCRC32": "AAAAAA=="}],
        },
        "StorageClass": "STANDARD",
        "ObjectSize": 7,
    }
    nothing = xmlwriter.render_attributes(doc.ObjectAttributes())
    assert _parse("GetObjectAttributes", nothing) == {}


def test_render_location_parses_with_the_sdk() -> None:
    body = xmlwriter.render_location("eu-west-1")
    assert body.endswith(b'doc/2006-03-01/">eu-west-1</LocationConstraint>')
    body = xmlwriter.render_location(None)
    assert body.endswith(b'doc/2006-03-01/"></LocationConstraint>')


@pytest.mark.parametrize("status", ["Enabled", "Suspended", None])
def test_render_versioning_parses_with_the_sdk(status: str | None) -> None:
    parsed = _parse("GetBucketVersioning", xmlwriter.render_versioning(status))
    assert parsed == ({} if status is None else {"Status": status})


def test_render_tagging_parses_with_the_sdk() -> None:
    body = xmlwriter.render_tagging([("k&", "v<"), ("e", "")])
    expected = [{"Key": "k&", "Value": "v<"}, {"Key": "e", "Value": ""}]
    assert _parse("GetObjectTagging", body) == {"TagSet": expected}
    assert _parse("GetBucketTagging", xmlwriter.render_tagging([])) == {"TagSet": []}


def test_render_acl_parses_with_the_sdk() -> None:
    owner = {"ID": "u&1", "DisplayName": "<Grantee>"}
    policy = doc.AccessControlPolicy(
        owner=doc.Owner(owner_id="u&1", display_name="<Grantee>"),
        grants=[
            doc.GrantEntry(
                kind="CanonicalUser",
                value="u&1",
                display_name="<Grantee>",
                permission="FULL_CONTROL",
            ),
            doc.GrantEntry(kind="Group", value="http://a/b&c", permission="READ"),
        ],
    )
    parsed = _parse("GetObjectAcl", xmlwriter.render_acl(policy))
    group = {"Type": "Group", "URI": "http://a/b&c"}
    assert parsed == {
        "Owner": owner,
        "Grants": [
            {"Grantee": {**owner, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"},
            {"Grantee": group, "Permission": "READ"},
        ],
    }
