"""The operation table against the SDK: complete, unambiguous, and selected by what boto3 sends."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import botocore.session
import pytest
from botocore import xform_name
from botocore.awsrequest import AWSPreparedRequest
from botocore.client import BaseClient, Config
from botocore.model import ListShape, OperationModel, Shape, StructureShape

from gateway.s3api.operations import BY_NAME, OPERATIONS, PREFLIGHT, Body, Level
from gateway.s3api.router import Resolved, resolve

IMPLEMENTED = {
    "ListBuckets",
    "CreateBucket",
    "HeadBucket",
    "DeleteBucket",
    "GetBucketLocation",
    "GetBucketAcl",
    "PutBucketAcl",
    "GetObjectAcl",
    "PutObjectAcl",
    "PutObject",
    "GetObject",
    "HeadObject",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "ListObjects",
    "ListObjectsV2",
    "ListObjectVersions",
    "GetBucketVersioning",
    "PutBucketVersioning",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "ListMultipartUploads",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
    "DeleteObjectTagging",
    "GetBucketTagging",
    "PutBucketTagging",
    "DeleteBucketTagging",
}
ENDPOINT = "http://127.0.0.1:9000"
# The one operation that the SDK marks only by a host of its own, which is not ours to serve.
SAME_REQUEST = {"ListDirectoryBuckets": "ListBuckets"}


class Captured(Exception):
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__(request.url)
        self.request = request


def _capture(request: AWSPreparedRequest, **_: object) -> None:
    raise Captured(request)


@dataclass(frozen=True)
class Sdk:
    client: BaseClient

    @property
    def names(self) -> list[str]:
        return list(self.client.meta.service_model.operation_names)

    def model(self, name: str) -> OperationModel:
        return self.client.meta.service_model.operation_model(name)

    def request(self, name: str, **optional: object) -> AWSPreparedRequest:
        shape = self.model(name).input_shape
        params = _sample(shape) if shape is not None else {}
        assert isinstance(params, dict)
        with pytest.raises(Captured) as caught:
            getattr(self.client, xform_name(name))(**(params | optional))
        return caught.value.request


def _new_sdk() -> Sdk:
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=ENDPOINT,
        aws_access_key_id="A" * 20,
        aws_secret_access_key="S" * 40,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            inject_host_prefix=False,
        ),
    )
    client.meta.events.register("before-send.s3", _capture)
    return Sdk(client)


def _sample(shape: Shape, name: str = "") -> object:
    """The smallest value that the SDK accepts for a shape."""
    fixed: dict[str, object] = {
        "Bucket": "my-bucket",
        "Key": "dir/my key",
        "CopySource": "other/key",
        "RenameSource": "other/key",
    }
    if name in fixed:
        return fixed[name]
    if isinstance(shape, StructureShape):
        wanted = shape.required_members or ([] if name == "" else list(shape.members)[:1])
        return {member: _sample(shape.members[member], member) for member in wanted}
    if isinstance(shape, ListShape):
        return [_sample(shape.member)]
    enum: list[str] = getattr(shape, "enum", [])
    samples: dict[str, object] = {
        "integer": 1,
        "long": 1,
        "boolean": True,
        "blob": b"",
        "timestamp": 0,
        "float": 1.0,
    }
    return (
        enum[0] if enum else samples.get(shape.type_name, "x" * int(shape.metadata.get("min", 1)))
    )


def _resolve(request: AWSPreparedRequest) -> Resolved:
    url = urlsplit(request.url)
    return resolve(
        request.method,
        url.netloc,
        url.path.encode(),
        parse_qsl(url.query, keep_blank_values=True),
        {header.lower() for header in request.headers},
    )


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    sdk = _new_sdk()
    yield sdk
    sdk.client.close()


def test_table_compared_with_sdk_model_has_every_operation(sdk: Sdk) -> None:
    assert len(sdk.names) >= 116
    assert set(BY_NAME) - set(sdk.names) == {"PostObject", "PreflightRequest"}
    assert set(sdk.names) - set(BY_NAME) == set()


def test_resolve_request_that_sdk_sends_finds_the_operation(sdk: Sdk) -> None:
    found = {name: _resolve(sdk.request(name)).operation.name for name in sdk.names}
    expected = {
        name: SAME_REQUEST.get(name) or BY_NAME[name].alias_of or name for name in sdk.names
    }
    assert found == expected


def test_resolve_every_optional_query_parameter_of_sdk_is_understood(sdk: Sdk) -> None:
    for name in sdk.names:
        shape = sdk.model(name).input_shape
        if shape is None:
            continue
        extra = {
            member: _sample(inner, member)
            for member, inner in shape.members.items()
            if inner.serialization.get("location") == "querystring"
        }
        operation = _resolve(sdk.request(name, **extra)).operation
        assert operation.name == (BY_NAME[name].alias_of or name)


def test_resolve_virtual_host_request_of_sdk_finds_the_same_bucket_and_key(sdk: Sdk) -> None:
    url = urlsplit(sdk.request("GetObject").url)
    path = url.path.removeprefix("/my-bucket").encode()
    resolved = resolve("GET", "my-bucket.s3.test:9000", path, [], set(), ("s3.test",))
    assert (resolved.bucket, resolved.key) == ("my-bucket", "dir/my key")


def test_table_method_and_status_are_those_of_the_sdk_model(sdk: Sdk) -> None:
    # S3 answers these with a status that the model leaves out.
    documented = {"PutBucketPolicy": 204, "RestoreObject": 202}
    for name in sdk.names:
        model = sdk.model(name)
        status = documented.get(name, model.http.get("responseCode", 200))
        assert (name, BY_NAME[name].method) == (name, model.http["method"])
        assert (name, BY_NAME[name].status) == (name, status)


def test_table_body_kind_follows_the_payload_of_the_sdk_model(sdk: Sdk) -> None:
    for name in sdk.names:
        shape = sdk.model(name).input_shape
        payload = shape.serialization.get("payload") if shape is not None else None
        body = BY_NAME[name].body
        if shape is None or payload is None:
            assert body is (Body.XML if name == "SelectObjectContent" else Body.NONE), name
        elif shape.members[payload].type_name == "blob":
            assert body is Body.STREAM, name
        else:
            assert body is (Body.JSON if name == "PutBucketPolicy" else Body.XML), name


def test_table_level_follows_the_names_in_the_uri_of_the_sdk_model(sdk: Sdk) -> None:
    for name in sdk.names:
        shape = sdk.model(name).input_shape
        members = {} if shape is None else shape.members
        in_uri = {m for m, inner in members.items() if inner.serialization.get("location") == "uri"}
        in_bucket = Level.BUCKET if "Bucket" in in_uri else Level.SERVICE
        assert BY_NAME[name].level is (Level.OBJECT if "Key" in in_uri else in_bucket), name


def test_table_rows_are_unique_by_name_and_by_selection() -> None:
    assert len(BY_NAME) == len(OPERATIONS)
    selections = [
        (op.level, op.method, op.query, op.header)
        for op in OPERATIONS
        if op.alias_of is None and op is not PREFLIGHT
    ]
    assert len(set(selections)) == len(selections)


def test_table_aliases_name_a_row_with_the_same_selection() -> None:
    aliases = [op for op in OPERATIONS if op.alias_of is not None]
    assert len(aliases) == 4
    for op in aliases:
        canonical = BY_NAME[op.alias_of or ""]
        assert (canonical.method, canonical.query) == (op.method, op.query)
        assert not op.implemented


def test_table_implemented_rows_are_exactly_those_of_this_issue() -> None:
    assert {op.name for op in OPERATIONS if op.implemented} == IMPLEMENTED


def test_table_actions_are_iam_action_names() -> None:
    for op in OPERATIONS:
        for action in (op.action, op.version_action or op.action):
            service, _, verb = action.partition(":")
            assert service in ("s3", "s3express", "s3-object-lambda")
            assert verb.isalpha()
            assert verb[0].isupper()


def test_table_action_on_a_version_is_another_action_where_iam_has_one() -> None:
    assert BY_NAME["GetObject"].version_action == "s3:GetObjectVersion"
    assert BY_NAME["DeleteObject"].version_action == "s3:DeleteObjectVersion"
    assert BY_NAME["PutObjectTagging"].version_action == "s3:PutObjectVersionTagging"
    assert BY_NAME["HeadObject"].action == "s3:GetObject"
    assert BY_NAME["PutObject"].version_action is None
