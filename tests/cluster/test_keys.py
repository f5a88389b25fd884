"""Keys are opaque: whatever S3 allows comes back as it was, and none becomes a path on disk."""

import http.client
import random
from urllib.parse import quote

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import keys, new_bucket, put, read
from tests.support.census import paths_below
from tests.support.cluster import Cluster
from tests.support.rawhttp import exchange, sign

KEYS = [
    "a",
    "a/b",
    "a/b/",
    "a/",
    ".",
    "..",
    "../x",
    "a/../../b",
    "./a",
    "a/./b",
    "//",
    "/leading",
    "a//b",
    "trailing/",
    " ",
    " a  b ",
    "a+b",
    "a%2Fb",
    "a%252Fb",
    "%00",
    "a?b&c=d#e",
    "back\\slash",
    "..\\..\\x",
    "quote\"<>&'",
    "\u00e9",  # one code point
    "e\u0301",  # two, which look the same
    "\U0001f600/\U0001f680",
    "\uffff",
    "\U00010000",
    "~tilde",
    "astra-node.json",
    "metadata.sqlite",
    "CON",
    "x" * 255,
    "x" * 1024,
    "\u00fc" * 512,
    "d/" * 511 + "zz",
]
LARGE = 100_000  # enough for chunks


def _encoded(text: str) -> str:
    return quote(text, safe="/")


def test_odd_keys_come_back_as_they_were(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3, "keys")
    for number, key in enumerate(KEYS):
        put(s3, bucket, key, _body(number))
    assert keys(s3, bucket) == sorted(KEYS, key=str.encode)
    for number, key in enumerate(KEYS):
        assert read(s3, bucket, key) == _body(number), key
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ContentLength"] == len(_body(number)), key
    for key in KEYS:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        assert found["Contents"][0]["Key"] == key
    gone = KEYS[::2]
    for key in gone:
        s3.delete_object(Bucket=bucket, Key=key)
    assert keys(s3, bucket) == sorted(set(KEYS) - set(gone), key=str.encode)


def test_no_path_on_disk_comes_from_a_key(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3, "keysondisk")
    marks = [f"mark{number}x{random.randrange(10**9)}" for number in range(4)]
    names = [f"../../{marks[0]}", f"{marks[1]}/x", f"/tmp/{marks[2]}", f"..\\{marks[3]}"]
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=bytes(LARGE))
    paths = paths_below(cluster.data.parent)
    assert paths
    for mark in [*marks, bucket]:
        assert not [path for path in paths if mark.encode() in path]


def test_a_key_that_is_too_long_or_no_text_is_refused(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3, "keys")
    with pytest.raises(ClientError) as caught:
        put(s3, bucket, "x" * 1025, b"")
    assert caught.value.response["Error"]["Code"] == "KeyTooLongError"
    for bad in ("%ff", "a%c0%afb", "%zz", "%"):
        head = sign(cluster.target, "PUT", f"/{bucket}/{bad}", {"Content-Length": "0"})
        answer = exchange(cluster.target, head.encode())
        assert (answer.status, answer.code) == (400, "InvalidURI"), bad
    assert keys(s3, bucket) == []


def test_a_plain_http_client_sees_the_same_key(cluster: Cluster, s3: S3Client) -> None:
    bucket = new_bucket(s3, "keys")
    for key in ("a+b c", "a//b/../c", "100%", "ü\\"):
        put(s3, bucket, key, key.encode())
        head = sign(cluster.target, "GET", f"/{bucket}/{_encoded(key)}")
        answer = exchange(cluster.target, head.encode(), "GET")
        assert (answer.status, answer.body) == (http.client.OK, key.encode())


def _body(number: int) -> bytes:
    size = LARGE if number % 6 == 0 else 10
    return f"{number};".encode() * size
