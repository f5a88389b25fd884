"""Reading bodies: what the SDK writes is understood, everything else is MalformedXML."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import botocore.session
import pytest
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api import xml
from gateway.s3api.documents import Checksum
from gateway.s3api.errors import S3Error
from gateway.s3api.xml import BucketConfiguration, CompletedPart, ObjectToDelete

MODEL = botocore.session.Session().get_service_model("s3")
SERIALIZER = create_serializer("rest-xml", include_validation=True)
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
XML_TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"
    ),
    min_size=1,
    max_size=60,
)
READERS: list[Callable[[bytes], object]] = [
    xml.parse_delete,
    xml.parse_complete_multipart,
    xml.parse_versioning,
    xml.parse_object_tagging,
    xml.parse_bucket_tagging,
    xml.parse_create_bucket,
]


def _sdk(operation: str, **params: object) -> bytes:
    """The body that boto3 sends."""
    model = MODEL.operation_model(operation)
    request = SERIALIZER.serialize_to_request({"Bucket": "abc", **params}, model)
    body: bytes = request["body"]
    return body


def _delete(*objects: str, more: str = "") -> bytes:
    return (
        f"<Delete>{''.join(f'<Object>{item}</Object>' for item in objects)}{more}</Delete>".encode()
    )


def _code(reader: Callable[[bytes], object], body: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        reader(body)
    return caught.value.code


def test_parse_delete_of_the_sdk_is_understood() -> None:
    body = _sdk(
        "DeleteObjects",
        Delete={
            "Quiet": True,
            "Objects": [
                {"Key": "a & b\r"},
                {"Key": "k", "VersionId": "v1"},
                {
                    "Key": "c",
                    "ETag": '"e"',
                    "Size": 0,
                    "LastModifiedTime": datetime(2024, 1, 1, tzinfo=UTC),
                },
            ],
        },
    )
    parsed = xml.parse_delete(body)
    assert parsed.quiet
    assert parsed.objects[1:] == (
        ObjectToDelete(key="k", version_id="v1"),
        ObjectToDelete(key="c", etag="e", size=0, modified_seconds=1704067200),
    )
    assert parsed.objects[0].key.startswith("a & b")


@given(keys=st.lists(XML_TEXT, min_size=1, max_size=5))
def test_parse_delete_any_keys_of_the_sdk_come_back(keys: list[str]) -> None:
    body = _sdk("DeleteObjects", Delete={"Objects": [{"Key": key} for key in keys]})
    assert [item.key for item in xml.parse_delete(body).objects] == keys
    assert not xml.parse_delete(body).quiet


@pytest.mark.parametrize(
    "body",
    [
        _delete("<Key>k</Key>"),
        f"<Delete {NS}><Object><Key>k</Key></Object></Delete>".encode(),
        f'<?xml version="1.0" encoding="UTF-8"?>\n<x:Delete xmlns:x={NS[6:]}>\n <!-- c -->'
        "<x:Object>\n<x:Key><![CDATA[k]]></x:Key> </x:Object>\n</x:Delete>\n".encode(),
        b"\xef\xbb\xbf" + _delete("<Key>k</Key><VersionId/>", more="<Quiet>false</Quiet>"),
        _delete("<Key>&#107;</Key>"),
        b"<?pi x?>" + _delete("<Key>k</Key>"),
    ],
)
def test_parse_delete_any_spelling_of_the_same_document(body: bytes) -> None:
    parsed = xml.parse_delete(body)
    assert (parsed.objects, parsed.quiet) == ((ObjectToDelete(key="k"),), False)


def test_parse_delete_a_thousand_keys_is_the_limit() -> None:
    thousand = ["<Key>k</Key>"] * 1000
    assert len(xml.parse_delete(_delete(*thousand)).objects) == 1000
    assert _code(xml.parse_delete, _delete(*thousand, "<Key>k</Key>")) == "MalformedXML"


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete/>",
        _delete(""),
        _delete("<Key/>"),
        _delete("<VersionId>v</VersionId>"),
        _delete("<Key>a</Key><Key>b</Key>"),
        _delete("<Key>a</Key><Other>b</Other>"),
        _delete("<Key>a</Key><Size>-1</Size>"),
        _delete("<Key>a</Key><Size>" + "9" * 5000 + "</Size>"),
        _delete("<Key>a</Key><LastModifiedTime>soon</LastModifiedTime>"),
        _delete("<Key>a<b/></Key>"),
        _delete("text<Key>a</Key>"),
        _delete("<Key>a</Key>text"),
        _delete("<Key>a</Key>", more="<Quiet>maybe</Quiet>"),
        _delete("<Key>a</Key>", more="<Loud/>"),
        b"<Delete><Object xmlns='urn:x'><Key>a</Key></Object></Delete>",
        b"<Delete xmlns='urn:x'><Object><Key>a</Key></Object></Delete>",
    ],
)
def test_parse_delete_of_another_shape_is_malformed(body: bytes) -> None:
    assert _code(xml.parse_delete, body) == "MalformedXML"


ENTITY = b'<!DOCTYPE Delete [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
LAUGHS = b'<!DOCTYPE Delete [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"x",
        b"<",
        b"<Delete>",
        b"<Other/>",
        b"\x00",
        b"\xff\xfe<\x00D\x00/\x00>\x00",
        b"<Delete>\xff</Delete>",
        b"<Delete>&e;</Delete>",
        b"<Delete/><Delete/>",
        b"<Delete>&#1;</Delete>",
        ENTITY + _delete("<Key>&e;</Key>"),
        LAUGHS + _delete("<Key>&c;</Key>"),
        b"<!DOCTYPE Delete>" + _delete("<Key>k</Key>"),
        b'<!DOCTYPE Delete SYSTEM "http://127.0.0.1:1/x.dtd">' + _delete("<Key>k</Key>"),
        b"<a>" * 65 + b"</a>" * 65,
        b"<a>" * 90_000 + b"</a>" * 90_000,
        b"<Delete>" + b"<a/>" * 300_000 + b"</Delete>",
        b"<Delete " + b" ".join(b"a%d=''" % number for number in range(1000)) + b"/>",
        '<?xml version="1.0" encoding="UTF-16"?><Delete/>'.encode("utf-16"),
    ],
)
def test_readers_refuse_hostile_bodies(reader: Callable[[bytes], object], body: bytes) -> None:
    if reader is xml.parse_create_bucket and not body.strip():
        assert reader(body) == BucketConfiguration()
        return
    assert _code(reader, body) == "MalformedXML"


@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_a_body_over_the_cap_unparsed(reader: Callable[[bytes], object]) -> None:
    body = b"<Delete>" + b" " * (2 * 1024 * 1024) + b"</Delete>"
    assert _code(reader, body) == "MaxMessageLengthExceeded"


@given(body=st.binary(max_size=200) | st.text("<>/&;!-[]?= ab\"'", max_size=100).map(str.encode))
def test_readers_arbitrary_bytes_are_refused_with_an_s3_error(body: bytes) -> None:
    for reader in READERS:
        if reader is xml.parse_create_bucket and not body.strip():
            continue
        assert _code(reader, body) == "MalformedXML"


def test_parse_complete_multipart_of_the_sdk_is_understood() -> None:
    body = _sdk(
        "CompleteMultipartUpload",
        Key="k",
        UploadId="u",
        MultipartUpload={
            "Parts": [
                {"PartNumber": 1, "ETag": '"a"', "ChecksumCRC32": "AAAAAA=="},
                {"PartNumber": 10000, "ETag": "b"},
            ]
        },
    )
    checksum = Checksum(algorithm="CRC32", value="AAAAAA==")
    assert xml.parse_complete_multipart(body) == (
        CompletedPart(part_number=1, etag="a", checksums=(checksum,)),
        CompletedPart(part_number=10000, etag="b"),
    )


def _complete(*parts: str) -> bytes:
    inner = "".join(f"<Part>{part}</Part>" for part in parts)
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


def _part(number: object) -> str:
    return f"<PartNumber>{number}</PartNumber><ETag>&quot;{'0' * 32}&quot;</ETag>"


def test_parse_complete_multipart_ten_thousand_parts_with_checksums_is_the_limit() -> None:
    sha = f"<ChecksumSHA256>{'A' * 43}=</ChecksumSHA256>"
    parts = [_part(number) + sha for number in range(1, 10_001)]
    assert len(xml.parse_complete_multipart(_complete(*parts))) == 10_000


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "MalformedXML"),
        (["<PartNumber>1</PartNumber>"], "MalformedXML"),
        (["<ETag>a</ETag>"], "MalformedXML"),
        ([_part("x")], "MalformedXML"),
        ([_part("-1")], "MalformedXML"),
        ([_part("1"), _part("1") + "<ChecksumNEW>a</ChecksumNEW>"], "MalformedXML"),
        ([_part(0)], "InvalidArgument"),
        ([_part(10001)], "InvalidArgument"),
        ([_part(2), _part(1)], "InvalidPartOrder"),
        ([_part(1), _part(1)], "InvalidPartOrder"),
    ],
)
def test_parse_complete_multipart_wrong_is_refused(parts: list[str], code: str) -> None:
    assert _code(xml.parse_complete_multipart, _complete(*parts)) == code


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_parse_versioning_of_the_sdk_is_understood(status: str) -> None:
    configuration = {"Status": status, "MFADelete": "Disabled"}
    body = _sdk("PutBucketVersioning", VersioningConfiguration=configuration)
    assert xml.parse_versioning(body) == status


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("", "IllegalVersioningConfigurationException"),
        ("<Status>On</Status>", "MalformedXML"),
        ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", "NotImplemented"),
        ("<Status>Enabled</Status><Other/>", "MalformedXML"),
    ],
)
def test_parse_versioning_wrong_is_refused(inner: str, code: str) -> None:
    body = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    assert _code(xml.parse_versioning, body) == code


def _tag_set(count: int) -> list[dict[str, str]]:
    return [{"Key": f"k{number}", "Value": "v & w"[:1]} for number in range(count)]


def test_parse_tagging_of_the_sdk_is_understood() -> None:
    body = _sdk("PutObjectTagging", Key="k", Tagging={"TagSet": _tag_set(10)})
    assert xml.parse_object_tagging(body)[9] == ("k9", "v")
    body = _sdk("PutBucketTagging", Tagging={"TagSet": _tag_set(50)})
    assert len(xml.parse_bucket_tagging(body)) == 50
    assert _code(xml.parse_object_tagging, body) == "InvalidTag"
    assert xml.parse_object_tagging(b"<Tagging><TagSet/></Tagging>") == ()


@pytest.mark.parametrize(
    "body",
    [
        b"<Tagging/>",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><Tag/></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tagg/></TagSet></Tagging>",
    ],
)
def test_parse_tagging_of_another_shape_is_malformed(body: bytes) -> None:
    assert _code(xml.parse_object_tagging, body) == "MalformedXML"


def test_parse_create_bucket_of_the_sdk_is_understood() -> None:
    body = _sdk(
        "CreateBucket",
        CreateBucketConfiguration={"LocationConstraint": "eu-west-1", "Tags": _tag_set(1)},
    )
    expected = BucketConfiguration(location="eu-west-1", tags=(("k0", "v"),))
    assert xml.parse_create_bucket(body) == expected
    assert xml.parse_create_bucket(b"") == BucketConfiguration()
    empty = b"<CreateBucketConfiguration><LocationConstraint/></CreateBucketConfiguration>"
    assert xml.parse_create_bucket(empty) == BucketConfiguration()


def test_parse_create_bucket_of_a_directory_bucket_is_not_implemented() -> None:
    bucket = {"Type": "Directory", "DataRedundancy": "SingleAvailabilityZone"}
    body = _sdk("CreateBucket", CreateBucketConfiguration={"Bucket": bucket})
    assert _code(xml.parse_create_bucket, body) == "NotImplemented"


def test_lxml_is_imported_by_one_file_only() -> None:
    root = Path(__file__).parents[4]
    importers = {
        path.relative_to(root).as_posix()
        for package in ("astra", "gateway", "node")
        for path in (root / package).rglob("*.py")
        if any(
            line.startswith(("import lxml", "from lxml"))
            for line in path.read_text("utf-8").splitlines()
        )
    }
    assert importers == {"gateway/s3api/xml.py"}


# --- ACLs ------------------------------------------------------------------------------------

_GRANTEE = (
    '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{}">{}</Grantee>'
)


def _acl(grants: str, owner: str = "<Owner><ID>o</ID></Owner>") -> bytes:
    listed = f"<AccessControlList>{grants}</AccessControlList>"
    return f"<AccessControlPolicy>{owner}{listed}</AccessControlPolicy>".encode()


def _granted(kind: str, inner: str, permission: str = "READ") -> str:
    grantee = _GRANTEE.format(kind, inner)
    return f"<Grant>{grantee}<Permission>{permission}</Permission></Grant>"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("CanonicalUser", "ID"), ("Group", "URI"), ("AmazonCustomerByEmail", "EmailAddress")],
)
def test_parse_access_control_policy_of_each_kind_of_grantee(kind: str, name: str) -> None:
    body = _acl(_granted(kind, f"<{name}>who</{name}>") * 2)
    policy = xml.parse_access_control_policy(body)
    assert policy.owner.owner_id == "o"
    found = [(grant.kind, grant.value, grant.permission) for grant in policy.grants]
    assert found == [(kind, "who", "READ")] * 2
    assert xml.parse_access_control_policy(_acl("")).grants == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<AccessControlPolicy/>",
        _acl("", owner=""),
        _acl("", owner="<Owner><DisplayName>o</DisplayName></Owner>"),
        _acl("", owner="<Owner><ID>o</ID></Owner>" * 2),
        _acl(_granted("CanonicalUser", "<URI>who</URI>")),
        _acl(_granted("Group", "<ID>who</ID>")),
        _acl(_granted("Somebody", "<ID>who</ID>")),
        _acl(_granted("CanonicalUser", "<ID>who</ID>", "EVERYTHING")),
        _acl("<Grant><Permission>READ</Permission></Grant>"),
        _acl("<Grant><Grantee><ID>who</ID></Grantee><Permission>READ</Permission></Grant>"),
        _acl(_granted("CanonicalUser", "<ID>who</ID>") * 101),
        b"<!DOCTYPE a><AccessControlPolicy/>",
    ],
)
def test_parse_access_control_policy_that_is_none_is_a_malformed_acl(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        xml.parse_access_control_policy(body)
    assert caught.value.code == "MalformedACLError"
