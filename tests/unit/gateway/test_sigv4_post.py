"""Forms of browser uploads: AWS's example, botocore's signer, and forged forms (S16, S19)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from botocore.auth import S3SigV4PostAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.request_errors import AuthError
from gateway.sigv4 import Anonymous
from gateway.sigv4_post import (
    PostAuth,
    is_v2_form,
    parse_post_auth,
    parse_post_auth_v2,
    verify_post,
    verify_post_v2,
)
from tests.support.s3_signing import ACCESS_KEY, SECRET


def signed_form() -> dict[str, str]:
    """A form made by botocore, now."""
    request = AWSRequest(method="POST", url="http://127.0.0.1:9000/b")
    request.context["s3-presign-post-fields"] = {"key": "k"}
    request.context["s3-presign-post-policy"] = {
        "expiration": "2030-01-01T00:00:00Z",
        "conditions": [{"bucket": "b"}],
    }
    S3SigV4PostAuth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1").add_auth(request)
    fields: dict[str, str] = request.context["s3-presign-post-fields"]
    return fields


def v2_form() -> dict[str, str]:
    policy = base64.b64encode(json.dumps({"conditions": []}).encode())
    digest = hmac.new(SECRET.encode(), policy, hashlib.sha1).digest()
    return {
        "awsaccesskeyid": ACCESS_KEY,
        "policy": policy.decode(),
        "signature": base64.b64encode(digest).decode(),
    }


def claim(fields: dict[str, str]) -> PostAuth:
    auth = parse_post_auth(fields)
    assert isinstance(auth, PostAuth)
    return auth


def refuse(fields: dict[str, str], secret: str = SECRET) -> AuthError:
    with pytest.raises(AuthError) as caught:
        verify_post(claim(fields), secret)
    return caught.value


def test_verify_post_botocore_form_accepts() -> None:
    auth = claim(signed_form())
    verify_post(auth, SECRET)
    assert auth.access_key == ACCESS_KEY


def test_parse_post_unsigned_form_is_anonymous() -> None:
    assert parse_post_auth({"key": "k", "acl": "public-read"}) == Anonymous()


@pytest.mark.parametrize("name", ["policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date",
                                  "x-amz-signature"])  # fmt: skip
def test_parse_post_field_missing_or_empty_refuses(name: str) -> None:
    fields = signed_form()
    assert refuse({**fields, name: ""}).code == "InvalidArgument"
    del fields[name]
    assert refuse(fields).code == "InvalidArgument"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-algorithm", "none", "InvalidArgument"),
        ("x-amz-algorithm", "AWS4-HMAC-SHA1", "InvalidArgument"),
        ("x-amz-date", "today", "InvalidArgument"),
        ("x-amz-date", "20130524T000000Z", "AuthorizationQueryParametersError"),
        ("x-amz-credential", ACCESS_KEY, "AuthorizationQueryParametersError"),
        ("x-amz-signature", "0" * 64, "SignatureDoesNotMatch"),
        ("x-amz-signature", "é\ud800", "SignatureDoesNotMatch"),
        ("policy", "e30=", "SignatureDoesNotMatch"),
        ("policy", "é\ud800", "SignatureDoesNotMatch"),
    ],
)
def test_verify_post_forged_field_refuses(name: str, value: str, code: str) -> None:
    assert refuse({**signed_form(), name: value}).code == code


def test_verify_post_wrong_secret_refuses() -> None:
    assert refuse(signed_form(), secret="other").code == "SignatureDoesNotMatch"


def test_parse_post_v2_form_refuses_unless_asked_for() -> None:
    with pytest.raises(AuthError) as caught:
        parse_post_auth(v2_form())
    assert caught.value.code == "InvalidRequest"
    assert is_v2_form(v2_form())
    assert not is_v2_form({**v2_form(), **signed_form()})
    verify_post_v2(parse_post_auth_v2(v2_form()), SECRET)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("signature", "AAAA", "SignatureDoesNotMatch"), ("signature", "", "InvalidArgument"),
        ("policy", "e30=", "SignatureDoesNotMatch"), ("policy", "", "InvalidArgument"),
        ("awsaccesskeyid", "", "InvalidArgument"), ("awsaccesskeyid", "a b", "InvalidArgument"),
    ],
)  # fmt: skip
def test_verify_post_v2_forged_field_refuses(name: str, value: str, code: str) -> None:
    with pytest.raises(AuthError) as caught:
        verify_post_v2(parse_post_auth_v2({**v2_form(), name: value}), SECRET)
    assert caught.value.code == code
